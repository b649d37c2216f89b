"""How an experiment runs: load, prefill each context, answer under each arm, score, complete."""

import functools
import logging
import operator
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from sah.attention import DenseAttention
from sah.attention.eviction.witness import Witness
from sah.attention.prefill.reading import OwnPrefill, SparsePrefill
from sah.attention.session import AttentionSession
from sah.errors import ConfigurationError, DatasetError, ends_process
from sah.execution.answering import (
    Question,
    by_context,
    context_hash,
    encode_context,
    inputs_of,
)
from sah.execution.arm import Arm
from sah.execution.teacher_forcing import DenseAnswer
from sah.metric_logging.metrics import DenseOutputs
from sah.models.generation import naming_example
from sah.models.language_model import LanguageModel, PrefilledContext
from sah.models.loading.kept_model import KeptModel
from sah.models.prompts import EncodedPrompt
from sah.results.aggregate import summarise
from sah.results.contents import describe_contents
from sah.results.excerpts import origins, shown
from sah.results.identity import model_key
from sah.results.provenance import device_name, load_per_core, provenance
from sah.results.schema import Provenance, Result
from sah.results.stored_lines import with_references
from sah.types import Example

logger = logging.getLogger(__name__)


def run(arms: Sequence[Arm], models: KeptModel) -> None:
    """Answer the pending examples of each arm, score all answers, and complete its results.

    Several arms, which differ only in sparse attention and metric logging, share the model and
    one prefill per context. Each attempt ends with `finish` or `fail`, independently of the
    others.

    Args:
        arms: at least one.
        models: where the model is loaded, or held from before.
    """
    # Asked at the start: a commit made while this runs is not the code that runs.
    started, code, load = datetime.now(UTC), provenance(), load_per_core()
    try:
        with _together(arms):
            load_started = time.perf_counter()
            model = models.load(arms[0].experiment.model, model_key(arms[0].config))
            load_seconds = time.perf_counter() - load_started
            examples = _examples(arms[0], model)
            contexts = _contexts_if_matched(arms, model, examples)
        for arm in arms:
            arm.memory.bytes = models.with_loading(arm.memory.bytes)
        if not _at_work(arms):
            return
        if model.prompts.marks is not None:
            logger.info(
                "a thought before an answer ends at %r and is not scored; model.thinking=null "
                "scores all that the model writes",
                model.prompts.marks.end,
            )
        made_by = _made_by(model, code) | {"load_per_core": load}
        for arm in arms:
            with arm.alone():
                _require_untouched(arm, contexts)
                arm.begin(model, examples, made_by=made_by, alone=len(arms) == 1)
        saved_seconds = 0.0
        for group in by_context(examples):
            saved_seconds += _answer_context(arms, model, group)
        if saved_seconds:
            logger.info(
                "%d arms shared their prefills: %.1f s saved over separate runs",
                *(len(arms), saved_seconds),
            )
        for arm in _at_work(arms):
            with arm.alone():
                _complete(
                    arm, model, examples, code=code, started=started, load_seconds=load_seconds
                )
    finally:
        for arm in arms:
            arm.end_attempt()


def _answer_context(arms: Sequence[Arm], model: LanguageModel, examples: list[Example]) -> float:
    """Prefill one context for the arms that need it, and let each answer its questions.

    Arms that read the context alike share a prefill; one prefilled context at a time is in memory.

    Returns:
        The seconds of prefill that sharing saved over separate runs.
    """
    _check_answered(arms, model, examples)
    for arm in _with_questions(arms, examples):
        with arm.alone():
            arm.clock.check()
    waiting = _with_questions(arms, examples)
    if not waiting:
        return 0.0
    context = None
    with _together(waiting):
        groups = _by_prefill(waiting, model)
        encoded = encode_context(waiting[0].experiment, model.prompts, examples)
        if waiting[0].experiment.protocol.answer == "forced":
            # The dense answer, which every arm follows, is the answer after a dense prefill.
            context = _prefill(groups.get(None, []), model, encoded, None)
        asked = {example.id for arm in waiting for example in arm.pending(examples)}
        questions = _questions(waiting[0], model, context, examples, encoded, asked)
    if not _at_work(waiting):
        return 0.0
    saved_seconds = 0.0
    for sparse, group in groups.items():
        if sparse is not None:
            context = None
        group = _at_work(group)
        if group and context is None:
            with _together(group):
                context = _prefill(group, model, encoded, sparse)
            group = _at_work(group)
        if context is not None:
            saved_seconds += _answer_in_turn(group, model, context, questions, examples)
    return saved_seconds


