r"""Equivalence of mathematical answers, as in MATH: final answer, normal form, value.

The rules follow OpenAI's grader of MATH-500 (PRM800K, arXiv:2305.20050). Where it asks sympy
whether a difference is 0, which can take any time over a short text, values at a few points decide.
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from sah.benchmarks.scorers.expressions import Values, same_values, same_zeros, values

# Beyond these, answers are compared as text.
_LONGEST = 1000
_DEEPEST = 10
_MOST_PARTS = 20

_BOX = re.compile(r"(?:boxed|fbox)\s*+\{|\\[\\{}]|[{}]")
_STATED = re.compile(r"\banswer(?:\s++is\b\s*+:?+|\s*+:)\s*+(?=\S)", re.IGNORECASE)
_FORMULA = re.compile(r"\$([^$\n]{1,1000}+)\$")

_TEXT = r"\\(?:text|textbf|textit|textrm|mbox|mathrm|mathbf)\s*\{"
_UNITS = (
    "degree|cm|centimeter|meter|mile|second|minute|hour|day|week|month|year|foot|feet|inch|yard|"
    "unit|dollar|cent|percent|square|cubic"
)
_FRACTION = r"\\frac(?:\{\d+\}|\d)(?:\{\d+\}|\d)"
_REWRITTEN: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Layout.
        (r"\\(?:left|right|displaystyle|[bB]igg?[lr]?)(?![a-zA-Z])", ""),
        (r"(?<=\d)(?:\\[,!]|,\\!|\{,\})\s*(?=\d{3})", ""),
        (r"\\!", ""),
        (r"(?<!\\)\\[,;: ]|\\q?quad(?![a-zA-Z])|~", " "),
        (r"\\?[$%]|\\[()]", ""),
        (r"\^\s*(?:\\circ|∘|\{\s*(?:\\circ|∘)\s*\})|°|\\degree(?![a-zA-Z])", ""),
        # Spellings.
        ("[−–]", "-"),
        ("π", r"\\pi "),
        ("√", r"\\sqrt "),
        (r"\\infty(?![a-zA-Z])", "∞"),
        (r"\\pm(?![a-zA-Z])", "±"),
        (r"\\cup(?![a-zA-Z])", "∪"),
        (r"\\in(?![a-zA-Z])", "∈"),
        (r"\\(?:emptyset|varnothing)(?![a-zA-Z])", "∅"),
        (r"\\l(?:eq?|eqslant)(?![a-zA-Z])|<=", "≤"),
        (r"\\g(?:eq?|eqslant)(?![a-zA-Z])|>=", "≥"),
        (r"\\lt(?![a-zA-Z])", "<"),
        (r"\\gt(?![a-zA-Z])", ">"),
        (r"\\(?:cdot|times)(?![a-zA-Z])|[×·]|\*\*", "*"),
        (r"\\div(?![a-zA-Z])|÷", "/"),
        (r"\\[dtc]frac(?![a-zA-Z])", r"\\frac"),
        (r"\\\{", "⦃"),
        (r"\\\}", "⦄"),
        # Words: separators of answers, units after a number, and answers.
        (rf"{_TEXT}\s*(?:and|or)\s*\}}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])", ","),
        (rf"(?<=[\w)}}])\s*{_TEXT}[^{{}}]*\}}(?:\s*\^\s*(?:\d|\{{\d\}}))?", ""),
        (rf"{_TEXT}([^{{}}]*)\}}", r"\1"),
        (rf"(?<=[\d)}}])\s*(?:(?:{_UNITS})(?:es|s)?\b\s*)++(?:\^\s*(?:\d|\{{\d\}}))?\s*$", ""),
        # White space, which matters in 3, 456 and 7 3/4.
        (r"^\s*-?\d{1,3}(?:,\d{3})++(?:\.\d+)?\s*$", lambda number: number[0].replace(",", "")),
        (r"(?<![\d./])(\d+) +(\d+/\d+)(?![\d/])", r"{\1+\2}"),
        (r"(\\[a-zA-Z]+)\s+(?=[a-zA-Z])|\s+", lambda space: f"{space[1]} " if space[1] else ""),
        (rf"(?<![\d.])(\d+)({_FRACTION})", r"{\1+\2}"),
        (r"_\{(\w+)\}", r"_\1"),
        (r"\.$", ""),
        (r"^\(([A-Z])\)$", r"\1"),
    )
]
_NAME = re.compile(r"[a-zA-Z](?:_\w)?(?:\([a-zA-Z]\))?[=∈](?=[^=<>≤≥]+$)")
_MATRIX = re.compile(r"\\begin\{[pb]matrix\}(.*)\\end\{[pb]matrix\}")
_RELATION = re.compile("[=<>≤≥]")
_MIRRORED = str.maketrans("<>≤≥", "><≥≤")
_OPENING, _CLOSING = "([{⦃", ")]}⦄"


def math_equivalence(prediction: str, references: Sequence[str], **_extras: Any) -> float:
    r"""Return 1 if the final answer is equivalent to a reference (MATH).

    The answer is the last `\boxed{…}`, else what follows the last `answer is` or `answer:`, else
    the last formula between dollar signs. Sets and lists without brackets are equal in any order;
    points, intervals and matrices are compared element by element, equations up to a factor.
    """
    answer = final_answer(prediction)
    return float(answer is not None and any(equivalent(answer, item) for item in references))


def math_answer(prediction: str) -> str | None:
    """Return the answer that `math_equivalence` compares, in normal form; None without one.

    0.50 and 2/4 are 1/2, and 2, 1 is 1,2. Other equivalent answers, such as x + 1 and 1 + x, have
    different forms.
    """
    answer = final_answer(prediction)
    if answer is None or len(answer) > _LONGEST:
        return answer
    parts = [_NAME.sub("", part) for part in _parts(normal_form(answer), ",")]
    return ",".join(sorted(rational(part) or part for part in parts)) or None


def final_answer(text: str) -> str | None:
    """Return the final answer of a text as it is written; None if there is none."""
    boxed = last_box(text)
    if boxed is not None:
        return boxed
    end = None
    for stated in _STATED.finditer(text):
        end = stated.end()
    if end is not None:
        line = text[end:].partition("\n")[0]
        formula = _FORMULA.search(line)
        return formula[1] if formula else re.split(r"\.\s", line)[0].strip(" *")
    formulas = _FORMULA.findall(text)
    return formulas[-1] if formulas else None


def last_box(text: str) -> str | None:
    r"""Return what the last closed `\boxed{…}` holds; None without one. No backslash is needed."""
    found = None
    opened: list[tuple[int, bool]] = []
    for brace in _BOX.finditer(text):
        mark = brace.group()
        if mark == "}" and opened:
            start, is_box = opened.pop()
            found = text[start : brace.start()] if is_box else found
        elif mark.endswith("{") and not mark.startswith("\\"):
            opened.append((brace.end(), mark != "{"))
    return found


def equivalent(one: str, other: str) -> bool:
    """Whether two answers are equal, as text or as mathematics."""
    if max(len(one), len(other)) > _LONGEST:
        return one.split() == other.split()
    left, right = normal_form(one), normal_form(other)
    if not left or left == right or not (_is_flat(left) and _is_flat(right)):
        return bool(left) and left == right
    return _equal(left, right)


def rational(text: str) -> str | None:
    """Return the value of a normal form that is a rational number, such as 3 or 1/2; else None."""
    found = _values(text)
    if found is None or len({*found}) > 1 or not isinstance(found[0], Fraction):
        return None
    return str(found[0])


def normal_form(answer: str) -> str:
    """Return an answer in one spelling, without layout, units and braces around it."""
    text = answer.strip()
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    while text[:1] in ("{", "⦃") and text[-1:] in ("}", "⦄") and _is_balanced(text[1:-1]):
        text = text[1:-1]
    return text.lower() if _is_word(text) else text


def _equal(one: str, other: str) -> bool:
    if one == other or not one or not other:
        return one == other
    for separator in ("∪", ","):
        left, right = _parts(one, separator), _parts(other, separator)
        if max(len(left), len(right)) > 1:
            return _equal_in_any_order(left, right)
    if _RELATION.search(one) and _RELATION.search(other) and _same_relation(one, other):
        return True
    one, other = _NAME.sub("", one), _NAME.sub("", other)
    if one[0] in "([" and one[-1] in ")]" and _is_balanced(one[1:-1]):
        left, right = _parts(one[1:-1], ","), _parts(other[1:-1], ",")
        if len(left) > 1:
            return one[0] + one[-1] == other[0] + other[-1] and _equal_in_order(left, right)
    one_matrix, other_matrix = _MATRIX.fullmatch(one), _MATRIX.fullmatch(other)
    if one_matrix and other_matrix:
        return _equal_in_order(_cells(one_matrix[1]), _cells(other_matrix[1]))
    found = _values(one), _values(other)
    return found[0] is not None and found[1] is not None and same_values(found[0], found[1])


def _cells(matrix: str) -> list[str]:
    """Return the entries of a matrix, and the separators between them."""
    return re.split(r"(&|\\\\)", re.sub(r"\\\\$", "", matrix))


def _equal_in_order(left: Sequence[str], right: Sequence[str]) -> bool:
    return len(left) == len(right) and all(map(_equal, left, right))


def _equal_in_any_order(left: list[str], right: list[str]) -> bool:
    if len(left) != len(right) or len(left) > _MOST_PARTS:
        return sorted(left) == sorted(right)
    remaining = list(right)
    for part in left:
        match = next((other for other in remaining if _equal(part, other)), None)
        if match is None:
            return False
        remaining.remove(match)
    return True


def _same_relation(one: str, other: str) -> bool:
    """Whether two equations or inequalities are the same, from either side."""
    left, right = _RELATION.split(one), _RELATION.split(other)
    signs, others = ("".join(_RELATION.findall(side)) for side in (one, other))
    if signs == others == "=":
        found = [_values(f"({side[0]})-({side[1]})") for side in (left, right)]
        return found[0] is not None and found[1] is not None and same_zeros(found[0], found[1])
    if signs == others and _equal_in_order(left, right):
        return True
    return signs == others[::-1].translate(_MIRRORED) and _equal_in_order(left, right[::-1])


def _values(text: str) -> Values | None:
    return None if _is_word(text) else values(text)


def _is_word(text: str) -> bool:
    """Whether an answer is a word, and not a product of variables."""
    return len(text) > 2 and text.isalpha()


def _parts(text: str, separator: str) -> list[str]:
    """Split at separators outside of brackets; in a list, a ± b is a + b and a - b."""
    parts, start, depth = [], 0, 0
    for position, character in enumerate(text):
        depth += (character in _OPENING) - (character in _CLOSING)
        if character == separator and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    parts.append(text[start:])
    return [
        part.replace("±", sign)
        for part in parts
        if part
        for sign in ("+-" if separator == "," and part.count("±") == 1 else "±")
    ]


def _is_balanced(text: str) -> bool:
    """Whether no bracket is closed that a text does not open."""
    depth = 0
    for character in text:
        depth += (character in _OPENING) - (character in _CLOSING)
        if depth < 0:
            return False
    return depth == 0


def _is_flat(text: str) -> bool:
    """Whether brackets are nested no deeper than recursion allows at any depth of the stack."""
    depth = deepest = 0
    for character in text:
        depth += (character in _OPENING) - (character in _CLOSING)
        deepest = max(deepest, depth)
    return deepest <= _DEEPEST
