"""Literals in a model's text: parsed in linear time, never evaluated, None where there is none."""

import ast
import json
import re
import warnings
from typing import Any

# Deeper nesting is not an answer; the parsers would exhaust the stack.
_DEEPEST = 10
_JOINED = ("string", "string")
# Strings, numbers and constants. Python's parser sees nothing else.
_TOKEN = re.compile(
    r"""\s*+(?:
        (?P<string>[rRuU]?'(?:[^'\\\n]++|\\.)*' | [rRuU]?"(?:[^"\\\n]++|\\.)*")
        | (?P<value>[-+]?\d[\d_]*+(?:\.\d*+)?+(?:[eE][-+]?\d++)?+
                    | true | false | null | True | False | None)
        | (?P<opens>[\[{(]) | (?P<closes>[]})]) | (?P<separates>[,:])
    )\s*+""",
    flags=re.DOTALL | re.VERBOSE,
)


def literal(text: str) -> Any:
    """Parse JSON or a Python literal."""
    if not _is_plain(text):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return python_literal(text)


def python_literal(text: str) -> Any:
    """Parse a Python literal made of strings, numbers, constants and brackets."""
    if not _is_plain(text):
        return None
    with warnings.catch_warnings():
        # Invalid escapes, as in '\d', which Python reads as they are.
        warnings.simplefilter("ignore")
        try:
            return ast.literal_eval(text)
        except (SyntaxError, TypeError, ValueError):
            return None


def between(text: str, first: str, last: str) -> str:
    """Return the text from the first `first` to the last `last`, both included; else nothing."""
    start, end = text.find(first), text.rfind(last)
    return text[start : end + 1] if 0 <= start < end else ""


def _is_plain(text: str) -> bool:
    """Whether a text has only such tokens, is not nested deeply, and applies nothing to a value.

    `[0][0]`, `1 -1` and the like are operations, whose syntax trees may be deep without brackets.
    """
    position = depth = 0
    last: str | None = None
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            return False
        kind = token.lastgroup
        follows_value = last in ("string", "value", "closes")
        if follows_value and kind in ("string", "value", "opens") and (last, kind) != _JOINED:
            return False
        depth += (kind == "opens") - (kind == "closes")
        if depth > _DEEPEST:
            return False
        position, last = token.end(), kind
    return position > 0
