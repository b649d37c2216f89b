"""The story of an experiment: examples, prefill, answer, score, finish."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from sah.arm import Arm
from sah.configuration import Experiment
from sah.errors import DatasetError, ExperimentTimeout
from sah.models.language_model import LanguageModel
from sah.progress import Progress
from sah.results import ResultStore
from sah.results.examples import shown
from sah.results.provenance import device_name, peak_memory_bytes, provenance
from sah.results.summary import summarise
from sah.types import Example

logger = logging.getLogger(__name__)


def run(experiment: Experiment, store: ResultStore) -> dict[str, Any]:
    """Answer what is not answered yet, score everything, and complete the results."""
    started = datetime.now(UTC)
    between_tokens = _deadline(experiment.timeout_minutes)
    arm = Arm(
        experiment.sparse_attention,
        experiment.metric_logging,
        store,
        seed=experiment.seed,
        generation=experiment.generation,
        protocol=experiment.protocol,
    )
    load_started = time.perf_counter()
    model = experiment.model.load()
    load_seconds = time.perf_counter() - load_started

    examples = _examples(experiment, model)
    store.check_examples([example.id for example in examples])
    pending = arm.pending(examples)
    _log_what_is_left(examples, pending)
    answered = [example for example in examples if example.id in store.predictions]
    before = experiment.benchmark.score(
        answered, [store.predictions[example.id] for example in answered]
    )
    with Progress(len(examples), scores=[score.score for score in before]) as progress:
        try:
            for _, group in groupby(pending, key=lambda example: example.context):
                _answer_context(experiment, model, arm, list(group), between_tokens, progress)
        finally:
            arm.metrics.close()

    predictions = [store.predictions[example.id] for example in examples]
    scores = experiment.benchmark.score(examples, predictions)
    store.write_examples([shown(example) for example in examples])
    results = {
        "model": experiment.model.name,
        "attention": experiment.sparse_attention.name,
        "benchmark": experiment.benchmark.name,
        "subset": experiment.benchmark.subset,
        "protocol": experiment.protocol.name,
        "cache_bytes_per_token": model.cache_bytes_per_token,
        **summarise(predictions, scores, load_seconds=load_seconds),
        "provenance": {
            **provenance(),
            "device": device_name(model.device),
            "dtype": str(model.model.dtype).removeprefix("torch."),
            "peak_memory_bytes": peak_memory_bytes(model.device),
            "started": started.isoformat(),
            "finished": datetime.now(UTC).isoformat(),
        },
    }
    return store.complete(results, scores)


def _answer_context(
    experiment: Experiment,
    model: LanguageModel,
    arm: Arm,
    examples: list[Example],
    between_tokens: Callable[[], None],
    progress: Progress,
) -> None:
    """Prefill one context and answer its questions."""
    between_tokens()
    prompts = [model.prompts.encode(example) for example in examples]
    new_tokens = [arm.generation.token_limit(example.max_new_tokens) for example in examples]
    for example, prompt, limit in zip(examples, prompts, new_tokens, strict=True):
        model.prompts.check_length(example, prompt, limit)
    longest = max(
        len(prompt.question_ids) + limit for prompt, limit in zip(prompts, new_tokens, strict=True)
    )
    context = model.prefill(prompts[0].context_ids, reserve_tokens=longest)
    arm.begin_context(context)
    prefill_seconds: float | None = context.seconds
    for example, prompt in zip(examples, prompts, strict=True):
        prediction = arm.answer(
            model,
            context,
            example,
            prompt,
            prefill_seconds=prefill_seconds,
            between_tokens=between_tokens,
        )
        prefill_seconds = None
        (score,) = experiment.benchmark.score([example], [prediction])
        progress.advance(score.score)


def _examples(experiment: Experiment, model: LanguageModel) -> list[Example]:
    examples = experiment.benchmark.examples(model.prompts, experiment.seed)
    if not examples:
        raise DatasetError(
            f"benchmark {experiment.benchmark.name!r} has no example for "
            f"subset={experiment.benchmark.subset!r} and limit={experiment.benchmark.limit!r}"
        )
    ids = {example.id for example in examples}
    if len(ids) < len(examples):
        raise DatasetError(
            f"benchmark {experiment.benchmark.name!r}: {len(examples)} examples have only "
            f"{len(ids)} different ids"
        )
    return examples


def _log_what_is_left(examples: list[Example], pending: list[Example]) -> None:
    waiting = {example.id for example in pending}
    for task, group in groupby(examples, key=lambda example: example.task):
        of_task = list(group)
        left = sum(example.id in waiting for example in of_task)
        if left < len(of_task):
            logger.info(
                "%s: %d of %d examples already answered, %d to go",
                *(task, len(of_task) - left, len(of_task), left),
            )


def _deadline(timeout_minutes: float | None) -> Callable[[], None]:
    """A function that raises once the time is over; called between tokens."""
    if timeout_minutes is None:
        return lambda: None
    end = time.monotonic() + 60 * timeout_minutes

    def check() -> None:
        if time.monotonic() > end:
            raise ExperimentTimeout(
                f"timeout_minutes={timeout_minutes} is over; what was answered is kept, run again "
                "to go on (or raise timeout_minutes)"
            )

    return check
