"use strict";

const COLUMNS = [
  { key: "model", header: "model", text: (result) => result.model },
  { key: "benchmark", header: "benchmark", text: (result) => result.benchmark },
  ...(new Set(DATA.results.map((result) => result.protocol)).size > 1 ? [{ key: "protocol", header: "protocol", text: (result) => result.protocol }] : []),
  ...DATA.keys.map((header, number) => ({ key: `key-${number}`, header, text: (result) => result.keys[number] })),
  { key: "method", header: "method", text: methodName, link: true },
  { key: "score", header: "score", value: (result) => result.score, text: (result) => points(result.score) },
  { key: "interval", header: "95 % interval", value: (result) => result.low, text: (result) => result.low === null ? "–" : `${points(result.low)}–${points(result.high)}`, bar: true },
  { key: "difference", header: "vs dense", value: (result) => result.difference, text: (result) => result.difference === undefined ? "–" : signed(result.difference) },
  { key: "verdict", header: "within 1 point", text: verdict },
  { key: "density", header: "density", value: (result) => result.density, text: (result) => fixed(result.density, 3) },
  { key: "rows", header: "rows read", value: (result) => result.rows, text: (result) => fixed(result.rows, 3) },
  ...(DATA.results.some((result) => Math.abs((result.resident ?? 1) - 1) >= 0.0005) ? [{ key: "resident", header: "resident", value: (result) => result.resident, text: (result) => fixed(result.resident, 3) }] : []),
  ...(DATA.results.some((result) => Math.abs((result.prefill ?? 1) - 1) >= 0.0005) ? [{ key: "prefill", header: "prefill", value: (result) => result.prefill, text: (result) => fixed(result.prefill, 3) }] : []),
  { key: "error", header: "output error", value: (result) => result.error, text: (result) => fixed(result.error, 3) },
  { key: "recall", header: "recall", value: (result) => result.recall, text: (result) => fixed(result.recall, 3) },
  { key: "tokens", header: "tokens", value: (result) => result.tokens, text: (result) => compact(result.tokens) },
  { key: "keys-read", header: "keys read", value: (result) => result.keysRead, text: (result) => compact(result.keysRead) },
  { key: "speed", header: "tokens/s", value: (result) => result.speed, text: speed },
  { key: "memory", header: "GB", value: (result) => result.memory, text: (result) => fixed(result.memory === null ? null : result.memory / 1e9, 1) },
  { key: "n", header: "n", value: (result) => result.n, text: (result) => String(result.n) },
];

const FILTERS = [["model", (result) => result.model], ["method", (result) => result.attention], ["benchmark", (result) => result.benchmark]];
const state = { chosen: { model: new Set(), method: new Set(), benchmark: new Set() }, search: "", sort: null, descending: false };

function verdict(result) {
  if (result.verdict === undefined) return "";
  return quality(result) + (result.longer ? " †" : "");
}

function quality(result) {
  if (result.verdict === "alarm") return "ALARM: better";
  if (result.uninformative && !(result.p !== null && result.p < 0.05)) return `dense at ${result.uninformative}`;
  return { within: "yes", worse: "no: worse", better: "no: better", undecided: "undecided" }[result.verdict];
}

function visible() {
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = DATA.results.filter((result) => FILTERS.every(([name, of]) => !state.chosen[name].size || state.chosen[name].has(of(result)))
    && words.every((word) => `${result.model} ${result.benchmark} ${methodName(result)} ${result.keys.join(" ")} ${result.fingerprint}`.toLowerCase().includes(word)));
  const column = COLUMNS.find((one) => one.key === state.sort);
  if (!column) return found;
  const order = state.descending ? -1 : 1;
  return found.sort((a, b) => {
    if (!column.value) return order * column.text(a).localeCompare(column.text(b), undefined, { numeric: true });
    const [first, second] = [column.value(a), column.value(b)];
    // Missing values come last in both directions.
    if (first === null || first === undefined) return second === null || second === undefined ? 0 : 1;
    if (second === null || second === undefined) return -1;
    return order * (first - second);
  });
}

