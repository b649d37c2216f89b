"""Groups of contexts that are prefilled together, and the batches of questions in them.

They depend on the configuration and the data alone, not on what is already answered: the rounding
of a batch depends on all of its rows, so that a resumed experiment gives the same answers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from sah.execution.experiment import Experiment
from sah.models.prompts import EncodedPrompt, PromptEncoder
from sah.types import Example


@dataclass(frozen=True, kw_only=True)
class AskedContext:
    """A context with all questions about it, answered or not."""

    examples: Sequence[Example]
    prompts: Sequence[EncodedPrompt]
    """Of the examples; all have the same context."""
    rooms: Sequence[int]
    """Most tokens of each answer."""

    @property
    def context_ids(self) -> Sequence[int]:
        """Tokens of the context."""
        return self.prompts[0].context_ids

    @property
    def reserve_tokens(self) -> int:
        """Most tokens of a question and its answer."""
        return max(self.after_context)

    @property
    def longest(self) -> int:
        """Most tokens of the context with a question and its answer."""
        return len(self.context_ids) + self.reserve_tokens

    @property
    def after_context(self) -> list[int]:
        """Most tokens of each question and its answer."""
        return [
            len(prompt.question_ids) + room
            for prompt, room in zip(self.prompts, self.rooms, strict=True)
        ]


def encoded_contexts(
    experiment: Experiment, prompts: PromptEncoder, examples: Sequence[Example]
) -> Iterator[AskedContext]:
    """Encode the prompts of consecutive examples that share a prefill, one context at a time."""
    for _, group in groupby(examples, key=_prefilled_as):
        asked = list(group)
        # All questions, pending or not: where the context is cut must not depend on a resume.
        encoded = [prompts.encode(example) for example in asked]
        rooms = [
            prompts.room(example, prompt, experiment.generation)
            for example, prompt in zip(asked, encoded, strict=True)
        ]
        encoded = prompts.fit(asked, encoded, rooms)
        yield AskedContext(examples=asked, prompts=encoded, rooms=rooms)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Contexts that are prefilled together, and the batches that their questions are decoded in."""

    contexts: Sequence[AskedContext]
    batches: Sequence[Sequence[tuple[int, int]]]
    """The rows of each batch: number of the context in the group, and of the question about it."""

    @property
    def examples(self) -> list[Example]:
        """All examples, in order."""
        return [example for asked in self.contexts for example in asked.examples]


def grouped(
    contexts: Iterator[AskedContext], *, batch_rows: int, batch_tokens: int
) -> Iterator[Group]:
    """Group consecutive contexts whose questions fit into one batch together.

    The rows of a batch lie side by side, each with room for the longest. A context with too many
    questions or tokens for one batch is a group by itself.
    """
    group: list[AskedContext] = []
    rows = longest = 0
    for context in contexts:
        rows, longest = rows + len(context.examples), max(longest, context.longest)
        if group and (rows > batch_rows or rows * longest > batch_tokens):
            yield Group(contexts=group, batches=_batches(group, batch_rows, batch_tokens))
            group, rows, longest = [], len(context.examples), context.longest
        group.append(context)
    if group:
        yield Group(contexts=group, batches=_batches(group, batch_rows, batch_tokens))


def _batches(
    group: Sequence[AskedContext], batch_rows: int, batch_tokens: int
) -> list[list[tuple[int, int]]]:
    """Divide the questions of a group into batches, in order."""
    if len(group) > 1:
        return [[(n, asked) for n, one in enumerate(group) for asked in range(len(one.examples))]]
    (context,) = group
    shared = len(context.context_ids)
    # Rows may take turns in the cache of a long context, which counts once.
    takes_turns = shared > context.reserve_tokens
    found: list[list[tuple[int, int]]] = [[]]
    tokens = longest = 0
    for question, after_context in enumerate(context.after_context):
        tokens, longest = tokens + after_context, max(longest, after_context)
        rows = len(found[-1]) + 1
        needed = shared + tokens if takes_turns else rows * (shared + longest)
        if rows > 1 and (rows > batch_rows or needed > batch_tokens):
            found.append([])
            tokens = longest = after_context
        found[-1].append((0, question))
    return found


def _prefilled_as(example: Example) -> tuple[str, bool]:
    return example.context, example.chat_template and not example.is_continuation
