"""The token budget that generators fill."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

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

    def with_needles(self, example: Example, needles: Mapping[str, str]) -> Example:
        """Note where the needles are in the context, in order, as `metadata["needles"]`.

        Each is noted with its answer, the share of the context's characters before it (`depth`),
        and its tokens. The last place counts, since a solved example may come first.

        Args:
            example: the finished one.
            needles: texts that are in the context, with what each answers.
        """
        places = sorted((example.context.rindex(text), text) for text in needles)
        tokens = self.counts.of([text for _, text in places])
        notes = [
            {
                "answer": needles[text],
                "depth": round(place / len(example.context), 6),
                "tokens": count,
            }
            for (place, text), count in zip(places, tokens, strict=True)
        ]
        return replace(example, metadata={"needles": notes})
