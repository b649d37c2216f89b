"use strict";

function showExperiments() {
  showFilters();
  showResults();
  fitTables();
  const left = visible().length;
  document.getElementById("count").textContent = left === DATA.results.length ? `${left} experiments` : `${left} of ${DATA.results.length} experiments`;
}

// Figures are SVG of this report's own drawing, whose texts are escaped.
async function showFigures() {
  await Promise.all([...document.querySelectorAll("[data-packed]")].map(async (holder) => {
    const name = holder.dataset.packed;
    holder.innerHTML = await unpack(name);
    holder.removeAttribute("data-packed");
  }));
}

// Views: #/, #/figures, #/figures/<name>, #/experiments?<filters>, #/experiment/<fingerprint>.
async function show() {
  const [address, query] = location.hash.split("?");
  const [, view, argument] = address.split("/");
  const name = ["figures", "experiments", "experiment"].includes(view) ? view : "summary";
  const figure = name === "figures" && argument ? document.getElementById(`figure-${argument}`) : null;
  const section = figure ? figure.closest("[data-section]").dataset.section : name;
  for (const one of document.querySelectorAll("[data-section]")) one.hidden = one.dataset.section !== section;
  for (const link of document.querySelectorAll("[data-view]")) {
    if (link.dataset.view === section) link.setAttribute("aria-current", "page"); else link.removeAttribute("aria-current");
  }
  document.getElementById("count").textContent = "";
  if (name === "experiments") {
    readState(query);
    showExperiments();
  }
  if (section === "figures") await showFigures();
  if (name === "experiment") await showExperiment(document.getElementById("experiment"), decodeURIComponent(argument || ""));
  fitTables();
  if (figure) figure.scrollIntoView();
  return figure;
}

window.addEventListener("hashchange", () => {
  show().then((figure) => { if (!figure) window.scrollTo(0, 0); });
});

// Read the data of the page, and make what depends on them.
function start() {
  readData();
  makeColumns();
  makeFilters();
  readState("");
  // Cells show their details on hover; as attributes they would double the page.
  for (const detail of document.querySelectorAll(".matrix .detail")) detail.parentElement.title = detail.textContent;
  document.querySelector(".skip").addEventListener("click", (event) => {
    // As a link it would replace the address of the view.
    event.preventDefault();
    document.getElementById("main").focus();
  });
  document.getElementById("details").addEventListener("change", (event) => {
    document.querySelector('[data-section="summary"]').classList.toggle("with-details", event.target.checked);
    fitTables();
  });
}

window.addEventListener("resize", fitTables);
start();
show();
