"""Averaging predictions and scores into the numbers of results.json."""

import math
import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from sah.results.schema import DenseAgreement, MeanScore, Sampled, Summary, TaskResult, Timing
from sah.types import Prediction, Score

# Hash of the context and score of the answer.
_Answer = tuple[str, Score]


def summarise(
    predictions: Sequence[Prediction], scores: Sequence[Score], *, load_seconds: float
) -> Summary:
    """Average the scores and measurements of an experiment.

    The overall score is the mean of the task scores, as the suites report it. Standard
    errors are clustered by context, because answers about the same context are not
    independent, within a task or across tasks; repeats of a question share its context.
    Density, rows read, keys read, answer length, output error and recall are averaged like the
    score: over the answers of a task, then over tasks. index_bytes and other token counts are
    means over answers.

    Raises:
        ValueError: naming the first example whose score is not in [0, 1].
    """
    for score in scores:
        # A single NaN would make every mean NaN.
        if score.score is not None and not 0 <= score.score <= 1:
            raise ValueError(
                f"the score of example {score.example_id!r} is {score.score}, not a number in "
                "[0, 1]; the benchmark's scorer is wrong"
            )
    by_task: dict[str, list[_Answer]] = {}
    predicted: dict[str, list[Prediction]] = {}
    for prediction, score in zip(predictions, scores, strict=True):
        by_task.setdefault(score.task, []).append((_context(prediction), score))
        predicted.setdefault(score.task, []).append(prediction)
    sampled = {task: _of_one_definition(of) for task, of in predicted.items()}
    templates = {task: {item.chat_template for item in of} for task, of in predicted.items()}
    tasks = {task: _task(answers, templates[task]) for task, answers in by_task.items()}
    means = [task.score for task in tasks.values() if task.score is not None]
    return Summary(
        score=statistics.fmean(means) if len(means) == len(tasks) else None,
        stderr=_stderr([_deviations(_by_context(answers)) for answers in by_task.values()]),
        n=len(scores),
        tasks=tasks,
        **_measured(predicted.values(), "density"),
        **_measured(predicted.values(), "rows_read"),
        **_measured(predicted.values(), "resident"),
        **_measured(predicted.values(), "prefill_density"),
        **_measured(_if_all_have(predicted.values(), "keys_read"), "keys_read"),
        **_measured(predicted.values(), "new_tokens", "answer_tokens"),
        **_measured(sampled.values(), "output_error"),
        **_measured(sampled.values(), "recall"),
        sampled=_sampled(predictions),
        prompt_tokens=_mean(item.context_tokens + item.question_tokens for item in predictions),
        index_bytes=_index_bytes(predictions),
        dense_agreement=_dense_agreement(predictions),
        truncated=sum(prediction.truncated for prediction in predictions),
        thought_tokens=_mean(prediction.thought_tokens for prediction in predictions),
        unfinished_thoughts=sum(prediction.unfinished_thought for prediction in predictions),
        timing=_timing(predictions, load_seconds),
    )


def _measured(
    tasks: Iterable[Sequence[Prediction]], field: str, name: str = ""
) -> dict[str, float | None]:
    """Return the mean over tasks of the mean over their answers, and its standard error.

    Answers without a value do not count, nor do tasks that have no other.

    Args:
        tasks: the answers of each task.
        field: of an answer.
        name: of the mean; the field's by default.
    """
    name = name or field
    by_context = []
    for predictions in tasks:
        contexts: dict[str, list[float]] = {}
        for prediction in predictions:
            value = getattr(prediction, field)
            if value is not None:
                contexts.setdefault(_context(prediction), []).append(value)
        if contexts:
            by_context.append(contexts)
    if not by_context:
        return {name: None, f"{name}_stderr": None}
    return {
        name: statistics.fmean(map(_mean_score, by_context)),
        f"{name}_stderr": _stderr([_deviations(contexts) for contexts in by_context]),
    }


def _if_all_have(
    tasks: Collection[Sequence[Prediction]], field: str
) -> Collection[Sequence[Prediction]]:
    """Return the tasks; none if an answer, of an early version, lacks the field.

    The mean over the other answers would be of other questions than that of another arm.
    """
    lacks = any(getattr(item, field) is None for items in tasks for item in items)
    return () if lacks else tasks