def _by_prefill(
    arms: Sequence[Arm], model: LanguageModel
) -> dict[SparsePrefill | OwnPrefill | None, list[Arm]]:
    """Group arms that read contexts alike; first those that use the model's own attention."""
    groups: dict[SparsePrefill | OwnPrefill | None, list[Arm]] = {}
    for arm in arms:
        groups.setdefault(arm.sparse_prefill(model), []).append(arm)
    return dict(sorted(groups.items(), key=lambda item: item[0] is not None))


def _answer_in_turn(
    arms: Sequence[Arm],
    model: LanguageModel,
    context: PrefilledContext,
    questions: Mapping[str, Question],
    examples: Sequence[Example],
) -> float:
    """Let each arm answer its questions of a context; return the seconds that sharing saved."""
    shared = DenseOutputs() if len(arms) > 1 else None
    for number, arm in enumerate(arms):
        with arm.alone():
            arm.answer_context(
                model,
                context,
                [questions[example.id] for example in arm.pending(examples)],
                prefill_is_shared=number > 0,
                dense_outputs=shared,
            )
    return context.seconds * max(0, len(arms) - 1)


def _check_answered(arms: Sequence[Arm], model: LanguageModel, examples: list[Example]) -> None:
    """Fail the resumed arms whose stored answers are to other prompts under the same ids."""
    resumed = [arm for arm in _at_work(arms) if len(arm.pending(examples)) < len(examples)]
    if not resumed:
        return
    with _together(resumed):
        experiment = resumed[0].experiment
        prompts, _ = encode_context(experiment, model.prompts, examples)
        inputs = {
            example.id: inputs_of(experiment, example, prompt)
            for example, prompt in zip(examples, prompts, strict=True)
        }
    for arm in _at_work(resumed):
        with arm.alone():
            arm.store.check_inputs(inputs)


def _prefill(
    arms: Sequence[Arm],
    model: LanguageModel,
    encoded: tuple[list[EncodedPrompt], list[int]],
    sparse: SparsePrefill | OwnPrefill | None,
) -> PrefilledContext:
    """Prefill the context of some prompts, with room for their answers, for these arms."""
    longest = max(len(prompt.question_ids) + room for prompt, room in zip(*encoded, strict=True))
    return model.prefill(
        encoded[0][0].context_ids,
        reserve_tokens=longest,
        witness=_witness(arms),
        sparse=sparse,
    )


def _questions(
    arm: Arm,
    model: LanguageModel,
    dense: PrefilledContext | None,
    examples: Sequence[Example],
    encoded: tuple[list[EncodedPrompt], list[int]],
    asked: Collection[str],
) -> dict[str, Question]:
    """Return the asked questions of a context by id, with the answers to follow.

    Args:
        arm: any of the job's; they ask the same.
        model: the one that answers.
        dense: the context after a dense prefill, if the answers are to be followed.
        examples: of the context.
        encoded: their prompts.
        asked: ids of examples.
    """
    return {
        example.id: Question(
            example=example,
            prompt=prompt,
            dense_answer=None
            if dense is None or example.is_continuation
            else _dense_answer(arm, model, dense, example, prompt),
        )
        for example, prompt in zip(examples, encoded[0], strict=True)
        if example.id in asked
    }


def _witness(arms: Sequence[Arm]) -> Witness | None:
    """Return what the evictors and rewriters of the arms need of the prefill together."""
    needed = [arm.witness for arm in arms if arm.witness is not None]
    return functools.reduce(operator.or_, needed) if needed else None


def _dense_answer(
    arm: Arm,
    model: LanguageModel,
    context: PrefilledContext,
    example: Example,
    prompt: EncodedPrompt,
) -> DenseAnswer:
    """Decode the dense answer, once for all arms, the dense one included."""
    generation, seed = arm.experiment.generation, arm.experiment.seed
    dense_answer = DenseAnswer(generation.sampler(seed, example.id, model.device))
    with naming_example(example.id):
        model.answer(
            context,
            prompt.question_ids,
            session=AttentionSession(DenseAttention(), seed=seed),
            sampler=dense_answer,
            max_new_tokens=generation.token_limit(example.max_new_tokens),
            thinking=model.prompts.thinking(prompt, generation.thinking_tokens),
        )
    return dense_answer


