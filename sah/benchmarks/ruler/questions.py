"""RULER's question answering: a question, and the documents that answer it among others.

`qa_1` needs SQuAD (dev-v2.0.json) and `qa_2` HotpotQA (hotpot_dev_distractor_v1.json) from a
path. `qa_factbook` is the same task over fields of the CIA World Factbook: always there, and
not one of the published ones. Deviations from NVIDIA's scripts: questions are drawn from the
whole file, where theirs are its first; a question is asked once.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sah.benchmarks.factbook.documents import documents
from sah.benchmarks.ruler.prompt_budget import Budget
from sah.benchmarks.ruler.tasks import TASKS
from sah.errors import ConfigurationError, DatasetError
from sah.seeding import derive
from sah.types import Example

_INSTRUCTION = (
    "Answer the question based on the given documents. Only give me the answer and do not output "
    "any other words."
)
_TASK = f"{_INSTRUCTION}\n\nThe following are given documents.\n\n{{text}}\n\n{_INSTRUCTION}\n\n"


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question with its answers and where they stand."""

    text: str
    answers: tuple[str, ...]
    documents: tuple[str, ...]
    """Always in the context."""
    related: tuple[str, ...] = ()
    """The first to fill the context."""


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Questions, and all the documents that there are."""

    questions: tuple[Question, ...]
    documents: tuple[str, ...]


def question_example(
    name: str, collection: Collection, run_seed: int, number: int, budget: Budget, seed: int
) -> Example:
    """Generate one sample: a question, its documents, and as many others as fit.

    Args:
        name: of the task.
        collection: where the question comes from.
        run_seed: draws the order of the questions, the same for all samples of a run.
        number: of the sample.
        budget: the tokens to fill.
        seed: draws the other documents and the order of all.

    Raises:
        ConfigurationError: if there are fewer questions than samples, or the budget has no
            room for the question's own documents.
    """
    order = list(range(len(collection.questions)))
    random.Random(derive(run_seed, name)).shuffle(order)
    if number >= len(order):
        raise ConfigurationError(
            f"benchmark.samples: {name} has only {len(order)} questions; lower samples"
        )
    question = collection.questions[order[number]]
    draw = random.Random(seed)
    documents, estimates = budget.enough(_by_rank(question, collection.documents, draw))
    placement = draw.getrandbits(63)

    def build(count: int) -> Example:
        chosen = documents[:count]
        random.Random(placement).shuffle(chosen)
        text = "\n\n".join(f"Document {n}:\n{document}" for n, document in enumerate(chosen, 1))
        return Example(
            id=f"{name}-{number}",
            task=name,
            context=_TASK.format(text=text),
            question=f"Question: {question.text}",
            answer_prefix=" Answer:",
            references=question.answers,
            max_new_tokens=TASKS[name].max_new_tokens,
        )

    return budget.fill(build, estimates, least=len(question.documents))


def _by_rank(question: Question, everything: Sequence[str], draw: random.Random) -> Iterator[str]:
    """The question's documents, related ones, then all others; the latter two in an order drawn."""
    related = [text for text in question.related if text not in question.documents]
    first = [*question.documents, *draw.sample(related, len(related))]
    yield from first
    used = set(first)
    for text in draw.sample(everything, len(everything)):
        if text not in used:
            yield text


@cache
def squad(path: str) -> Collection:
    """Read SQuAD 2.0: questions that have an answer, each with the paragraph it is about.

    Raises:
        DatasetError: if the file is not one of SQuAD.
    """
    articles = _read("squad", path)
    try:
        paragraphs = [[item["context"] for item in article["paragraphs"]] for article in articles]
        questions = tuple(
            Question(
                text=item["question"],
                answers=tuple(dict.fromkeys(answer["text"] for answer in item["answers"])),
                documents=(paragraph["context"],),
                related=tuple(dict.fromkeys(texts)),
            )
            for article, texts in zip(articles, paragraphs, strict=True)
            for paragraph in article["paragraphs"]
            for item in paragraph["qas"]
            if not item["is_impossible"]
        )
    except (KeyError, TypeError) as error:
        raise _unexpected("squad", path, error) from error
    everything = tuple(sorted({text for texts in paragraphs for text in texts}))
    return Collection(questions=questions, documents=everything)


@cache
def hotpotqa(path: str) -> Collection:
    """Read HotpotQA's distractor setting: questions with ten paragraphs each.

    Raises:
        DatasetError: if the file is not one of HotpotQA.
    """
    items = _read("hotpotqa", path)
    try:
        questions = tuple(
            Question(
                text=item["question"],
                answers=(item["answer"],),
                documents=tuple(f"{title}\n{''.join(text)}" for title, text in item["context"]),
            )
            for item in items
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _unexpected("hotpotqa", path, error) from error
    everything = tuple(sorted({text for question in questions for text in question.documents}))
    return Collection(questions=questions, documents=everything)


@cache
def factbook() -> Collection:
    """Questions on the World Factbook, each with the field that answers it."""
    titled = {
        (document.name, field): f"{document.name}: {field.category}\n{field.text}"
        for document in documents()
        for field in document.fields
    }
    questions = tuple(
        Question(
            text=item.question,
            answers=(item.answer,),
            documents=(titled[document.name, item.field],),
        )
        for document in documents()
        for item in document.questions
    )
    return Collection(questions=questions, documents=tuple(dict.fromkeys(titled.values())))


def _read(option: str, path: str) -> list[Any]:
    try:
        content = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(f"benchmark.{option}={path!r} cannot be read: {error}") from error
    items = content.get("data") if isinstance(content, dict) else content
    if not isinstance(items, list) or not items:
        raise DatasetError(f"benchmark.{option}={path!r} has no questions")
    return items


def _unexpected(option: str, path: str, error: Exception) -> DatasetError:
    return DatasetError(
        f"benchmark.{option}={path!r} does not have the fields of the published file: {error!r}"
    )
