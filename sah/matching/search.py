"""Search for the value of an option at which a monotone measurement meets a target."""

from itertools import pairwise

MOST_EVALUATIONS = 16

_SLACK = 1.05
"""Extrapolation goes a little too far, so that the target lies between two values."""


class Search:
    """Proposes values one at a time; secant steps, bisected where they converge slowly.

        while (value := search.propose()) is not None:
            search.measured[value] = measure(value)    # or search.refused[value] = reason

    Whether the measurement rises or falls with the value need not be known.
    """

    def __init__(
        self,
        *,
        target: float,
        tolerance: float,
        first: float,
        default: float,
        least: float,
        most: float,
    ) -> None:
        """Set up a search.

        Args:
            target: what to measure.
            tolerance: largest relative distance from it that counts as met.
            first: value to begin with.
            default: value to go on with if the first is refused.
            least: lowest value; whole numbers are searched if it is an int.
            most: highest value.
        """
        self.target = target
        self.tolerance = tolerance
        self.measured: dict[float, float] = {}
        self.refused: dict[float, str] = {}
        """Why a value cannot be measured."""
        self._first, self._default = first, default
        self._least, self._most = least, most
        self._width: float | None = None

    @property
    def best(self) -> float | None:
        """The value that measured closest to the target; None if nothing was measured."""
        return min(self.measured, key=lambda value: abs(self._off(value)), default=None)

    @property
    def is_met(self) -> bool:
        """Whether the best value is within the tolerance."""
        return self.best is not None and abs(self._off(self.best)) <= (
            self.tolerance * self.target * (1 + 1e-9)
        )

    @property
    def evaluations(self) -> int:
        """Number of values tried."""
        return len(self.measured) + len(self.refused)

    def propose(self) -> float | None:
        """Return the next value to try; None if the target is met or cannot be."""
        if self.is_met or self.evaluations >= MOST_EVALUATIONS:
            return None
        around = self._around()
        if around is not None:
            return self._between(*around)
        if not self.measured:
            tries = [self._first, self._default, self._most]
            return next((one for one in map(self._rounded, tries) if one not in self.refused), None)
        return self._outwards()

    def _off(self, value: float) -> float:
        return self.measured[value] - self.target

    def _around(self) -> tuple[float, float] | None:
        """Return the closest two neighbours that measured below and above the target."""
        pairs = [
            (low, high)
            for low, high in pairwise(sorted(self.measured))
            if (self._off(low) < 0) != (self._off(high) < 0)
        ]
        return min(pairs, key=lambda pair: pair[1] - pair[0], default=None)

    def _between(self, low: float, high: float) -> float | None:
        width = high - low
        share = self._off(low) / (self._off(low) - self._off(high))
        is_slow = self._width is not None and width > self._width / 2
        self._width = width
        middle = low + width / 2
        tries = [middle] if is_slow else [low + width * share, middle]
        return self._new([value for value in map(self._rounded, tries) if low < value < high])

    def _outwards(self) -> float | None:
        """Extrapolate; where that leads nowhere, try both ends."""
        known = sorted(self.measured, key=lambda value: abs(self._off(value)))
        best = known[0]
        ends = [self._most, self._least]
        if len(known) == 1:
            guess = best * self.target / max(self.measured[best], 1e-9)
        else:
            rise = self.measured[known[1]] - self.measured[best]
            if abs(rise) < 1e-3 * self.target:
                return self._new([self._allowed(end, best) for end in ends])
            guess = best - _SLACK * self._off(best) * (known[1] - best) / rise
        return self._new([self._allowed(value, best) for value in (guess, *ends)])

    def _allowed(self, value: float, best: float) -> float:
        """Return the value, or one half way to the first that is refused if it lies beyond."""
        value = self._rounded(min(max(value, self._least), self._most))
        for wall in sorted(self.refused, key=lambda wall: abs(wall - best)):
            if best < wall <= value or value <= wall < best:
                return self._rounded((best + wall) / 2)
        return value

    def _new(self, values: list[float]) -> float | None:
        """Return the first value that was not tried, nor one that hardly differs from it."""
        tried = [*self.measured, *self.refused]
        return next((value for value in values if all(value != one for one in tried)), None)

    def _rounded(self, value: float) -> float:
        if isinstance(self._least, int):
            return round(value)
        # What a person reads in a yaml; far finer than any tolerance.
        return float(f"{value:.4g}")
