"use strict";

let COLUMNS = [];

function makeColumns() {
  COLUMNS = [
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
    ...(DATA.results.some((result) => Math.abs((result.rows ?? 0) - (result.density ?? 0)) >= 0.0005) ? [{ key: "rows", header: "rows read", value: (result) => result.rows, text: (result) => fixed(result.rows, 3) }] : []),
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
}

function verdict(result) {
  if (result.verdict === undefined) return "–";
  return quality(result) + (result.longer ? " †" : "");
}

function quality(result) {
  if (result.verdict === "alarm") return "ALARM: better";
  if (result.uninformative && !(result.p !== null && result.p < 0.05)) return `dense at ${result.uninformative}`;
  return { within: "yes", worse: "no: worse", better: "no: better", undecided: "undecided" }[result.verdict];
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
  const text = breakable(column.text(result));
  const content = column.link ? element("a", { href: `#/experiment/${result.fingerprint}` }, text) : text;
  const kind = column.value ? "number" : column.key.startsWith("key-") ? "text setting" : "text";
  return element("td", { class: kind, "data-label": column.header }, content, column.bar ? bar(result) : null);
}

// A long name may be broken after these characters.
function breakable(text) {
  return text.split(/(?<=[_+=])/).flatMap((part, number) => number ? [element("wbr"), part] : [part]);
}

function rowClass(result) {
  if (result.verdict === "alarm") return "alarm";
  return result.uninformative && !(result.p !== null && result.p < 0.05) ? "grey" : "";
}

// A spreadsheet would run a text that begins like a formula.
function csvField(value) {
  const text = value === null || value === undefined ? "" : String(value);
  const safe = typeof value === "number" || !/^[=+\-@\t\r]/.test(text) ? text : `'${text}`;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function csvText(results) {
  const names = ["model", "benchmark", "protocol", "attention", ...DATA.filters.map((one) => one.name), "fingerprint"];
  const numbers = ["score", "low", "high", "difference", "p", "verdict", "density", "rows", "resident", "prefill", "error", "recall", "tokens", "keysRead", "speed", "memory", "n"];
  const lines = results.map((result) => [
    result.model, result.benchmark, result.protocol, result.attention, ...DATA.filters.map((one) => one.values[result.number]), result.fingerprint, ...numbers.map((name) => result[name])]);
  return [[...names, ...numbers], ...lines].map((line) => line.map(csvField).join(",")).join("\r\n") + "\r\n";
}

function saveCsv() {
  const address = URL.createObjectURL(new Blob([csvText(visible())], { type: "text/csv" }));
  element("a", { href: address, download: "experiments.csv" }).click();
  URL.revokeObjectURL(address);
}

function showResults() {
  const results = visible();
  const constant = new Set(DATA.results.length > 1 ? COLUMNS.filter((column) => ["model", "benchmark"].includes(column.key) && new Set(DATA.results.map(column.text)).size === 1).map((column) => column.key) : []);
  const shown = COLUMNS.filter((column) => !constant.has(column.key));
  const caption = COLUMNS.filter((column) => constant.has(column.key)).map((column) => column.text(DATA.results[0])).join(" · ");
  const heads = shown.map((column) => element("th", { scope: "col", class: column.value ? "number" : "", "aria-sort": state.sort === column.key ? (state.descending ? "descending" : "ascending") : "none" },
    element("button", { type: "button", "data-sort": column.key, onclick: () => sortBy(column) }, breakable(column.header))));
  const table = element("table", { id: "results" }, element("thead", {}, element("tr", {}, heads)),
    element("tbody", {}, results.map((result) => element("tr", { class: rowClass(result) }, shown.map((column) => cell(result, column))))));
  document.getElementById("table").replaceChildren(
    caption ? element("p", { class: "muted" }, caption) : "",
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Results" }, table),
    element("p", {}, element("button", { type: "button", class: "chip", id: "csv", onclick: saveCsv }, "Save these experiments as CSV")),
    results.length ? "" : element("p", {}, "No experiment matches the filters."),
    element("p", { class: "muted" }, "Scores × 100 with 95 % intervals, clustered by context. “vs dense” pairs identical inputs. Red: significantly better than dense, which is usually a bug. Grey: dense itself is at floor or ceiling. Rows read: key-value rows that any query head of a group selects. Resident: bytes held of the context, as a share of the dense cache. Tokens: mean length of an answer. Keys read: by all queries of an answer, in a layer and head. †: answers at least 1.25 times as long as dense (p < .05), so that density understates what they read. *: speed of an interrupted run or on a crowded machine. –: not measured."));
}
