"""The token budget that RULER's generators fill."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sah.benchmarks.fitting import TokenCounts, fit_units
from sah.types import Example, PromptTokenizer


@dataclass(frozen=True, kw_only=True)
class Budget:
    """A number of tokens, and the tokenizer that counts them."""

    tokenizer: PromptTokenizer
    counts: TokenCounts
    """Shared by all samples, so that each verse or number is tokenised once."""
    context_tokens: int
    """Maximum length of prompt plus answer."""

    def enough(self, units: Iterator[str]) -> tuple[list[str], list[int]]:
        """Take more units than fit; see `TokenCounts.enough_units`."""
        return self.counts.enough_units(units, self.context_tokens)

    def fill(
        self, build: Callable[[int], Example], estimates: Sequence[float], least: int
    ) -> Example:
        """Build the example with the most units that fits; see `fit_units`."""
        return fit_units(
            build,
            estimates,
            self.tokenizer,
            context_tokens=self.context_tokens,
            least=least,
        )
