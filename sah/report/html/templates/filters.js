"use strict";

// Each filter has a name, which is also its parameter in the address, and the value of a result.
let FILTERS = [];
const state = { chosen: new Map(), search: "", sort: null, descending: false };

// The address holds filters, search and order, so that a view can be linked to.
function readState(query) {
  const parameters = new URLSearchParams(query);
  state.chosen = new Map(FILTERS.map(([name]) => [name, new Set(parameters.getAll(name))]));
  state.search = parameters.get("search") || "";
  const sort = parameters.get("sort") || "";
  state.descending = sort.startsWith("-");
  state.sort = sort.replace(/^-/, "") || null;
}

function writeState() {
  const parameters = new URLSearchParams();
  for (const [name, values] of state.chosen) for (const value of values) parameters.append(name, value);
  if (state.search) parameters.set("search", state.search);
  if (state.sort) parameters.set("sort", (state.descending ? "-" : "") + state.sort);
  const query = parameters.toString();
  history.replaceState(null, "", `#/experiments${query ? `?${query}` : ""}`);
  showExperiments();
}

function visible() {
  const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
  const found = DATA.results.filter((result) => FILTERS.every(([name, of]) => !state.chosen.get(name).size || state.chosen.get(name).has(of(result)))
    && words.every((word) => searched(result).includes(word)));
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

function searched(result) {
  const settings = DATA.filters.map((one) => `${one.name}=${one.values[result.number]}`).join(" ");
  return `${result.model} ${result.benchmark} (${result.protocol}) ${methodName(result)} ${result.keys.join(" ")} ${settings} ${result.fingerprint}`.toLowerCase();
}

function sortBy(column) {
  // The first click on a numeric column puts the largest value first.
  state.descending = state.sort === column.key ? !state.descending : Boolean(column.value);
  state.sort = column.key;
  writeState();
  document.querySelector(`[data-sort="${column.key}"]`).focus();
}

function toggle(name, value) {
  const chosen = state.chosen.get(name);
  if (chosen.has(value)) chosen.delete(value); else chosen.add(value);
  writeState();
}

function makeFilters() {
  FILTERS = [
    ["model", (result) => result.model],
    ["method", (result) => result.attention],
    ["benchmark", (result) => result.benchmark],
    ["protocol", (result) => result.protocol],
    ...DATA.filters.map((one) => [one.name, (result) => one.values[result.number]]),
  ];
  const form = document.getElementById("filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const [name, of] of FILTERS) {
    const values = [...new Set(DATA.results.map(of))].filter((value) => value !== null).sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    if (values.length < 2 && values.length === new Set(DATA.results.map(of)).size) continue;
    form.append(element("fieldset", {}, element("legend", {}, name), values.map((value) => element("button", {
      type: "button", class: "chip", "aria-pressed": "false", "data-filter": name, "data-value": value, onclick: () => toggle(name, value),
    }, value))));
  }
  form.append(element("label", {}, "search ", element("input", { type: "search", id: "search", oninput: (event) => { state.search = event.target.value; writeState(); } })));
}

function showFilters() {
  for (const chip of document.querySelectorAll("[data-filter]")) {
    chip.setAttribute("aria-pressed", String(state.chosen.get(chip.dataset.filter).has(chip.dataset.value)));
  }
  const search = document.getElementById("search");
  if (search.value !== state.search) search.value = state.search;
}
