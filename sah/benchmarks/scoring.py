"""Applying a scorer to the answers of a benchmark."""

from collections.abc import Callable, Mapping, Sequence

from sah.types import Example, Prediction, Score

Scorer = Callable[..., float]
"""`score(prediction, references, **extras)`: pure, in [0, 1]; extras are the example's."""


def score_each(
    scorer: Scorer,
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    *,
    details: Mapping[str, Scorer] | None = None,
) -> list[Score]:
    """Score aligned examples and predictions with one function, and others for the details."""
    return [
        score_one(scorer, example, prediction.text, details=details)
        for example, prediction in zip(examples, predictions, strict=True)
    ]


def score_one(
    scorer: Scorer, example: Example, text: str, *, details: Mapping[str, Scorer] | None = None
) -> Score:
    """Score one answer."""
    return Score(
        example_id=example.id,
        task=example.task,
        score=scorer(text, example.references, **example.extras),
        details={
            name: other(text, example.references, **example.extras)
            for name, other in (details or {}).items()
        },
        groups=tuple(example.extras.get("groups", ())),
    )
