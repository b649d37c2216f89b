"""Thoughts: what a thinking model writes between two marks before its answer."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class ThoughtMarks:
    """The texts around a thought."""

    begin: str
    end: str
    direct: str = ""
    """What an answer without a thought begins with; not part of the answer."""


_KNOWN = (
    # Qwen3, DeepSeek-R1, SmolLM3, GLM-4.5, Kimi K2 and others.
    ThoughtMarks(begin="<think>", end="</think>"),
    # Magistral.
    ThoughtMarks(begin="[THINK]", end="[/THINK]"),
    # Seed-OSS.
    ThoughtMarks(begin="<seed:think>", end="</seed:think>"),
    # Command A Reasoning.
    ThoughtMarks(begin="<|START_THINKING|>", end="<|END_THINKING|>"),
    # Gemma 4.
    ThoughtMarks(begin="<|channel>thought", end="<channel|>"),
    # gpt-oss: the end of the analysis, and the beginning of the final message.
    ThoughtMarks(
        begin="<|channel|>analysis<|message|>",
        end="<|end|><|start|>assistant<|channel|>final<|message|>",
        direct="<|channel|>final<|message|>",
    ),
)

# White space that may come before the begin mark of an answer, in tokens.
_LEADING_TOKENS = 16


def check_thinking(value: str | Mapping[str, str] | None) -> None:
    """Check a value of `model.thinking`.

    Raises:
        ValueError: naming the value and the ones that are allowed.
    """
    is_pair = isinstance(value, Mapping) and set(value) == {"begin", "end"} and all(value.values())
    if value not in ("auto", None) and not is_pair:
        raise ValueError(
            "model.thinking must be auto, null, or the marks of the model such as "
            f"{{begin: <think>, end: </think>}}; got {value!r}"
        )


def find_marks(
    tokenizer: Any, template: str, thinking: str | Mapping[str, str] | None
) -> ThoughtMarks | None:
    """Return the marks of a model's thoughts; None if it has none, or `model.thinking` is null.

    With `auto`, these are the first known marks that the chat template contains, else the first
    that the vocabulary has as tokens.
    """
    if thinking is None:
        return None
    if isinstance(thinking, Mapping):
        return ThoughtMarks(**thinking)
    for marks in _KNOWN:
        if marks.begin in template or marks.end in template:
            return marks
    vocabulary = tokenizer.get_added_vocab()
    for marks in _KNOWN:
        if {marks.begin, marks.end} <= vocabulary.keys():
            return marks
    return None


@dataclass(frozen=True, kw_only=True)
class Thinking:
    """How the thought of one answer is recognised, and limited."""

    marks: ThoughtMarks
    decode: Callable[[Sequence[int]], str]
    """Decodes tokens, special ones included."""
    is_open: bool
    """Whether the prompt already has the begin mark."""
    budget: int | None
    """Tokens of the thought after which the end mark is forced; None leaves the thought alone, and
    thought and answer share the limit of the answer."""
    end_ids: Sequence[int]
    """The end mark."""
    prefix_ids: Sequence[int] = ()
    """The example's answer prefix, forced after a thought that the prompt opened."""

    @property
    def most_begin_tokens(self) -> int:
        """Largest number of tokens, white space included, that the begin mark may take."""
        return _LEADING_TOKENS + len(self.marks.begin.encode())

    def room(self, limit: int) -> int:
        """Return the largest number of tokens that an answer with this limit may take."""
        if self.budget is None:
            return limit + len(self.prefix_ids)
        begin = 0 if self.is_open else self.most_begin_tokens
        return begin + self.budget + len(self.end_ids) + len(self.prefix_ids) + limit


@dataclass(frozen=True, kw_only=True)
class Thought:
    """The thought before an answer."""

    text: str
    """Without its marks and the white space around it."""
    tokens: int
    """Number of tokens between the marks."""
    is_finished: bool
    """Whether it ended; if not, there is no answer."""
    rest: str = ""
    """Beginning of the answer, if the token that completes the end mark holds some of it."""


class ThoughtTracker:
    """Follows one answer token by token: where its thought begins and ends, and what is forced."""

    def __init__(self, thinking: Thinking) -> None:
        self.thinking = thinking
        self._tokens: list[int] = []
        self._phase: Literal["undecided", "thought", "answer"] = (
            "thought" if thinking.is_open else "undecided"
        )
        self._begin = 0  # of the thought, after its begin mark
        self._answer = 0  # beginning of the answer
        self._thought: Thought | None = None
        self._forced: deque[int] = deque()
        self._forced_count = 0

    def next_forced(self) -> int | None:
        """Return the next token if it is forced; None if the model chooses it."""
        thinking, length = self.thinking, len(self._tokens) - self._begin
        if self._phase == "thought" and thinking.budget is not None and length >= thinking.budget:
            thought = replace(self._unfinished(), is_finished=True)
            self._end_thought(thought, [*thinking.end_ids, *thinking.prefix_ids])
        return self._forced.popleft() if self._forced else None

    def append(self, token: int) -> None:
        """Take the next token of the answer, chosen or forced."""
        self._tokens.append(token)
        if self._phase == "undecided":
            self._look_for_begin()
        elif self._phase == "thought":
            self._look_for_end()

    def is_full(self, limit: int) -> bool:
        """Whether the answer has as many tokens as its limit allows."""
        if self.thinking.budget is None:
            return len(self._tokens) - self._forced_count + len(self._forced) >= limit
        return self._phase == "answer" and len(self._tokens) - self._answer >= limit

    def parts(self, limit: int) -> tuple[Thought | None, list[int]]:
        """Return the thought, None if there is none, and the tokens of the answer after it."""
        if self._phase == "thought":
            return self._unfinished(), []
        # A begin mark that was not completed takes tokens before it turns out to be an answer.
        return self._thought, self._tokens[self._answer :][:limit]

    def _look_for_begin(self) -> None:
        marks = self.thinking.marks
        text = self.thinking.decode(self._tokens).lstrip()
        may_begin = marks.begin.startswith(text) or marks.direct.startswith(text)
        if text.startswith(marks.begin):
            self._phase, self._begin = "thought", len(self._tokens)
        elif marks.direct and text.startswith(marks.direct):
            self._phase, self._answer = "answer", len(self._tokens)
        elif not may_begin or len(self._tokens) >= self.thinking.most_begin_tokens:
            self._phase = "answer"

    def _look_for_end(self) -> None:
        mark, length = self.thinking.marks.end, len(self._tokens)
        # Each token of the mark holds at least one of its bytes.
        first = max(self._begin, length - len(mark.encode()))
        if mark not in self.thinking.decode(self._tokens[first:]):
            return
        end = next(
            start
            for start in range(length - 1, first - 1, -1)
            if mark in self.thinking.decode(self._tokens[start:])
        )
        text, _, rest = self.thinking.decode(self._tokens[self._begin :]).partition(mark)
        thought = Thought(text=text.strip(), tokens=end - self._begin, is_finished=True, rest=rest)
        self._end_thought(thought, self.thinking.prefix_ids)

    def _unfinished(self) -> Thought:
        ids = self._tokens[self._begin :]
        text = self.thinking.decode(ids).strip()
        return Thought(text=text, tokens=len(ids), is_finished=False)

    def _end_thought(self, thought: Thought, forced: Sequence[int]) -> None:
        self._phase, self._thought = "answer", thought
        self._forced.extend(forced)
        self._forced_count = len(forced)
        self._answer = len(self._tokens) + len(forced)
