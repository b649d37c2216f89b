"""RULER's question answering: a question, and its supporting documents among distractors.

`qa_1` reads SQuAD (dev-v2.0.json) and `qa_2` HotpotQA (hotpot_dev_distractor_v1.json) from a
path. `qa_factbook` is the same task over fields of the CIA World Factbook; it needs no file and is
not one of the published tasks. Deviations from NVIDIA's scripts:
- Questions are drawn from the whole file instead of taken from its beginning, and no question is
  asked twice.
- The depth of the supporting documents is drawn for each sample. Theirs are shuffled with one seed,
  so that the paragraph of SQuAD lies at the same depth in all samples with equally many documents.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sah.benchmarks.factbook.documents import documents
from sah.benchmarks.prompt_budget import Budget
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
    """A question, its answers, and the documents that support them."""

    text: str
    answers: tuple[str, ...]
    documents: tuple[str, ...]
    """Supporting documents, always in the context."""
    related: tuple[str, ...] = ()
    """Preferred distractors."""


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Questions, and all documents that may serve as distractors."""

    questions: tuple[Question, ...]
    documents: tuple[str, ...]


def question_example(
    name: str, collection: Collection, experiment_seed: int, number: int, budget: Budget, seed: int
) -> Example:
    """Generate one sample: a question, its documents, and as many distractors as fit.

    Args:
        name: name of the task.
        collection: source of the question and the documents.
        experiment_seed: determines the order of the questions, the same for all samples.
        number: number of the sample.
        budget: token budget of prompt and answer.
        seed: determines the distractors and the order of the documents.

    Raises:
        ConfigurationError: if there are fewer questions than samples, or the question's own
            documents do not fit into the budget.
    """
    order = list(range(len(collection.questions)))
    random.Random(derive(experiment_seed, name)).shuffle(order)
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

    example = budget.fill(build, estimates, least=len(question.documents))
    (answer, *_) = question.answers
    return budget.with_needles(example, dict.fromkeys(question.documents, answer))


def _by_rank(question: Question, everything: Sequence[str], draw: random.Random) -> Iterator[str]:
    """Yield the question's documents, then related ones, then all others, the last two shuffled."""
    related = [text for text in question.related if text not in question.documents]
    first = [*question.documents, *draw.sample(related, len(related))]
    yield from first
    used = set(first)
    for text in draw.sample(everything, len(everything)):
        if text not in used:
            yield text


@cache
def squad(path: str, content: str | None) -> Collection:
    """Read SQuAD 2.0: the answerable questions, each with its paragraph.

    Args:
        path: of the file.
        content: its digest; a file that has changed is read again.

    Raises:
        DatasetError: if the file is not SQuAD's.
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
def hotpotqa(path: str, content: str | None) -> Collection:
    """Read HotpotQA's distractor setting: questions with ten paragraphs each.

    Args:
        path: of the file.
        content: its digest; a file that has changed is read again.

    Raises:
        DatasetError: if the file is not HotpotQA's.
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
    """Return questions on the World Factbook, each with the field that answers it."""
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
