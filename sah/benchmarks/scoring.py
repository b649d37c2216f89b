"""Scoring functions: pure, in [0, 1]."""

from collections.abc import Callable, Sequence

from sah.types import Example, Prediction, Score

Scorer = Callable[[str, Sequence[str]], float]


def exact_match(prediction: str, references: Sequence[str]) -> float:
    """1 if the prediction is one of the references, but for case and outer white space."""
    answer = prediction.strip().casefold()
    return float(any(answer == reference.strip().casefold() for reference in references))


def contained_share(prediction: str, references: Sequence[str]) -> float:
    """Share of the references that the prediction contains, whatever the case (RULER)."""
    if not references:
        raise ValueError("an example without references cannot be scored")
    answer = prediction.lower()
    return sum(reference.lower() in answer for reference in references) / len(references)


def score_each(
    scorer: Scorer, examples: Sequence[Example], predictions: Sequence[Prediction]
) -> list[Score]:
    """Score aligned examples and predictions with one function."""
    return [
        Score(
            example_id=example.id,
            task=example.task,
            score=scorer(prediction.text, example.references),
        )
        for example, prediction in zip(examples, predictions, strict=True)
    ]
