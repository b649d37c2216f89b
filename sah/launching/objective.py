"""The objective of an optimising sweeper: one number from the result of an experiment."""

import math

from simpleeval import InvalidExpression, SimpleEval

from sah.errors import ConfigurationError
from sah.results.schema import Result

_FUNCTIONS = {"min": min, "max": max, "abs": abs, "log": math.log, "sqrt": math.sqrt}


def objective(expression: str, result: Result) -> float:
    """Evaluate an arithmetic expression over the numbers of results.json.

    For example `score` or `score - 10 * max(0, density - 0.1)`. Expressions consist of numbers,
    operators and min, max, abs, log and sqrt, so they cannot do anything else.

    Raises:
        ConfigurationError: if the expression is not arithmetic, or uses a name that the result
            does not have or that was not measured.
    """
    agreement = {} if result.dense_agreement is None else vars(result.dense_agreement)
    values = {
        **vars(result),
        **vars(result.timing),
        **{f"dense_agreement_{name}": value for name, value in agreement.items()},
    }
    numbers = {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "schema"
    }
    try:
        value = SimpleEval(functions=_FUNCTIONS, names=numbers).eval(expression)
    except (InvalidExpression, SyntaxError, ArithmeticError, TypeError, ValueError) as error:
        raise ConfigurationError(
            f"objective={expression!r}: {error}; available are {', '.join(sorted(numbers))}"
        ) from error
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"objective={expression!r} is {value!r}, not a number")
    return float(value)
