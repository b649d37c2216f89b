r"""Values of expressions in LaTeX, computed at fixed points instead of by computer algebra.

Two expressions are equal if they have equal values at every point: exact if they are rational,
otherwise to twelve digits. Length, depth and the size of numbers are bounded, so that 9^{9^{9^9}}
costs nothing: it has no value here.
"""

import cmath
import math
import re
from collections.abc import Callable
from fractions import Fraction

Number = Fraction | complex
Values = tuple[Number, ...]

_POINTS = range(4)
_LONGEST = 300
_DEEPEST = 12
_MOST_BITS = 4096
_LARGEST_FACTORIAL = 400

_NUMBER = r"\d+\.?\d*|\.\d+"
_TOKEN = re.compile(rf"{_NUMBER}|\\[a-zA-Z]+|[a-zA-Z∞]|[-+*/^!(){{}}\[\]_ ]")
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_CONSTANTS: dict[str, Number] = {r"\pi": complex(math.pi), "e": complex(math.e), "i": 1j}
_GREEK = {rf"\{name}" for name in ("alpha", "beta", "gamma", "theta", "lambda", "phi", "omega")}
_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    r"\sin": cmath.sin,
    r"\cos": cmath.cos,
    r"\tan": cmath.tan,
    r"\cot": lambda x: 1 / cmath.tan(x),
    r"\sec": lambda x: 1 / cmath.cos(x),
    r"\csc": lambda x: 1 / cmath.sin(x),
    r"\arcsin": cmath.asin,
    r"\arccos": cmath.acos,
    r"\arctan": cmath.atan,
    r"\exp": cmath.exp,
    r"\ln": cmath.log,
    r"\log": cmath.log,
}


class _NoValueError(ValueError):
    """The text is not an expression of this grammar, or its value is out of bounds."""


def values(text: str) -> Values | None:
    """Return the values of an expression at the fixed points; None if it has none.

    Args:
        text: the expression, with `*` and `/` for products and quotients.
    """
    tokens = _TOKEN.findall(text) if len(text) <= _LONGEST else []
    if not tokens or sum(map(len, tokens)) != len(text):
        return None
    tokens = [token for token in tokens if token != " "]
    try:
        return tuple(_Parser(tokens, point).parse() for point in _POINTS)
    except (ArithmeticError, ValueError):
        return None


def same_values(one: Values, other: Values) -> bool:
    """Whether two expressions have the same values."""
    return all(map(_same, one, other))


def same_zeros(one: Values, other: Values) -> bool:
    """Whether two expressions are equal up to a constant factor, as in equations with 0."""
    if not all(one) or not all(other):
        return False
    factors = [left / right for left, right in zip(one, other, strict=True)]
    return all(_same(factor, factors[0]) for factor in factors)


def _same(one: Number, other: Number) -> bool:
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    return cmath.isclose(complex(one), complex(other), rel_tol=1e-12, abs_tol=1e-14)


class _Parser:
    """A recursive descent parser that computes the value at one point as it reads."""

    def __init__(self, tokens: list[str], point: int) -> None:
        self.tokens = tokens.copy()
        self.position = 0
        self.point = point
        self.depth = 0

    def parse(self) -> Number:
        value = self.sum()
        if self.next:
            raise _NoValueError
        # A value that no float can hold cannot be compared with others.
        complex(value)
        return value

    @property
    def next(self) -> str:
        """The next token; empty at the end."""
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self, expected: str = "") -> str:
        token = self.next
        if not token or expected not in ("", token):
            raise _NoValueError
        self.position += 1
        return token

    def nested(self, read: Callable[[], Number]) -> Number:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _NoValueError
        value = read()
        self.depth -= 1
        return value

    def sum(self) -> Number:
        total: Number = self.sign() * self.product()
        while self.next in ("+", "-"):
            total = _bounded(total + self.sign() * self.product())
        return total

    def sign(self) -> int:
        sign = 1
        while self.next in ("+", "-"):
            sign = -sign if self.take() == "-" else sign
        return sign

    def product(self) -> Number:
        value = self.power()
        while self.next not in ("", "+", "-", ")", "]", "}"):
            operator = self.take() if self.next in ("*", "/") else "*"
            factor = self.sign() * self.power()
            value = _bounded(value * factor if operator == "*" else value / factor)
        return value

    def power(self) -> Number:
        value = self.nested(self.atom)
        while self.next == "!":
            self.take()
            value = Fraction(math.factorial(_whole(value, _LARGEST_FACTORIAL)))
        if self.next != "^":
            return value
        self.take()
        return _power(value, self.sign() * self.nested(self.power))

    def atom(self) -> Number:
        token = self.take()
        if token in _CLOSING:
            value = self.sum()
            self.take(_CLOSING[token])
            return value
        if re.fullmatch(_NUMBER, token):
            return Fraction(token)
        if token == r"\frac":
            return _bounded(self.argument() / self.argument())
        if token == r"\binom":
            total, chosen = (_whole(self.argument(), _LARGEST_FACTORIAL) for _ in range(2))
            return Fraction(math.comb(total, chosen))
        if token == r"\sqrt":
            degree = self.nested(self.atom) if self.next == "[" else Fraction(2)
            return _root(self.argument(), degree)
        if token in _FUNCTIONS:
            return self.function(token)
        if token in _CONSTANTS:
            return _CONSTANTS[token]
        if token.isalpha() or token == "∞" or token in _GREEK:
            return _variable(token, self.point)
        raise _NoValueError

    def argument(self) -> Number:
        r"""Read a group in braces or, as in \frac12, one character."""
        token = self.next
        if token.isdigit():
            self.tokens[self.position : self.position + 1] = token
        return self.nested(self.atom)

    def function(self, name: str) -> Number:
        base: Number = Fraction(0)
        exponent: Number = Fraction(1)
        while self.next in ("_", "^"):
            if self.take() == "^":
                exponent = self.argument()
            elif name == r"\log":
                base = self.argument()
            else:
                raise _NoValueError
        if self.next in _CLOSING:
            value = self.nested(self.atom)
        else:
            # In sin 2x, 2x is the argument.
            value = self.nested(self.power)
            while re.fullmatch(rf"{_NUMBER}|[a-zA-Z]|\\pi", self.next):
                value = _bounded(value * self.nested(self.power))
        result = _FUNCTIONS[name](complex(value))
        if base:
            result /= cmath.log(complex(base))
        return result if exponent == 1 else _power(result, exponent)


def _variable(name: str, point: int) -> Fraction:
    """Return the value of a variable, different for each variable and point, of either sign."""
    number = 5 if name == "∞" else sum(map(ord, name))
    return Fraction((-1) ** (point + number) * (31 * number + 17 * point + 1), 1009 + 6 * point)


def _whole(value: Number, most: int) -> int:
    if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= most:
        raise _NoValueError
    return value.numerator


def _bounded(value: Number) -> Number:
    if isinstance(value, Fraction):
        if value.numerator.bit_length() + value.denominator.bit_length() > _MOST_BITS:
            raise _NoValueError
    elif not cmath.isfinite(value):
        raise _NoValueError
    return value


def _root(radicand: Number, degree: Number) -> Number:
    if isinstance(radicand, Fraction) and radicand < 0 and degree in (3, 5, 7, 9):
        return -_power(-radicand, 1 / degree)
    return _power(radicand, 1 / degree)


def _power(base: Number, exponent: Number) -> Number:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(exponent.numerator) * size > _MOST_BITS:
            raise _NoValueError
        return Fraction(base**exponent.numerator)
    return _bounded(complex(base) ** complex(exponent))
