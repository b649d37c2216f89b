"use strict";

// Plotly is large: its code runs when a figure is first looked at.
function loadPlotly() {
  if (!window.Plotly) {
    const script = document.createElement("script");
    script.textContent = document.getElementById("plotly").textContent;
    document.head.append(script);
  }
  return window.Plotly;
}

const DENSITIES = [0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1];
const DASHES = { "-": "solid", "--": "dash", "-.": "dashdot", ":": "dot" };
const FONT = { family: "system-ui, sans-serif", size: 12 };

function layout(title, x, y) {
  return {
    title: { text: plain(title), font: { size: 13 } }, font: FONT, height: 370,
    margin: { l: 55, r: 10, t: 36, b: 55 }, hovermode: "closest",
    xaxis: { title: { text: x }, gridcolor: "#e4e4e4", zeroline: false },
    yaxis: { title: { text: y }, gridcolor: "#e4e4e4", zeroline: false },
    legend: { orientation: "h", y: -0.3, yanchor: "top" },
  };
}

// Plotly reads a little HTML in its texts.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function byPanel(runs) {
  const groups = new Map();
  for (const run of runs) groups.set(run.panel, [...(groups.get(run.panel) || []), run]);
  return [...groups].sort((a, b) => a[0].localeCompare(b[0], undefined, { numeric: true }));
}

function byMethod(runs) {
  const groups = new Map();
  for (const run of runs) groups.set(run.attention, [...(groups.get(run.attention) || []), run]);
  return [...groups].sort((a, b) => a[0].localeCompare(b[0]));
}

function front(runs, cost) {
  const kept = [];
  for (const run of [...runs].sort((a, b) => cost(a) - cost(b) || b.score - a.score)) {
    if (!kept.length || run.score > kept[kept.length - 1].score) kept.push(run);
  }
  return kept;
}

function scoreFigure(panel, runs, cost, label, logarithmic) {
  const known = runs.filter((run) => run.score !== null && cost(run) !== null && cost(run) !== undefined);
  const traces = byMethod(known.filter((run) => !(logarithmic && run.attention === "dense"))).map(([name, group]) => ({
    type: "scatter", mode: "markers", name: plain(name), x: group.map(cost), y: group.map((run) => 100 * run.score),
    error_y: {
      type: "data", symmetric: false, thickness: 1, width: 2,
      array: group.map((run) => run.high === null ? 0 : 100 * (run.high - run.score)),
      arrayminus: group.map((run) => run.low === null ? 0 : 100 * (run.score - run.low)),
    },
    marker: { size: 9, color: DATA.looks[name].colour, symbol: DATA.looks[name].marker, line: { color: "white", width: 1 } },
    customdata: group.map((run) => run.number), text: group.map((run) => plain(methodName(run))),
    hovertemplate: "%{text}<br>%{x:.4g}, score %{y:.1f}<extra></extra>",
  }));
  const best = front(known.filter((run) => run.attention !== "dense"), cost);
  if (best.length > 1) {
    traces.unshift({
      type: "scatter", mode: "lines", name: "Pareto front", hoverinfo: "skip", x: best.map(cost),
      y: best.map((run) => 100 * run.score), line: { shape: "hv", color: "#999", width: 1.5 },
    });
  }
  const made = layout(panel, label, "score × 100");
  made.yaxis.range = [-4, 104];
  if (logarithmic) {
    Object.assign(made.xaxis, { type: "log", tickvals: DENSITIES, ticktext: DENSITIES.map(String) });
  } else made.xaxis.rangemode = "tozero";
  const costs = known.filter((run) => !(logarithmic && run.attention === "dense")).map(cost);
  known.filter((run) => run.attention === "dense").forEach((run, number) => traces.unshift({
    type: "scatter", mode: "lines", name: "dense", showlegend: logarithmic && number === 0, hoverinfo: "skip",
    x: [Math.min(...costs), Math.max(...costs)], y: [100 * run.score, 100 * run.score], line: { color: "#000", width: 1, dash: "dash" },
  }));
  return traces.length ? [traces, made] : null;
}

function layerFigure(panel, runs, metric, label) {
  const known = runs.filter((run) => run.layers[metric]);
  if (!known.length) return null;
  const deepest = Math.max(...known.flatMap((run) => run.layers[metric].map(([layer]) => layer)));
  const columns = [...Array(deepest + 1).keys()];
  const rows = known.map((run) => {
    const values = new Map(run.layers[metric]);
    return columns.map((layer) => values.has(layer) ? values.get(layer) : null);
  });
  const made = layout(panel, "layer", "");
  made.height = Math.max(220, 110 + 22 * known.length);
  made.margin.l = Math.min(190, 0.36 * window.innerWidth);
  made.yaxis.autorange = "reversed";
  made.yaxis.tickvals = known.map((_, number) => number);
  made.yaxis.ticktext = known.map((run) => plain(rowName(run, known)));
  const trace = {
    type: "heatmap", z: rows, x: columns, y: known.map((_, number) => number), colorscale: "Cividis", zmin: metric === "error" ? 0 : undefined,
    colorbar: { title: { text: label, side: "right" }, thickness: 12 },
    hovertemplate: `layer %{x}<br>${label} %{z:.3f}<extra></extra>`,
  };
  return [[trace], made];
}