function bar(result) {
  const track = element("span", { class: "bar", "aria-hidden": "true" });
  if (result.score !== null && result.low !== null) {
    const range = element("span", { class: "range" });
    range.style.left = `${100 * result.low}%`;
    range.style.width = `${100 * (result.high - result.low)}%`;
    const mark = element("span", { class: "mark" });
    mark.style.left = `${100 * result.score}%`;
    track.append(range, mark);
  }
  return track;
}

function cell(result, column) {
  const text = column.text(result);
  const content = column.link ? element("a", { href: `#/experiment/${result.fingerprint}` }, text) : text;
  return element("td", { class: column.value ? "number" : "" }, content, column.bar ? bar(result) : null);
}

function rowClass(result) {
  if (result.verdict === "alarm") return "alarm";
  return result.uninformative && !(result.p !== null && result.p < 0.05) ? "grey" : "";
}

function showResults(main) {
  const results = visible();
  const constant = new Set(DATA.results.length > 1 ? COLUMNS.filter((column) => ["model", "benchmark"].includes(column.key) && new Set(DATA.results.map(column.text)).size === 1).map((column) => column.key) : []);
  const shown = COLUMNS.filter((column) => !constant.has(column.key));
  const caption = COLUMNS.filter((column) => constant.has(column.key)).map((column) => column.text(DATA.results[0])).join(" · ");
  const heads = shown.map((column) => element("th", { scope: "col", class: column.value ? "number" : "", "aria-sort": state.sort === column.key ? (state.descending ? "descending" : "ascending") : "none" },
    element("button", { type: "button", "data-sort": column.key, onclick: () => sortBy(column) }, column.header)));
  const table = element("table", { id: "results" }, element("thead", {}, element("tr", {}, heads)),
    element("tbody", {}, results.map((result) => element("tr", { class: rowClass(result) }, shown.map((column) => cell(result, column))))));
  main.replaceChildren(
    caption ? element("p", { class: "muted" }, caption) : "",
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Results" }, table),
    results.length ? "" : element("p", {}, "No experiment matches the filters."),
    element("p", { class: "muted" }, "Scores × 100 with 95 % intervals, clustered by context. “vs dense” pairs identical inputs. Red: significantly better than dense, which is usually a bug. Grey: dense itself is at floor or ceiling. Rows read: key-value rows that any query head of a group selects. Resident: bytes held of the context, as a share of the dense cache. Prefill: share of the visible keys that the queries of the context read. Tokens: mean length of an answer. Keys read: by all queries of an answer, in a layer and head. †: answers at least 1.25 times as long as dense (p < .05), so that density understates what they read. *: speed of an interrupted run or on a crowded machine. –: not measured."));
}

function sortBy(column) {
  // The first click on a numeric column puts the largest value first.
  state.descending = state.sort === column.key ? !state.descending : Boolean(column.value);
  state.sort = column.key;
  show();
  document.querySelector(`[data-sort="${column.key}"]`).focus();
}

function makeFilters() {
  const form = document.getElementById("filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const [name, of] of FILTERS) {
    const values = [...new Set(DATA.results.map(of))].sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
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
  const name = ["figures", "experiment"].includes(view) ? view : "results";
  document.getElementById("filters").hidden = name !== "results";
  // Only a page made with --by has groups.
  const groups = document.getElementById("groups");
  if (groups) groups.hidden = name !== "results";
  document.getElementById("figures").hidden = name !== "figures";
  main.hidden = name === "figures";
  const left = visible().length;
  document.getElementById("count").textContent = name !== "results" || left === DATA.results.length ? `${DATA.results.length} experiments` : `${left} of ${DATA.results.length} experiments`;
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  if (name === "experiment") return showExperiment(main, decodeURIComponent(argument || ""));
  if (name === "results") showResults(main);
  return Promise.resolve();
}

window.addEventListener("hashchange", () => show().then(() => {
  if (location.hash !== "#main") window.scrollTo(0, 0);
}));
makeFilters();
show();
