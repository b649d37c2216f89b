"""A row of a batch: a question about a context, and its answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from sah.attention.session import AttentionSession
from sah.models.batch.row_cache import RowCache
from sah.models.decoding import AnswerInProgress
from sah.models.generation import TokenChooser, naming_example
from sah.models.language_model import AfterQuestion, PrefilledContext
from sah.models.thoughts import Thinking


@dataclass(kw_only=True)
class Row:
    """A question about a prefilled context, and its answer while it is decoded."""

    example_id: str
    context: PrefilledContext
    """May be that of other rows, too."""
    question_ids: Sequence[int]
    """At least one token."""
    session: AttentionSession
    """A fork of its own of the context's session."""
    sampler: TokenChooser
    max_new_tokens: int
    """At least 1."""
    thinking: Thinking | None = None
    """As in `LanguageModel.answer`."""
    after_question: AfterQuestion | None = None
    """As in `LanguageModel.answer`."""
    begin_turn: Callable[[], None] = lambda: None
    """Called before each computation for this row alone."""
    answer: AnswerInProgress = field(init=False)
    """Set when the question has been read."""
    seconds: float = 0.0
    """Time of question and answer: of what rows compute together, a share by tokens."""
    cache: RowCache = field(init=False)
    """Set when the question is read."""

    @property
    def room(self) -> int:
        """Tokens for which memory is reserved."""
        return max(1, self.context.cache.capacity - self.cache.length)

    def choose(self, logits: Tensor) -> bool:
        """Choose the next token and take it; return whether the answer continues."""
        with naming_example(self.example_id):
            return self.answer.choose(logits)
