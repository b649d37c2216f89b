"""One answer while it is decoded: its tokens, its thought, and when it ends."""

from dataclasses import dataclass
from typing import Self

from jaxtyping import Float
from torch import Tensor

from sah.models.generation import TokenChooser
from sah.models.thoughts import Thinking, Thought, ThoughtTracker


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The generated tokens of one answer, with finish reason and timing."""

    token_ids: list[int]
    """All tokens, those of a thought included; the end-of-sequence token is not."""
    answer_ids: list[int]
    """The tokens that are scored: those after the thought and its marks, or all of them."""
    thought: Thought | None = None
    """None if there is none."""
    finish_reason: str
    """As in `Prediction`."""
    steps: int
    """Number of generated tokens, the end-of-sequence token included."""
    seconds: float
    """Time of question and decoding, without the prefill."""

    @classmethod
    def given(cls, seconds: float) -> Self:
        """Return the answer to a continuation: no tokens."""
        return cls(token_ids=[], answer_ids=[], finish_reason="given", steps=0, seconds=seconds)


class AnswerInProgress:
    """Takes the tokens of one answer until it ends.

    Tokens that a thinking budget forces are not chosen, so that a sampler and teacher forcing see
    the same steps.
    """

    def __init__(
        self,
        chooser: TokenChooser,
        *,
        limit: int,
        eos_token_ids: frozenset[int],
        thinking: Thinking | None,
    ) -> None:
        """Begin an answer.

        Args:
            chooser: chooses the tokens that are not forced.
            limit: at least 1; tokens of the answer, and of its thought if that has no budget.
            eos_token_ids: the ids that end the answer.
            thinking: None for a model without thoughts.
        """
        self.tokens: list[int] = []
        self._chooser = chooser
        self._limit = limit
        self._eos_token_ids = eos_token_ids
        self._tracker = None if thinking is None else ThoughtTracker(thinking)
        self._steps = 0
        self._finish_reason = "length"

    def advance(self, logits: Float[Tensor, "1 vocabulary"]) -> bool:
        """Take the next token; return whether the answer continues.

        Raises:
            NonFiniteLogits: if the token is chosen and the best logit is NaN or infinite.
        """
        return self.choose(logits) if (forced := self.take_forced()) is None else forced

    def take_forced(self) -> bool | None:
        """Take the next token if a thinking budget forces it.

        Returns:
            Whether the answer continues; None if the token is to be chosen.
        """
        forced = None if self._tracker is None else self._tracker.next_forced()
        return None if forced is None else self.take(forced, is_forced=True)

    def choose(self, logits: Float[Tensor, "1 vocabulary"]) -> bool:
        """Choose the next token and take it; return whether the answer continues.

        Raises:
            NonFiniteLogits: if the best logit is NaN or infinite.
        """
        return self.take(self._chooser.choose(logits))

    def take(self, token: int, *, is_forced: bool = False) -> bool:
        """Take a token that has been chosen or is forced; return whether the answer continues."""
        self._steps += 1
        if not is_forced and token in self._eos_token_ids:
            self._finish_reason = "eos"
            return False
        self.tokens.append(token)
        if self._tracker is None:
            return len(self.tokens) < self._limit
        self._tracker.append(token)
        return not self._tracker.is_full(self._limit)

    def answer(self, seconds: float) -> Answer:
        """Return the answer, which took this long."""
        thought, answer_ids = (
            (None, self.tokens) if self._tracker is None else self._tracker.parts(self._limit)
        )
        return Answer(
            token_ids=self.tokens,
            answer_ids=answer_ids,
            thought=thought,
            finish_reason=self._finish_reason,
            steps=self._steps,
            seconds=seconds,
        )
