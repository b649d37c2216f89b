"use strict";

const WAIT_MILLISECONDS = 2000;
const version = () => document.documentElement.dataset.version;

// Text is set only where it changes, since a screen reader reads the counts aloud then.
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function showState(state) {
  const [counts, ...progress] = state.counts;
  const box = document.getElementById("problems");
  const isNew = state.version !== version() && !document.getElementById("follow").checked;
  setText(document.getElementById("counts"), counts);
  setText(document.getElementById("progress"), [...progress, ...(isNew ? ["there are new results"] : [])].join(" · "));
  box.querySelector("ul").replaceChildren(...state.problems.map((text) => element("li", {}, text)));
  box.hidden = !state.problems.length;
}

// What the address does not hold of the reader's view.
function viewOf() {
  const { id, dataset, selectionStart, selectionEnd } = document.activeElement;
  const focus = id ? `#${CSS.escape(id)}`
    : dataset.sort ? `[data-sort="${CSS.escape(dataset.sort)}"]`
      : dataset.filter ? `[data-filter="${CSS.escape(dataset.filter)}"][data-value="${CSS.escape(dataset.value)}"]` : null;
  return { focus, caret: [selectionStart, selectionEnd], top: window.scrollY, shows: document.getElementById("details").checked, open: disclosures().map((list) => list.map((one) => one.open)) };
}

// The parts that a reader can open, by section.
function disclosures() {
  return [...document.querySelectorAll("[data-section]")].map((section) => [...section.querySelectorAll("details")]);
}

function restore(view) {
  disclosures().forEach((list, section) => list.forEach((one, number) => { one.open = view.open[section][number] ?? false; }));
  const focused = view.focus && document.querySelector(view.focus);
  if (focused) {
    focused.focus({ preventScroll: true });
    if (focused.type === "search") focused.setSelectionRange(...view.caret);
  }
  window.scrollTo(0, view.top);
}

// Put the content of a newer page in place of this one's. Parsed scripts do not run again.
async function exchange() {
  const response = await ask("./");
  if (!response) return;
  const newer = new DOMParser().parseFromString(await response.text(), "text/html");
  if (!newer.getElementById("data") || !document.getElementById("data")) {
    location.reload();
    return;
  }
  const view = viewOf();
  for (const name of ["live", "experiment"]) newer.getElementById(name).replaceWith(document.getElementById(name));
  document.documentElement.dataset.version = newer.documentElement.dataset.version;
  document.title = newer.title;
  document.body.replaceChildren(...newer.body.childNodes);
  start();
  if (view.shows) document.getElementById("details").click();
  await show();
  restore(view);
}

// Ask the server; null without an answer.
async function ask(path) {
  try {
    const response = await fetch(path);
    return response.ok ? response : null;
  } catch {
    return null;
  }
}

async function follow() {
  if (!document.hidden) {
    const response = await ask("state.json");
    if (response) {
      const state = await response.json();
      showState(state);
      if (state.version !== version() && document.getElementById("follow").checked) await exchange();
    } else setText(document.getElementById("counts"), "The server of this page has ended; sah view starts it again.");
  }
  setTimeout(follow, WAIT_MILLISECONDS);
}
follow();
