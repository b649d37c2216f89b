"""The contract of every scorer: any text of a model has a score in [0, 1], in linear time."""

import os
import random
import time

import pytest

from sah.benchmarks import scorers

SEED = int(os.environ.get("SAH_FUZZ_SEED", "0"))
FUZZED = int(os.environ.get("SAH_FUZZ_TEXTS", "300"))

EXTRAS = {
    "all_classes": ["cat", "grey cat"],
    "options": ["a", "b", "c", "d"],
    "several": True,
    "prefix": "",
}
# References of scorers that do not take any text.
REFERENCES = {
    "paragraph_retrieval": "Paragraph 3",
    **dict.fromkeys(("choice_kvpress", "choice_openbmb"), "B"),
    **dict.fromkeys(("code_debug_kvpress", "code_debug_openbmb"), "B"),
    **dict.fromkeys(("cloze_exact", "cloze_partial"), '{"<mask-0>": "the cat", "<mask-1>": "b"}'),
    "exponential_similarity": "40%",
    "concordance_index": "2, 1",
    **dict.fromkeys(("first_number", "last_integer", "leading_integers"), "3"),
    "node_set_f1": "Final Answer: [the, cat]",
    **dict.fromkeys(("competition_integer", "final_number"), "3"),
    "math_equivalence": r"\frac{x}{2}, (3, 4)",
}

# Each is repeated: what is quadratic, or recurses, fails.
PIECES = {
    "digits": "7",
    "zeros": "0",
    "Unicode digits": "٣𝟗²",
    "percentages without a sign": "7.7",
    "thousands": "1,234,",
    "numbers": "1,",
    "words": "cat ",
    "sentences": "The cat. ",
    "one long word": "x",
    "the word that Porter recurses on": "y",
    "spaces": " ",
    "white space": " \t\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u2029\u3000",
    "lines": "\n",
    "control characters": "\x00\x01\x1b[31m\x7f\x9b",
    "half of a surrogate pair": "\ud83d",
    "the other half": "\udc00",
    "combining marks": "\u0301\u0327",
    "Chinese": "猫在",
    "unknown Chinese": "龘龖",
    "Chinese sentences": "一只灰猫。",
    "open braces": "{",
    "closed braces": "}",
    "pairs of braces": "{}",
    "open brackets": "[",
    "a list in a list": "['a', [",
    "mappings": "{'<mask-0>': 'Bob'}, ",
    "quotes": "'",
    "backslashes": "\\",
    "strings": "'a' ",
    "minus": "-",
    "operators": "not 1+~-",
    "calls": "f(",
    "subscripts": "[0]",
    "letters": "A ",
    "letters on lines": "B\n",
    "boxes": r"\boxed{",
    "closed boxes": r"\boxed{3} ",
    "prefixes": "answer is: ",
    "final answers": "Final Answer: [",
    "final answers without a list": "Final Answer: ",
    "answers and marks": r"Answer: $\text{(",
    "powers": "9^",
    "fractions": r"\frac{1",
    "roots": r"\sqrt",
    "formulas": r"$x$ ",
    "units": "inches ",
    "exponents": "1e999 ",
    "underscores": "1_000_",
    "infinities": "nan inf -Infinity ",
}
ENDS = ("1x", "%]}")
TEXTS = {
    "nothing": "",
    "a cloze in braces": "{{'<mask-0>': 'Bob'}}",
    "sets of sets": "[{'a'}, {{'b'}}]",
    "a mapping with an unhashable key": "{{}: 1, []: 2}",
    "an integer too long to print": f"[0x{'f' * 4000}]",
    "a number too long to parse": f"{{'<mask-0>': {'9' * 4301}}}",
    "a list of a long number": f"[{'9' * 5000}]",
    "a float out of range": "[1e999, -1e999, 1e-999]",
    "an invalid escape": r"['\d', '\xff', '\N{cat}', '\ud83d']",
    "a byte string": "[b'\\xff', f'{x}']",
    "Python": "{__import__('os').abort(): 1}",
    "2,000 nested brackets": "[" * 2000 + "]" * 2000,
    "100,000 nested brackets": "[" * 100_000 + "]" * 100_000,
    "100,000 nested braces": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "100,000 nested parentheses": "[" + "(" * 100_000 + ")" * 100_000 + "]",
    "a boxed tower of powers": r"\boxed{9^{9^{9^{9^{9}}}}}",
    "a boxed factorial of a factorial": r"\boxed{9!!!!!}",
    "boxed powers of powers": r"\boxed{((((9^{99})^{99})^{99})^{99})^{99}}",
    "a box of deep braces": r"\boxed{" + "{" * 400 + "}" * 400 + "}",
    "a box of deep points": r"\boxed{" + "(1," * 300 + "1" + ")" * 300 + "}",
    "a box of a thousand minus signs": r"\boxed{" + "-" * 999 + "}",
    "a box of a long list": r"\boxed{" + "x+1," * 240 + "}",
    "a box of roots of roots": r"\boxed{" + r"\sqrt" * 50 + "2}",
    "a box of units": r"\boxed{5 " + "inches " * 130 + "x}",
    "a box of a million digits": r"\boxed{" + "7" * 10**6 + "}",
    "a million digits": "7" * 10**6,
    "a million letters": "cat " * 250_000,
    "a million spaces": " " * 10**6,
    "many unknown Chinese characters": "龘" * 100_000,
}


