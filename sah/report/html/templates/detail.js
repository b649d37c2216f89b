"use strict";

function speed(result) {
  return `${fixed(result.speed, 1)}${result.speed !== null && result.disturbed ? "*" : ""}`;
}

function keyValues(title, values) {
  return element("details", {}, element("summary", {}, title), element("table", { class: "pairs" }, element("tbody", {},
    Object.entries(values).map(([key, value]) => element("tr", {}, element("th", { scope: "row" }, key), element("td", {}, typeof value === "number" && !Number.isInteger(value) ? fixed(value, 3) : value))))));
}

function answerOf([id, task, score, text, hash, finish, density]) {
  return { id, task, score, text, hash, finish, density };
}

// Sort order: lost, then gained, then other wrong answers.
function urgency(example, other) {
  if (example.score === null) return 3;
  if (other && example.score < other.score) return 0;
  if (other && example.score > other.score) return 1;
  return example.score < 1 ? 2 : 3;
}

const FLIPS = ["lost", "gained", "", ""];

function answer(title, example, nodes) {
  if (!example) return element("div", { class: "answer" }, element("h4", {}, title), element("p", { class: "muted" }, "no answer to the same input"));
  return element("div", { class: "answer" },
    element("h4", {}, title, " ", element("span", { class: "score" }, points(example.score))),
    element("pre", { tabindex: "0" }, example.text.trim() ? nodes || example.text : example.text ? "(white space)" : "(nothing)"),
    example.finish === "length" ? element("p", { class: "muted" }, "stopped at the token limit") : null);
}

function contextOf(context, references) {
  const found = withNeedle(context, references);
  const details = element("details", {}, element("summary", {}, `Context (${context.length.toLocaleString("en")} characters shown)`), element("pre", { tabindex: "0" }, found ? found.nodes : context));
  const jump = found && element("button", { type: "button", class: "chip jump", onclick: () => {
    details.open = true;
    found.mark.scrollIntoView({ block: "center" });
    found.mark.focus();
  } }, "Show the expected answer in the context");
  return [jump, details];
}

function exampleCard(example, other, asked, title, otherTitle) {
  const flip = FLIPS[urgency(example, other)];
  const [context, question, prefix, references] = asked || ["", null, "", []];
  const [own, theirs] = other && other.text !== example.text ? wordDiff(example.text, other.text) : [null, null];
  return element("article", { class: `example ${flip}` },
    element("h3", {}, example.id, flip ? element("span", { class: "badge" }, flip) : null),
    question === null ? element("p", { class: "muted" }, "the question is not stored with this result") : [
      element("p", { class: "question" }, question.trim(), prefix ? element("span", { class: "muted" }, prefix) : null),
      element("p", {}, element("strong", {}, "Expected: "), references.join(" · ") || "–")],
    element("div", { class: "answers" }, answer(title, example, own), otherTitle ? answer(otherTitle, other, theirs) : null),
    context ? contextOf(context, references) : null);
}

async function showExperiment(main, fingerprint) {
  const result = DATA.results.find((one) => one.fingerprint === fingerprint);
  if (!result) {
    main.replaceChildren(element("p", {}, "This page has no such experiment. ", element("a", { href: "#/experiments" }, "All experiments")));
    return;
  }
  const base = result.baseline === undefined ? null : DATA.results[result.baseline];
  const [details, examples, baseDetails] = await Promise.all([
    unpack(`result-${result.number}`), unpack(`examples-${result.examples}`), base ? unpack(`result-${base.number}`) : null]);
  const others = new Map(baseDetails ? baseDetails.answers.map(answerOf).map((one) => [`${one.id} ${one.hash}`, one]) : []);
  const answers = details.answers.map(answerOf).map((one) => [one, others.get(`${one.id} ${one.hash}`)]);
  answers.sort((a, b) => urgency(...a) - urgency(...b));
  const numbers = [
    ["score", points(result.score)], ["95 % interval", result.low === null ? "–" : `${points(result.low)}–${points(result.high)}`], ["n", result.n],
    ["density", fixed(result.density, 3)], ["rows read", fixed(result.rows, 3)], ["resident", fixed(result.resident, 3)], ["prefill density", fixed(result.prefill, 3)], ["output error", fixed(result.error, 3)], ["recall", fixed(result.recall, 3)],
    ["tokens per answer", compact(result.tokens)], ["keys read per answer", compact(result.keysRead)], ["tokens/s", speed(result)]];
  if (base) numbers.push(["against dense", signed(result.difference)], ["flips", `+${result.gained} −${result.lost}`]);
  const list = element("div", { class: "examples" });
  main.replaceChildren(...[
    element("p", {}, element("a", { href: "#/experiments" }, "← All experiments")),
    element("h2", {}, `${result.model} · ${methodName(result)} · ${result.benchmark}`),
    element("p", { class: "muted path" }, details.directory),
    details.command ? element("p", { class: "command" }, element("code", {}, details.command)) : null,
    element("dl", { class: "numbers" }, numbers.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)))),
    keyValues("Configuration", details.config), keyValues("Provenance", details.provenance), keyValues("Timing", details.timing), headMaps(result),
    element("h2", {}, "Examples ", element("span", { class: "muted" }, base ? "flips first; words that only one of both answers has are marked" : "wrong ones first")), list].filter(Boolean));
  list.append(...answers.map(([one, other]) => exampleCard(one, other, examples[one.id], methodName(result), base ? "dense" : null)));
}
