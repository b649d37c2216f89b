"""What the generators of RULER's tasks share: a tokenizer and a number of tokens."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sah.benchmarks.fitting import TokenCounts, fit_units
from sah.types import Example, PromptTokenizer


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Fills prompts up to a number of tokens."""

    tokenizer: PromptTokenizer
    counts: TokenCounts
    """Shared by all samples: a verse or a number is counted once."""
    context_tokens: int
    """Of prompt plus answer."""

    def enough(self, units: Iterator[str]) -> tuple[list[str], list[int]]:
        """Units that are more than fit, and about how many tokens the first n take."""
        return self.counts.enough_units(units, self.context_tokens)

    def fill(
        self, build: Callable[[int], Example], estimates: Sequence[float], least: int
    ) -> Example:
        """The example with the most units that fits; see `fit_units`."""
        return fit_units(
            build,
            estimates,
            self.tokenizer,
            context_tokens=self.context_tokens,
            least=least,
        )