def _of_one_definition(predictions: Sequence[Prediction]) -> Sequence[Prediction]:
    """Return the answers whose output error and recall have the same definition.

    Early versions averaged over calls and did not count queries. Their answers count only where
    there are no others.
    """
    return [item for item in predictions if item.measured_queries is not None] or predictions


def _sampled(predictions: Sequence[Prediction]) -> Sampled | None:
    """Count what output error and recall were measured on; None if neither is enabled."""
    asked = [item for item in predictions if item.queries and item.measured_queries is not None]
    if not asked:
        return None
    return Sampled(
        examples=sum(bool(item.measured_queries) for item in asked),
        of_examples=sum(item.density is not None for item in predictions),
        queries=sum(item.measured_queries or 0 for item in asked),
        of_queries=sum(item.queries or 0 for item in asked),
    )


def _task(answers: Sequence[_Answer], templates: Collection[bool | None]) -> TaskResult:
    scores = [score for _, score in answers]
    names = dict.fromkeys(name for score in scores for name in score.details)
    groups = sorted({group for score in scores for group in score.groups})
    return TaskResult(
        **vars(_mean_of(answers)),
        metrics={
            **{name: _mean(score.details.get(name) for score in scores) for name in names},
            **_repeat_metrics(scores),
        },
        groups={
            group: _mean_of([answer for answer in answers if group in answer[1].groups])
            for group in groups
        },
        chat_template=next(iter(templates)) if len(templates) == 1 else None,
    )


def _repeat_metrics(scores: Sequence[Score]) -> dict[str, float]:
    """Return pass@j and majority@k of a task whose questions were all asked k > 1 times.

    The score itself is mean@k.
    """
    by_question: dict[str, list[Score]] = {}
    for score in scores:
        question = score.example_id if score.question_id is None else score.question_id
        by_question.setdefault(question, []).append(score)
    sizes = {len(repeats) for repeats in by_question.values()}
    values = [score.score for score in scores]
    if len(sizes) > 1 or sizes == {1} or None in values:
        return {}
    (repeats,) = sizes
    metrics = {}
    if set(values) <= {0, 1}:
        right = [sum(one.score == 1 for one in asked) for asked in by_question.values()]
        powers = [2**power for power in range(repeats.bit_length())]
        for drawn in dict.fromkeys([*powers, repeats]):
            metrics[f"pass@{drawn}"] = statistics.fmean(
                _pass_at(drawn, repeats, count) for count in right
            )
    if all(score.answer is not None for score in scores):
        metrics[f"majority@{repeats}"] = statistics.fmean(map(_majority, by_question.values()))
    return metrics


def _pass_at(drawn: int, repeats: int, right: int) -> float:
    """Return the probability that a right answer is among those drawn without replacement.

    The unbiased estimator of pass@k (Chen et al., 2021, arXiv:2107.03374). Division of integers
    is exact for any number of repeats.
    """
    every = math.comb(repeats, drawn)
    return (every - math.comb(repeats - right, drawn)) / every


def _majority(asked: Sequence[Score]) -> float:
    """Return the expected score of the most frequent answer to a question; ties break at random.

    Texts without an answer do not vote, unless there are no others.
    """
    voters = [score for score in asked if score.answer] or asked
    votes = Counter(score.answer for score in voters)
    winners = [answer for answer, count in votes.items() if count == max(votes.values())]
    return statistics.fmean(
        statistics.fmean(one.score or 0.0 for one in voters if one.answer == answer)
        for answer in winners
    )


def _mean_of(answers: Sequence[_Answer]) -> MeanScore:
    contexts = _by_context(answers)
    return MeanScore(
        score=_mean_score(contexts) if contexts else None,
        stderr=_stderr([_deviations(contexts)]),
        n=len(answers),
        contexts=len({context for context, _ in answers}),
    )


def _by_context(answers: Sequence[_Answer]) -> dict[str, list[float]]:
    """Group scores by context; empty if any is missing, since a partial mean would mislead."""
    contexts: dict[str, list[float]] = {}
    for context, score in answers:
        if score.score is None:
            return {}
        contexts.setdefault(context, []).append(score.score)
    return contexts


