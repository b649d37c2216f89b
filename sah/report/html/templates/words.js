"use strict";

// Longest common subsequence of two lists of words; answers are cut to 1,000 characters before.
function commonWords(first, second) {
  const lengths = Array.from({ length: first.length + 1 }, () => new Uint16Array(second.length + 1));
  for (let i = first.length - 1; i >= 0; i -= 1) {
    for (let j = second.length - 1; j >= 0; j -= 1) {
      lengths[i][j] = first[i] === second[j] ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
    }
  }
  const common = [new Set(), new Set()];
  for (let i = 0, j = 0; i < first.length && j < second.length;) {
    if (first[i] === second[j]) {
      common[0].add(i);
      common[1].add(j);
      i += 1;
      j += 1;
    } else if (lengths[i + 1][j] >= lengths[i][j + 1]) i += 1;
    else j += 1;
  }
  return common;
}

// Return both texts as nodes in which the words that only one of them has are marked.
function wordDiff(text, other) {
  const pieces = [text, other].map((one) => one.split(/(\s+)/));
  const words = pieces.map((list) => list.filter((_, n) => n % 2 === 0));
  const common = commonWords(...words);
  return pieces.map((list, side) => list.map((piece, n) => n % 2 || !piece || common[side].has(n / 2) ? piece : element("mark", {}, piece)));
}

// Return a context as nodes with the first mention of an expected answer marked; null without one.
function withNeedle(context, references) {
  const needle = references.find((one) => one && context.includes(one));
  if (!needle) return null;
  const start = context.indexOf(needle);
  const mark = element("mark", { tabindex: "-1" }, needle);
  return { mark, nodes: [context.slice(0, start), mark, context.slice(start + needle.length)] };
}
