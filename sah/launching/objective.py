"""The objective of an optimising sweeper: one number from the result of an experiment."""

import math
from collections.abc import Mapping
from typing import get_args, get_type_hints

from simpleeval import InvalidExpression, SimpleEval

from sah.errors import ConfigurationError
from sah.results.schema import DenseAgreement, Result, Timing

_FUNCTIONS = {"min": min, "max": max, "abs": abs, "log": math.log, "sqrt": math.sqrt}


def check_objective(expression: str) -> None:
    """Check an expression before there is a result.

    Raises:
        ConfigurationError: if it is not arithmetic, or uses a name that no result has.
    """
    agreement = [f"dense_agreement_{name}" for name in _number_fields(DenseAgreement)]
    names = [*_number_fields(Result), *_number_fields(Timing), *agreement]
    try:
        _evaluate(expression, dict.fromkeys(names, 0.5))
    except (ArithmeticError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        # The numbers of a result may do what these do not.


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
        return _evaluate(expression, numbers)
    except (ArithmeticError, ValueError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise _wrong(expression, error, numbers) from error


def _evaluate(expression: str, numbers: Mapping[str, float]) -> float:
    try:
        value = SimpleEval(functions=_FUNCTIONS, names=dict(numbers)).eval(expression)
    except (InvalidExpression, SyntaxError, TypeError) as error:
        raise _wrong(expression, error, numbers) from error
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"objective={expression!r} is {value!r}, not a number")
    return float(value)


def _number_fields(kind: type) -> list[str]:
    """Return the names of a class's fields that are numbers, or numbers or None."""
    return [
        name
        for name, hint in get_type_hints(kind).items()
        if {hint, *get_args(hint)} & {int, float} and name != "schema"
        if set(get_args(hint)) <= {int, float, type(None)}
    ]


def _wrong(expression: str, error: Exception, known: Mapping[str, float]) -> ConfigurationError:
    return ConfigurationError(
        f"objective={expression!r}: {error}; available are {', '.join(sorted(known))}"
    )