STRICT = [f"{name} strict" for name in scorers.__all__ if name.startswith("list_")]
NAMES = [*scorers.__all__, *STRICT]


def score(named: str, text: str) -> float:
    name, *strict = named.split()
    extras = {**EXTRAS, "strict": bool(strict)}
    return getattr(scorers, name)(text, [REFERENCES.get(name, "the grey cat, 猫")], **extras)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("what", TEXTS)
def test_any_text_has_a_score(name, what):
    assert 0 <= score(name, TEXTS[what]) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_the_time_is_linear_in_the_text(name):
    for what, piece in PIECES.items():
        for end in ENDS:
            short, long = (piece * (length // len(piece)) + end for length in (2_000, 32_000))
            # Garbage collection may fall into one measurement, but not into all of them.
            assert any(is_linear(name, short, long) for _ in range(5)), (what, end)


def is_linear(name: str, short: str, long: str) -> bool:
    """Whether a sixteenfold text takes less than eighty times as long; 256 would be quadratic."""
    seconds = []
    for text in (short, long):
        started = time.process_time()
        assert 0 <= score(name, text) <= 1
        seconds.append(time.process_time() - started)
    return seconds[1] < 0.2 or seconds[1] < 80 * seconds[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_score_does_not_depend_on_the_depth_of_the_stack(name):
    text = "the cat and the dog " * 60

    def deeper(calls: int) -> float:
        return score(name, text) if calls == 0 else deeper(calls - 1)

    assert deeper(600) == score(name, text)


def random_text(draw: random.Random) -> str:
    """Join pieces of all kinds, some of them repeated, and single characters of any plane."""
    parts = []
    for _ in range(draw.randrange(12)):
        kind = draw.random()
        if kind < 0.6:
            parts.append(draw.choice(list(PIECES.values())) * draw.choice((1, 1, 1, 2, 5, 40)))
        elif kind < 0.8:
            parts.append(draw.choice(("]", "}", ")", '"', ", ", ": ", "(", "%", ".", "3", "\n")))
        else:
            parts.append("".join(chr(draw.randrange(0x110000)) for _ in range(3)))
    return "".join(parts)


def test_random_texts_have_scores():
    """`SAH_FUZZ_TEXTS=100000` tries as many, with `SAH_FUZZ_SEED` as the first of their seeds."""
    for number in range(SEED, SEED + FUZZED):
        text = random_text(random.Random(number))
        for name in NAMES:
            try:
                assert 0 <= score(name, text) <= 1
            except Exception as error:
                raise AssertionError(f"seed {number}: {name}({text!r})") from error
