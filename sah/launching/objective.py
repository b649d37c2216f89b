"""One number to optimise, from the results of an experiment."""

import math
from collections.abc import Mapping
from typing import Any

from simpleeval import InvalidExpression, SimpleEval

from sah.errors import ConfigurationError

_FUNCTIONS = {"min": min, "max": max, "abs": abs, "log": math.log, "sqrt": math.sqrt}


def objective(expression: str, results: Mapping[str, Any]) -> float:
    """Evaluate an arithmetic expression over the numbers of results.json.

    For example `score` or `score - 10 * max(0, density - 0.1)`. Only numbers, operators and
    min, max, abs, log, sqrt: an expression cannot do anything else.

    Raises:
        ConfigurationError: if the expression names what the results do not have, or what was
            not measured, or is no arithmetic.
    """
    agreement = {
        f"dense_agreement_{name}": value
        for name, value in (results.get("dense_agreement") or {}).items()
    }
    numbers = {
        name: value
        for name, value in {**results, **results.get("timing", {}), **agreement}.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    try:
        value = SimpleEval(functions=_FUNCTIONS, names=numbers).eval(expression)
    except (InvalidExpression, SyntaxError, ArithmeticError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"objective={expression!r}: {error}; measured are {', '.join(sorted(numbers))}"
        ) from error
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"objective={expression!r} is {value!r}, which is no number")
    return float(value)
