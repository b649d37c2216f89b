"""How the answers of a task are scored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from sah.types import Example, Score

Scorer = Callable[..., float]
"""`scorer(prediction, references, **extras)`: a pure function into [0, 1]; the extras are those of
the example."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Answer limit and scorer of one task."""

    max_new_tokens: int
    """Default answer limit; an example may have its own."""
    scorer: Scorer
    details: Mapping[str, Scorer] = field(default_factory=dict)
    """Further scores, by their names in results.json."""
    first_line: bool = False
    """Whether only the first line of the answer is scored."""
    chat_template: bool = True
    """Whether prompts are written with the model's chat template, as in the official script."""
    answer: Callable[[str], str | None] | None = None
    """Finds the final answer in a text, in a normal form in which equal answers are equal strings,
    or None if there is none. Without it, the task has no majority vote."""

    def score(self, example: Example, text: str) -> Score:
        """Score one answer."""
        if self.first_line:
            text = text.lstrip("\n").split("\n")[0]
        return Score(
            example_id=example.id,
            task=example.task,
            score=self.scorer(text, example.references, **example.extras),
            details={
                name: scorer(text, example.references, **example.extras)
                for name, scorer in self.details.items()
            },
            groups=tuple(example.extras.get("groups", ())),
            answer=None if self.answer is None else self.answer(text) or "",
        )
