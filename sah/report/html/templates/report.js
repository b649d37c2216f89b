"use strict";

const COLUMNS = [
  { key: "model", header: "model", text: (run) => run.model },
  { key: "benchmark", header: "benchmark", text: (run) => run.benchmark },
  ...(new Set(DATA.runs.map((run) => run.protocol)).size > 1 ? [{ key: "protocol", header: "protocol", text: (run) => run.protocol }] : []),
  ...DATA.keys.map((header, number) => ({ key: `key-${number}`, header, text: (run) => run.keys[number] })),
  { key: "method", header: "method", text: methodName, link: true },
  { key: "score", header: "score", value: (run) => run.score, text: (run) => points(run.score) },
  { key: "interval", header: "95 % interval", value: (run) => run.low, text: (run) => run.low === null ? "–" : `${points(run.low)}–${points(run.high)}`, bar: true },
  { key: "difference", header: "vs dense", value: (run) => run.difference, text: (run) => run.difference === undefined ? "–" : signed(run.difference) },
  { key: "verdict", header: "within 1 point", text: verdict },
  { key: "density", header: "density", value: (run) => run.density, text: (run) => fixed(run.density, 3) },
  { key: "error", header: "output error", value: (run) => run.error, text: (run) => fixed(run.error, 3) },
  { key: "recall", header: "recall", value: (run) => run.recall, text: (run) => fixed(run.recall, 3) },
  { key: "speed", header: "tokens/s", value: (run) => run.speed, text: (run) => fixed(run.speed, 1) },
  { key: "memory", header: "GB", value: (run) => run.memory, text: (run) => fixed(run.memory === null ? null : run.memory / 1e9, 1) },
  { key: "n", header: "n", value: (run) => run.n, text: (run) => String(run.n) },
];

const FILTERS = [["model", (run) => run.model], ["method", (run) => run.attention], ["benchmark", (run) => run.benchmark]];
const state = { chosen: { model: new Set(), method: new Set(), benchmark: new Set() }, search: "", sort: null, descending: false };

function verdict(run) {
  if (run.verdict === undefined) return "";
  if (run.verdict === "alarm") return "ALARM: better";
  if (run.uninformative && !(run.p !== null && run.p < 0.05)) return `dense at ${run.uninformative}`;
  return { within: "yes", worse: "no: worse", better: "no: better", undecided: "too few" }[run.verdict];
}

function visible() {
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = DATA.runs.filter((run) => FILTERS.every(([name, of]) => !state.chosen[name].size || state.chosen[name].has(of(run)))
    && words.every((word) => `${run.model} ${run.benchmark} ${methodName(run)} ${run.keys.join(" ")} ${run.fingerprint}`.toLowerCase().includes(word)));
  const column = COLUMNS.find((one) => one.key === state.sort);
  if (!column) return found;
  const order = state.descending ? -1 : 1;
  return found.sort((a, b) => {
    if (!column.value) return order * column.text(a).localeCompare(column.text(b), undefined, { numeric: true });
    const [first, second] = [column.value(a), column.value(b)];
    // What was not measured comes last, either way.
    if (first === null || first === undefined) return second === null || second === undefined ? 0 : 1;
    if (second === null || second === undefined) return -1;
    return order * (first - second);
  });
}

function bar(run) {
  const track = element("span", { class: "bar", "aria-hidden": "true" });
  if (run.score !== null && run.low !== null) {
    const range = element("span", { class: "range" });
    range.style.left = `${100 * run.low}%`;
    range.style.width = `${100 * (run.high - run.low)}%`;
    const mark = element("span", { class: "mark" });
    mark.style.left = `${100 * run.score}%`;
    track.append(range, mark);
  }
  return track;
}

function cell(run, column) {
  const text = column.text(run);
  const content = column.link ? element("a", { href: `#/run/${run.fingerprint}` }, text) : text;
  return element("td", { class: column.value ? "number" : "" }, content, column.bar ? bar(run) : null);
}

function rowClass(run) {
  if (run.verdict === "alarm") return "alarm";
  return run.uninformative && !(run.p !== null && run.p < 0.05) ? "grey" : "";
}

function showResults(main) {
  const runs = visible();
  const constant = new Set(DATA.runs.length > 1 ? COLUMNS.filter((column) => ["model", "benchmark"].includes(column.key) && new Set(DATA.runs.map(column.text)).size === 1).map((column) => column.key) : []);
  const shown = COLUMNS.filter((column) => !constant.has(column.key));
  const said = COLUMNS.filter((column) => constant.has(column.key)).map((column) => column.text(DATA.runs[0])).join(" · ");
  const heads = shown.map((column) => element("th", { scope: "col", class: column.value ? "number" : "", "aria-sort": state.sort === column.key ? (state.descending ? "descending" : "ascending") : "none" },
    element("button", { type: "button", "data-sort": column.key, onclick: () => sortBy(column) }, column.header)));
  const table = element("table", { id: "results" }, element("thead", {}, element("tr", {}, heads)),
    element("tbody", {}, runs.map((run) => element("tr", { class: rowClass(run) }, shown.map((column) => cell(run, column))))));
  main.replaceChildren(
    said ? element("p", { class: "muted" }, said) : "",
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Results" }, table),
    runs.length ? "" : element("p", {}, "No experiment is left; widen the filters."),
    element("p", { class: "muted" }, "Scores × 100 with 95 % intervals, clustered by context. “vs dense” pairs identical inputs; red is significantly better than dense, which is usually a bug; grey is a benchmark on which dense itself is at floor or ceiling. –: not measured."));
}

function sortBy(column) {
  // The first click on a number shows the largest.
  state.descending = state.sort === column.key ? !state.descending : Boolean(column.value);
  state.sort = column.key;
  show();
  document.querySelector(`[data-sort="${column.key}"]`).focus();
}

function makeFilters() {
  const form = document.getElementById("filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const [name, of] of FILTERS) {
    const values = [...new Set(DATA.runs.map(of))].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    if (values.length < 2) continue;
    form.append(element("fieldset", {}, element("legend", {}, name), values.map((value) => element("button", {
      type: "button", class: "chip", "aria-pressed": "false", "data-filter": name, "data-value": value,
      onclick: (event) => {
        const chosen = state.chosen[name];
        if (chosen.has(value)) chosen.delete(value); else chosen.add(value);
        event.currentTarget.setAttribute("aria-pressed", String(chosen.has(value)));
        show();
      },
    }, value))));
  }
  form.append(element("label", {}, "search ", element("input", { type: "search", id: "search", oninput: (event) => { state.search = event.target.value; show(); } })));
}

function show() {
  const main = document.getElementById("main");
  const [, view, argument] = location.hash.split("/");
  const name = view === "figures" ? "figures" : view === "run" ? "run" : "results";
  document.getElementById("filters").hidden = name === "run";
  const left = visible().length;
  document.getElementById("count").textContent = left === DATA.runs.length ? `${left} experiments` : `${left} of ${DATA.runs.length} experiments`;
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  if (name === "figures") showFigures(main, visible());
  else if (name === "run") return showRun(main, decodeURIComponent(argument || ""));
  else showResults(main);
  return Promise.resolve();
}

window.addEventListener("hashchange", () => show().then(() => {
  if (location.hash !== "#main") window.scrollTo(0, 0);
}));
makeFilters();
show();
