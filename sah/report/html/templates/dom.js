"use strict";

// Text enters the page through text nodes only, so that a model's answer is never markup.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  for (const child of children.flat()) {
    if (child !== null && child !== undefined) made.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return made;
}

const fixed = (value, digits) => value === null || value === undefined ? "–" : value.toFixed(digits);
const compact = (value) => value === null || value === undefined ? "–"
  : new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(value).replace("K", "k");
const points = (value) => fixed(value === null || value === undefined ? null : 100 * value, 1);
const signed = (value) => value === null || value === undefined ? "–"
  : (value < 0 ? "−" : value > 0 ? "+" : "") + Math.abs(100 * value).toFixed(1);

// Details are base64 of gzip and unpacked when they are needed.
const unpacked = new Map();
async function unpack(name) {
  if (!unpacked.has(name)) {
    const holder = document.getElementById(name);
    const bytes = Uint8Array.from(atob(holder.textContent), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    unpacked.set(name, await new Response(stream).json());
  }
  return unpacked.get(name);
}

let DATA = null;
function readData() {
  DATA = JSON.parse(document.getElementById("data").textContent);
  DATA.results.forEach((result, number) => { result.number = number; });
  unpacked.clear();
}

const methodName = (result) => `${result.attention} ${result.settings}`.trim();

// Show tables that are wider than the window as cards.
function fitTables() {
  for (const table of document.querySelectorAll("#results, #groups table, .matrix")) {
    table.classList.remove("cards");
    const frame = table.parentElement;
    table.classList.toggle("cards", frame.scrollWidth > frame.clientWidth);
  }
}