def _dense_agreement(predictions: Sequence[Prediction]) -> DenseAgreement | None:
    """Average what teacher forcing measured: over the tokens of an example, then over examples."""
    by_context: dict[str, list[Mapping[str, Any]]] = {}
    for item in predictions:
        if item.dense_agreement is not None:
            by_context.setdefault(_context(item), []).append(item.dense_agreement)
    if not by_context:
        return None
    measured = list(chain.from_iterable(by_context.values()))
    kl = _means_by_context(by_context, "kl")
    agreement = _means_by_context(by_context, "top_agrees")
    layers = {layer for item in measured for layer in item["output_error"]}
    return DenseAgreement(
        kl=_mean_score(kl),
        kl_stderr=_stderr([_deviations(kl)]),
        top_agreement=_mean_score(agreement),
        top_agreement_stderr=_stderr([_deviations(agreement)]),
        tokens=sum(len(item["kl"]) for item in measured),
        output_error_by_layer={
            layer: _mean(item["output_error"].get(layer) for item in measured)
            for layer in sorted(layers, key=int)
        },
    )


def _means_by_context(
    by_context: Mapping[str, Sequence[Mapping[str, Any]]], name: str
) -> dict[str, list[float]]:
    return {
        context: [statistics.fmean(item[name]) for item in items]
        for context, items in by_context.items()
    }


def _context(prediction: Prediction) -> str:
    """Return the context's hash; answers of early versions have none and count as distinct."""
    return prediction.context_hash or f"example {prediction.example_id}"


def _timing(predictions: Sequence[Prediction], load_seconds: float) -> Timing:
    prefilled = [item for item in predictions if item.prefill_seconds is not None]
    return Timing(
        load_seconds=load_seconds,
        prefill_seconds=sum(item.prefill_seconds or 0.0 for item in prefilled),
        prefill_seconds_saved=sum(item.prefill_seconds_saved or 0.0 for item in predictions),
        decode_seconds=sum(item.decode_seconds for item in predictions),
        decode_cpu_seconds=_sum(item.decode_cpu_seconds for item in predictions),
        decode_thread_seconds=_sum(item.decode_thread_seconds for item in predictions),
        context_tokens=sum(item.context_tokens for item in prefilled),
        new_tokens=sum(item.new_tokens for item in predictions),
    )


def _index_bytes(predictions: Sequence[Prediction]) -> dict[str, float]:
    by_masker: dict[str, list[float]] = {}
    for prediction in predictions:
        for masker, size in prediction.index_bytes.items():
            by_masker.setdefault(masker, []).append(size)
    return {masker: statistics.fmean(sizes) for masker, sizes in by_masker.items()}


def _mean_score(contexts: Mapping[str, Sequence[float]]) -> float:
    return statistics.fmean(chain.from_iterable(contexts.values()))


def _deviations(contexts: Mapping[str, Sequence[float]]) -> dict[str, float] | None:
    """Return each context's contribution to the error of the mean; None for a single context."""
    count = len(contexts)
    if count < 2:
        return None
    mean = _mean_score(contexts)
    scale = math.sqrt(count / (count - 1)) / sum(len(values) for values in contexts.values())
    return {
        context: scale * math.fsum(value - mean for value in values)
        for context, values in contexts.items()
    }


def _stderr(tasks: Sequence[Mapping[str, float] | None]) -> float | None:
    """Return the standard error of the mean of task means, clustered by context.

    This is Liang & Zeger's sandwich estimator; contexts may occur in several tasks.
    """
    by_context: dict[str, float] = {}
    for deviations in tasks:
        if deviations is None:
            return None
        for context, deviation in deviations.items():
            by_context[context] = by_context.get(context, 0.0) + deviation
    return math.sqrt(math.fsum(value**2 for value in by_context.values())) / len(tasks)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _sum(values: Iterable[float | None]) -> float | None:
    """Return the sum; None if any value is unknown, since it would be too small."""
    known = list(values)
    return None if None in known else math.fsum(value for value in known if value is not None)
