"use strict";

function keyValues(title, values) {
  return element("details", {}, element("summary", {}, title), element("table", { class: "pairs" }, element("tbody", {},
    Object.entries(values).map(([key, value]) => element("tr", {}, element("th", { scope: "row" }, key), element("td", {}, typeof value === "number" ? fixed(value, 3) : value))))));
}

function exampleOf([id, task, score, text, hash, finish, density]) {
  return { id, task, score, text, hash, finish, density };
}

// Lost first, then gained, then what is wrong anyway.
function urgency(example, other) {
  if (example.score === null) return 3;
  if (other && example.score < other.score) return 0;
  if (other && example.score > other.score) return 1;
  return example.score < 1 ? 2 : 3;
}

const FLIPS = ["lost", "gained", "", ""];

function answer(title, example) {
  if (!example) return element("div", { class: "answer" }, element("h4", {}, title), element("p", { class: "muted" }, "not answered on the same input"));
  return element("div", { class: "answer" },
    element("h4", {}, title, " ", element("span", { class: "score" }, points(example.score))),
    element("pre", {}, example.text || "(nothing)"),
    example.finish === "length" ? element("p", { class: "muted" }, "ended by the token limit") : null);
}

function exampleCard(example, other, asked, title, otherTitle) {
  const flip = FLIPS[urgency(example, other)];
  const [context, question, prefix, references] = asked || ["", null, "", []];
  return element("article", { class: `example ${flip}` },
    element("h3", {}, example.id, flip ? element("span", { class: "badge" }, flip) : null),
    question === null ? element("p", { class: "muted" }, "what was asked is not stored with this run") : [
      element("p", { class: "question" }, question.trim(), prefix ? element("span", { class: "muted" }, prefix) : null),
      element("p", {}, element("strong", {}, "Expected: "), references.join(" · ") || "–")],
    element("div", { class: "answers" }, answer(title, example), otherTitle ? answer(otherTitle, other) : null),
    context ? element("details", {}, element("summary", {}, `Context (${context.length.toLocaleString("en")} characters shown)`), element("pre", {}, context)) : null);
}

async function showRun(main, fingerprint) {
  const run = DATA.runs.find((one) => one.fingerprint === fingerprint);
  if (!run) {
    main.replaceChildren(element("p", {}, "There is no such experiment. ", element("a", { href: "#/" }, "All experiments")));
    return;
  }
  const base = run.baseline === undefined ? null : DATA.runs[run.baseline];
  const [details, asked, baseDetails] = await Promise.all([
    unpack(`run-${run.number}`), unpack(`asked-${run.asked}`), base ? unpack(`run-${base.number}`) : null]);
  const others = new Map(baseDetails ? baseDetails.examples.map(exampleOf).map((one) => [`${one.id} ${one.hash}`, one]) : []);
  const examples = details.examples.map(exampleOf).map((one) => [one, others.get(`${one.id} ${one.hash}`)]);
  examples.sort((a, b) => urgency(...a) - urgency(...b));
  const numbers = [
    ["score", points(run.score)], ["95 % interval", run.low === null ? "–" : `${points(run.low)}–${points(run.high)}`], ["n", run.n],
    ["density", fixed(run.density, 3)], ["output error", fixed(run.error, 3)], ["recall", fixed(run.recall, 3)],
    ["tokens/s", fixed(run.speed, 1)]];
  if (base) numbers.push(["against dense", signed(run.difference)], ["flips", `+${run.gained} −${run.lost}`]);
  const list = element("div", { class: "examples" });
  main.replaceChildren(
    element("p", {}, element("a", { href: "#/" }, "← All experiments")),
    element("h2", {}, `${run.model} · ${methodName(run)} · ${run.benchmark}`),
    element("p", { class: "muted path" }, details.directory),
    element("dl", { class: "numbers" }, numbers.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)))),
    keyValues("Configuration", details.config), keyValues("Provenance", details.provenance), keyValues("Timing", details.timing),
    element("h2", {}, "Examples ", element("span", { class: "muted" }, base ? "flips first" : "wrong ones first")), list);
  list.append(...examples.map(([one, other]) => exampleCard(one, other, asked[one.id], methodName(run), base ? "dense" : null)));
}
