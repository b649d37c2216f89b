"""From predictions and scores to the numbers of results.json."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from sah.types import Prediction, Score


def summarise(
    predictions: Sequence[Prediction], scores: Sequence[Score], *, load_seconds: float
) -> dict[str, Any]:
    """Average scores and measurements.

    The overall score is the mean of the task scores, as the suites report it; its
    standard error follows from theirs. Density, output error, recall and index_bytes (bytes
    per key and layer, by masker) are means over examples. What was not measured is None, never
    0: a task without public references has no score, and then neither has the whole.
    """
    by_task: dict[str, list[Score]] = {}
    for score in scores:
        by_task.setdefault(score.task, []).append(score)
    tasks = {task: _task(found) for task, found in by_task.items()}
    means = [task["score"] for task in tasks.values()]
    return {
        "score": None if None in means else statistics.fmean(means),
        "stderr": _stderr_of_mean([task["stderr"] for task in tasks.values()]),
        "n": len(scores),
        "tasks": tasks,
        "density": _mean(prediction.density for prediction in predictions),
        "output_error": _mean(prediction.output_error for prediction in predictions),
        "recall": _mean(prediction.recall for prediction in predictions),
        "index_bytes": _index_bytes(predictions),
        "forced": _forced(predictions),
        "truncated": sum(prediction.truncated for prediction in predictions),
        "timing": _timing(predictions, load_seconds),
    }


def _forced(predictions: Sequence[Prediction]) -> dict[str, Any] | None:
    """Distance to the dense distributions: mean over examples of the means over their tokens."""
    measured = [item.forced for item in predictions if item.forced is not None]
    if not measured:
        return None
    kl = [statistics.fmean(item["kl"]) for item in measured]
    agreement = [statistics.fmean(item["top_agrees"]) for item in measured]
    layers = {layer for item in measured for layer in item["output_error"]}
    return {
        "kl": statistics.fmean(kl),
        "kl_stderr": _stderr(kl),
        "top_agreement": statistics.fmean(agreement),
        "top_agreement_stderr": _stderr(agreement),
        "tokens": sum(len(item["kl"]) for item in measured),
        "output_error_by_layer": {
            layer: _mean(item["output_error"].get(layer) for item in measured)
            for layer in sorted(layers, key=int)
        },
    }


def _task(scores: Sequence[Score]) -> dict[str, Any]:
    """Averages of one task: of the score, of each detail, and within each group."""
    averages = _average(scores)
    names = dict.fromkeys(name for score in scores for name in score.details)
    if names:
        averages["metrics"] = {
            name: _mean(score.details.get(name) for score in scores) for name in names
        }
    groups = dict.fromkeys(group for score in scores for group in score.groups)
    if groups:
        averages["groups"] = {
            group: _average([score for score in scores if group in score.groups])
            for group in sorted(groups)
        }
    return averages


def _average(scores: Sequence[Score]) -> dict[str, Any]:
    # Without public references there is no score at all: a mean of some would be another one.
    values = [score.score for score in scores if score.score is not None]
    if len(values) < len(scores):
        values = []
    mean = statistics.fmean(values) if values else None
    return {"score": mean, "stderr": _stderr(values), "n": len(scores)}


def _timing(predictions: Sequence[Prediction], load_seconds: float) -> dict[str, Any]:
    prefilled = [item for item in predictions if item.prefill_seconds is not None]
    return {
        "load_seconds": load_seconds,
        "prefill_seconds": sum(item.prefill_seconds or 0.0 for item in prefilled),
        "prefill_seconds_saved": sum(item.prefill_seconds_saved or 0.0 for item in predictions),
        "decode_seconds": sum(item.decode_seconds for item in predictions),
        "context_tokens": sum(item.context_tokens for item in prefilled),
        "new_tokens": sum(item.new_tokens for item in predictions),
    }


def _index_bytes(predictions: Sequence[Prediction]) -> dict[str, float]:
    by_masker: dict[str, list[float]] = {}
    for prediction in predictions:
        for masker, size in prediction.index_bytes.items():
            by_masker.setdefault(masker, []).append(size)
    return {masker: statistics.fmean(sizes) for masker, sizes in by_masker.items()}


def _stderr(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    return statistics.stdev(values) / math.sqrt(len(values))


def _stderr_of_mean(stderrs: Sequence[float | None]) -> float | None:
    known = [stderr for stderr in stderrs if stderr is not None]
    if len(known) < len(stderrs):
        return None
    return math.sqrt(sum(stderr**2 for stderr in known)) / len(known)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
