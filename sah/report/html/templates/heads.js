"use strict";

// The colours of matplotlib's cividis at every tenth, from low to high.
const CIVIDIS = ["00224e", "083370", "35456c", "4f576c", "666970", "7d7c78", "948e77", "aea371", "c8b866", "e5cf52", "fee838"]
  .map((hex) => [0, 2, 4].map((start) => parseInt(hex.slice(start, start + 2), 16)));

// Return the colour of a share in [0, 1], and whether black is legible on it rather than white.
function shade(share) {
  const place = Math.min(Math.max(share, 0), 1) * (CIVIDIS.length - 1);
  const below = Math.min(Math.floor(place), CIVIDIS.length - 2);
  const colour = CIVIDIS[below].map((value, n) => Math.round(value + (place - below) * (CIVIDIS[below + 1][n] - value)));
  const [red, green, blue] = colour.map((value) => ((value / 255 + 0.055) / 1.055) ** 2.4);
  return { colour: `rgb(${colour})`, isLight: 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 };
}

function heatCell({ name, head, digits, low, high }, value, layer, number) {
  const { colour, isLight } = shade(high > low ? (value - low) / (high - low) : 0);
  const kind = value === null ? "unknown" : isLight ? "light" : "";
  const text = value === null ? "not recorded" : value.toFixed(digits);
  const cell = element("td", { class: kind, title: `layer ${layer}, ${head} ${number}: ${name} ${text}` }, element("span", { class: "detail" }, value === null ? "–" : text));
  if (value !== null) cell.style.backgroundColor = colour;
  return cell;
}

function heatMap(map) {
  const { name, head, digits, low, high, values } = map;
  const heads = Math.max(...values.map((row) => row.length));
  const step = heads <= 12 ? 1 : heads <= 40 ? 4 : 8;
  const tick = (number) => element("th", { scope: "col" }, element("span", { class: number % step ? "detail" : "tick" }, number));
  const table = element("table", { class: "heat" },
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "layer"), Array.from({ length: heads }, (_, number) => tick(number)))),
    element("tbody", {}, values.map((row, layer) => element("tr", {}, element("th", { scope: "row" }, layer), row.map((value, number) => heatCell(map, value, layer, number))))));
  table.style.setProperty("--heads", heads);
  const title = `${name[0].toUpperCase()}${name.slice(1)} by layer and ${head}`;
  return element("article", {}, element("h3", {}, title),
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, table),
    element("p", { class: "muted scale" }, fixed(low, digits), element("span", { class: "ramp", "aria-hidden": "true" }), fixed(high, digits)));
}

// Return the folded maps of an experiment by layer and head; null if none were recorded.
function headMaps(result) {
  const blob = `heads-${result.number}`;
  if (!document.getElementById(blob)) return null;
  const holder = element("div");
  const fill = async () => {
    if (holder.childNodes.length) return;
    const maps = await unpack(blob);
    if (!maps.length) {
      holder.append(element("p", {}, "The values of this experiment's heads were recorded, but left out to keep the page small. A page of fewer experiments shows them: sah report --where."));
      return;
    }
    const numbers = element("input", { type: "checkbox", onchange: () => holder.classList.toggle("with-numbers", numbers.checked) });
    holder.replaceChildren(
      element("p", { class: "muted" }, "Means over the recorded queries. Rows: layers. Columns: query heads, or key-value heads for rows read. Hatched: nothing recorded, as in a layer that stays dense. ", element("label", {}, numbers, " Show the numbers")),
      element("div", { class: "figures" }, maps.map(heatMap)));
  };
  return element("details", { class: "heads", ontoggle: fill }, element("summary", {}, "Layers and heads"), holder);
}