def _complete(
    arm: Arm,
    model: LanguageModel,
    examples: Sequence[Example],
    *,
    code: Mapping[str, Any],
    started: datetime,
    load_seconds: float,
) -> None:
    """Score an arm's answers and write its results."""
    experiment = arm.experiment
    predictions = [arm.store.predictions[example.id] for example in examples]
    scores = with_references(experiment.benchmark.score(examples, predictions), examples)
    arm.store.write_examples([shown(example) for example in examples])
    result = Result(
        directory=arm.store.directory,
        fingerprint=arm.store.fingerprint,
        model=experiment.model.name,
        attention=experiment.sparse_attention.name,
        benchmark=experiment.benchmark.name,
        subset=experiment.benchmark.subset,
        protocol=experiment.protocol.name,
        cache_bytes_per_token=model.cache_bytes_per_token,
        own_indexer=_own_indexer(arm, model),
        **vars(summarise(predictions, scores, load_seconds=load_seconds)),
        provenance=Provenance(
            **{**code, **_made_by(model, code)},
            **_starts(arm.store.starts()),
            data=origins(examples),
            content=describe_contents(arm.store.config),
            peak_memory_bytes=arm.memory.bytes,
            started=started.isoformat(),
            finished=datetime.now(UTC).isoformat(),
        ),
        config=arm.store.config,
    )
    arm.finish(arm.store.complete(result, scores))


def _own_indexer(arm: Arm, model: LanguageModel) -> Literal["on", "off"] | None:
    if not model.has_indexer:
        return None
    return "on" if arm.experiment.sparse_attention.uses_indexer else "off"


def _made_by(model: LanguageModel, code: Mapping[str, Any]) -> dict[str, Any]:
    """Code, libraries and device; where they differ between two starts, answers may differ too."""
    return {
        "git_commit": code["git_commit"],
        "git_dirty": code["git_dirty"],
        "versions": code["versions"],
        "model_commit": model.commit,
        "device": device_name(model.device),
        "dtype": str(model.model.dtype).removeprefix("torch."),
    }


def _starts(starts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Count the starts, find the highest load, and list code and devices where they differ."""
    loads = [start["load_per_core"] for start in starts if start.get("load_per_core") is not None]
    # Content is the same in one directory, whatever its path and date.
    ignored = ("typed", "content", "load_per_core")
    differing = [key for key in (starts[0] if starts else ()) if key not in ignored]
    made_by = [{key: start.get(key) for key in differing} for start in starts]
    different = [one for n, one in enumerate(made_by) if one not in made_by[:n]]
    return {
        "starts": len(starts),
        "answered_by": different if len(different) > 1 else None,
        "load_per_core": max(loads, default=None),
    }


def _examples(arm: Arm, model: LanguageModel) -> list[Example]:
    benchmark = arm.experiment.benchmark
    examples = benchmark.examples(model.prompts, arm.experiment.seed)
    if not examples:
        raise DatasetError(
            f"benchmark {benchmark.name!r} has no example for subset={benchmark.subset!r} and "
            f"limit={benchmark.limit!r}"
        )
    (repeated, times), *_ = Counter(example.id for example in examples).most_common(1)
    if times > 1:
        ids = len({example.id for example in examples})
        raise DatasetError(
            f"benchmark {benchmark.name!r}: {len(examples)} examples have only {ids} different "
            f"ids; {times} of them have the id {repeated!r}: give each its own"
        )
    return examples


def _contexts_if_matched(
    arms: Sequence[Arm], model: LanguageModel, examples: Sequence[Example]
) -> dict[str, str]:
    """Return the hash of each example's context by id; nothing if no budget was matched."""
    if all(arm.matched is None for arm in arms):
        return {}
    found = {}
    for group in by_context(examples):
        prompts, _ = encode_context(arms[0].experiment, model.prompts, group)
        for example, prompt in zip(group, prompts, strict=True):
            found[example.id] = context_hash(example, prompt)
    return found


def _require_untouched(arm: Arm, contexts: Mapping[str, str]) -> None:
    """Check that no context was in the tuning split of the arm's budget."""
    seen = set() if arm.matched is None else set(arm.matched.contexts)
    tuned = [example for example, context in contexts.items() if context in seen]
    if tuned:
        raise ConfigurationError(
            f"sparse_attention={arm.experiment.sparse_attention.name} was matched on the context "
            f"of {len(tuned)} of these examples (the first is {tuned[0]}), so that they cannot "
            "measure it; run `sah match` with the benchmark, limit and seeds that are measured, or "
            "measure other seeds"
        )


@contextmanager
def _together(arms: Sequence[Arm]) -> Iterator[None]:
    """Do work that several arms share: time, memory and failure count for each of them."""
    with ExitStack() as measured:
        for arm in arms:
            measured.enter_context(arm.clock.running())
            measured.enter_context(arm.memory.measured())
        try:
            yield
        except Exception as error:
            if ends_process(error):
                raise
            for arm in arms:
                arm.fail(error)


def _at_work(arms: Sequence[Arm]) -> list[Arm]:
    return [arm for arm in arms if arm.is_at_work]


def _with_questions(arms: Sequence[Arm], examples: Sequence[Example]) -> list[Arm]:
    return [arm for arm in _at_work(arms) if arm.pending(examples)]