// Methods that are there several times (seeds) are told apart by their fingerprint.
function rowName(run, among) {
  const name = methodName(run);
  return among.filter((other) => methodName(other) === name).length > 1 ? `${name} · ${run.fingerprint.slice(0, 4)}` : name;
}

function positionFigure(panel, runs) {
  const known = runs.filter((run) => run.positions.length > 1);
  if (!known.length) return null;
  const traces = known.map((run) => ({
    type: "scatter", mode: "lines", name: plain(rowName(run, known)), x: run.positions.map(([position]) => position),
    y: run.positions.map(([, value]) => value),
    line: { color: DATA.looks[run.attention].colour, dash: DASHES[DATA.looks[run.attention].line], width: 1.5 },
    opacity: shade(run, known), hovertemplate: `${plain(methodName(run))}<br>token %{x}: %{y:.3f}<extra></extra>`,
  }));
  const made = layout(panel, "position in the answer (tokens)", "output error");
  made.yaxis.rangemode = "tozero";
  made.showlegend = known.length < 12;
  return [traces, made];
}

function shade(run, among) {
  const same = among.filter((other) => other.attention === run.attention);
  return same.length === 1 ? 1 : 0.35 + 0.65 * same.indexOf(run) / (same.length - 1);
}

function taskFigures(runs) {
  const tasks = new Map();
  for (const run of runs) {
    for (const [task, scores] of Object.entries(run.tasks)) {
      const title = run.panel.includes(task) ? run.panel : `${run.panel} ${task}`;
      tasks.set(title, [...(tasks.get(title) || []), [run, scores]]);
    }
  }
  return [...tasks].map(([title, rows]) => {
    const group = rows.map(([run]) => run);
    const trace = {
      type: "scatter", mode: "markers", x: rows.map(([, [score]]) => 100 * score), y: rows.map((_, number) => number),
      error_x: {
        type: "data", symmetric: false, thickness: 1.2, width: 0,
        array: rows.map(([, [score, , high]]) => high === null ? 0 : 100 * (high - score)),
        arrayminus: rows.map(([, [score, low]]) => low === null ? 0 : 100 * (score - low)),
      },
      marker: { size: 9, color: group.map((run) => DATA.looks[run.attention].colour), symbol: group.map((run) => DATA.looks[run.attention].marker) },
      text: group.map((run) => plain(methodName(run))), hovertemplate: "%{text}: %{x:.1f}<extra></extra>",
    };
    const made = layout(title, "score × 100", "");
    made.height = Math.max(220, 110 + 22 * rows.length);
    made.margin.l = Math.min(190, 0.36 * window.innerWidth);
    made.xaxis.range = [-4, 104];
    made.yaxis.autorange = "reversed";
    made.yaxis.tickvals = rows.map((_, number) => number);
    made.yaxis.ticktext = group.map((run) => plain(rowName(run, group)));
    return [[trace], made];
  });
}

const FIGURES = [
  ["Score against density", "Grey: the Pareto front. Choose a point to open its experiment.", (runs) => byPanel(runs).map(([panel, group]) => scoreFigure(panel, group, (run) => run.density, "density", true))],
  ["Score against cost", "Seconds per decoded token, question included.", (runs) => byPanel(runs).map(([panel, group]) => scoreFigure(panel, group, (run) => run.speed ? 1 / run.speed : null, "seconds per token", false))],
  ["Score against keys and values read", "Density × prompt × bytes of a token, per decoded token.", (runs) => byPanel(runs).map(([panel, group]) => scoreFigure(panel, group, (run) => run.bytes ? run.bytes / 1e6 : null, "MB per token", false))],
  ["Score per task", "", (runs) => taskFigures(runs)],
  ["Output error per layer", "", (runs) => byPanel(runs).map(([panel, group]) => layerFigure(panel, group, "error", "output error"))],
  ["Recall per layer", "", (runs) => byPanel(runs).map(([panel, group]) => layerFigure(panel, group, "recall", "recall"))],
  ["Output error in the answer", "Settings of one method from light to dark.", (runs) => byPanel(runs).map(([panel, group]) => positionFigure(panel, group))],
];

function showFigures(main, runs) {
  const Plotly = loadPlotly();
  main.replaceChildren();
  for (const [title, remark, make] of FIGURES) {
    const made = make(runs).filter((figure) => figure !== null);
    if (!made.length) continue;
    const grid = element("div", { class: "figures" });
    main.append(element("section", {}, element("h2", {}, title), remark ? element("p", { class: "muted" }, remark) : null, grid));
    for (const [traces, figureLayout] of made) {
      const holder = element("div", { class: "figure", role: "img", "aria-label": `${title}: ${figureLayout.title.text}` });
      grid.append(holder);
      Plotly.newPlot(holder, traces, figureLayout, { responsive: true, displaylogo: false, displayModeBar: false });
      holder.on("plotly_click", (event) => {
        const number = event.points[0].customdata;
        if (number !== undefined) location.hash = `#/run/${DATA.runs[number].fingerprint}`;
      });
    }
  }
  if (!main.children.length) main.append(element("p", {}, "No experiment is left; widen the filters."));
}
