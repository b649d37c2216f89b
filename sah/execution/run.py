"""How an experiment runs: load, prefill each context, answer under each arm, score, complete."""

import functools
import logging
import operator
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from sah.attention import DenseAttention
from sah.attention.eviction.witness import Witness
from sah.attention.prefill.reading import OwnPrefill, SparsePrefill
from sah.attention.session import AttentionSession
from sah.errors import ConfigurationError, DatasetError, ends_process
from sah.execution.answering import Question, context_hash, inputs_of
from sah.execution.arm import Arm
from sah.execution.grouping import Group, encoded_contexts, grouped
from sah.execution.teacher_forcing import DenseAnswer
from sah.metric_logging.metrics import DenseOutputs
from sah.models.batch import Row, answer_rows
from sah.models.language_model import LanguageModel, PrefilledContext
from sah.results.aggregate import summarise
from sah.results.contents import describe_contents
from sah.results.excerpts import origins, shown
from sah.results.provenance import device_name, load_per_core, provenance
from sah.results.schema import Provenance, Result
from sah.results.stored_lines import with_references
from sah.types import Example

logger = logging.getLogger(__name__)


def run(arms: Sequence[Arm]) -> None:
    """Answer the pending examples of each arm, score all answers, and complete its results.

    Several arms, which differ only in sparse attention and metric logging, share the model and
    one prefill per context. Each attempt ends with `finish` or `fail`, independently of the
    others.
    """
    # Asked at the start: a commit made while this runs is not the code that runs.
    started, code, load = datetime.now(UTC), provenance(), load_per_core()
    try:
        with _together(arms):
            load_started = time.perf_counter()
            model = arms[0].experiment.model.load()
            load_seconds = time.perf_counter() - load_started
            examples = _examples(arms[0], model)
            contexts = _contexts_if_matched(arms, model, examples)
            groups = _groups(arms, model, examples)
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
        saved_seconds = sum(_answer_group(arms, model, group) for group in groups)
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


def _groups(
    arms: Sequence[Arm], model: LanguageModel, examples: Sequence[Example]
) -> Iterator[Group]:
    """Group contexts as long as an arm is at work; prompts that cannot be encoded fail all."""
    experiment = arms[0].experiment
    groups = grouped(
        encoded_contexts(experiment, model.prompts, examples),
        batch_rows=1 if model.decodes_alone else experiment.generation.batch_rows,
        batch_tokens=experiment.generation.batch_tokens,
    )
    while at_work := _at_work(arms):
        group = None
        with _together(at_work):
            group = next(groups, None)
        if group is None:
            return
        yield group


def _answer_group(arms: Sequence[Arm], model: LanguageModel, group: Group) -> float:
    """Prefill some contexts for the arms that need them, and let each answer its questions.

    Arms that read contexts alike share their prefills; only those of one kind are in memory.

    Returns:
        The seconds of prefill that sharing saved over separate runs.
    """
    _check_answered(arms, group)
    for arm in _with_questions(arms, group.examples):
        with arm.alone():
            arm.clock.check()
    waiting = _with_questions(arms, group.examples)
    if not waiting:
        return 0.0
    contexts: list[PrefilledContext] = []
    with _together(waiting):
        by_prefill = _by_prefill(waiting, model)
        questions = _questions(group)
        if waiting[0].experiment.protocol.answer == "forced":
            # The dense answer, which every arm follows, is the answer after a dense prefill.
            contexts = _prefill(by_prefill.get(None, []), model, group, None)
            asked = {example.id for arm in waiting for example in arm.pending(group.examples)}
            questions = _with_dense_answers(waiting[0], model, contexts, questions, asked)
    if not _at_work(waiting):
        return 0.0
    saved_seconds = 0.0
    for sparse, sharing in by_prefill.items():
        if sparse is not None:
            contexts = []
        sharing = _at_work(sharing)
        if sharing and not contexts:
            with _together(sharing):
                contexts = _prefill(sharing, model, group, sparse)
            sharing = _at_work(sharing)
        if contexts:
            saved_seconds += _answer_in_turn(sharing, model, contexts, questions)
    return saved_seconds


def _questions(group: Group) -> list[list[tuple[int, Question]]]:
    """Return the questions of each batch, with the number of their context."""
    return [
        [
            (
                number,
                Question(
                    example=group.contexts[number].examples[place],
                    prompt=group.contexts[number].prompts[place],
                ),
            )
            for number, place in batch
        ]
        for batch in group.batches
    ]


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
    contexts: Sequence[PrefilledContext],
    batches: Sequence[Sequence[tuple[int, Question]]],
) -> float:
    """Let each arm answer its questions; return the seconds that sharing the prefills saved."""
    shared = [DenseOutputs() if len(arms) > 1 else None for _ in contexts]
    for number, arm in enumerate(arms):
        with arm.alone():
            arm.answer_group(
                model, contexts, batches, prefill_is_shared=number > 0, dense_outputs=shared
            )
    return sum(context.seconds for context in contexts) * max(0, len(arms) - 1)


def _check_answered(arms: Sequence[Arm], group: Group) -> None:
    """Fail the resumed arms whose stored answers are to other prompts under the same ids."""
    for arm in _at_work(arms):
        if len(arm.pending(group.examples)) < len(group.examples):
            with arm.alone():
                arm.store.check_inputs(
                    {
                        example.id: inputs_of(arm.experiment, example, prompt)
                        for asked in group.contexts
                        for example, prompt in zip(asked.examples, asked.prompts, strict=True)
                    }
                )


def _prefill(
    arms: Sequence[Arm],
    model: LanguageModel,
    group: Group,
    sparse: SparsePrefill | OwnPrefill | None,
) -> list[PrefilledContext]:
    """Prefill contexts, with room for a question and its answer each, for these arms."""
    return [
        model.prefill(
            asked.context_ids,
            reserve_tokens=asked.reserve_tokens,
            witness=_witness(arms),
            sparse=sparse,
        )
        for asked in group.contexts
    ]


def _witness(arms: Sequence[Arm]) -> Witness | None:
    """Return what the evictors and rewriters of the arms need of the prefill together."""
    needed = [arm.experiment.witness for arm in arms if arm.experiment.witness is not None]
    return functools.reduce(operator.or_, needed) if needed else None


def _with_dense_answers(
    arm: Arm,
    model: LanguageModel,
    contexts: Sequence[PrefilledContext],
    batches: Sequence[Sequence[tuple[int, Question]]],
    asked: Collection[str],
) -> list[list[tuple[int, Question]]]:
    """Decode the dense answers that all arms follow, the dense arm included.

    Args:
        arm: any of the job's; they ask the same.
        model: the one that answers.
        contexts: after a dense prefill.
        batches: as `Arm.answer_group` takes them.
        asked: ids of the examples that an arm is to answer; batches without one are left out.
    """
    generation, seed = arm.experiment.generation, arm.experiment.seed
    found = []
    for batch in batches:
        if not any(question.example.id in asked for _, question in batch):
            continue
        followed, rows = [], []
        for number, question in batch:
            example = question.example
            if not example.is_continuation:
                answer = DenseAnswer(generation.sampler(seed, example.id, model.device))
                question = replace(question, dense_answer=answer)
                rows.append(
                    Row(
                        example_id=example.id,
                        context=contexts[number],
                        question_ids=question.prompt.question_ids,
                        session=AttentionSession(DenseAttention(), seed=seed),
                        sampler=answer,
                        max_new_tokens=generation.token_limit(example.max_new_tokens),
                        thinking=model.prompts.thinking(
                            question.prompt, generation.thinking_tokens
                        ),
                    )
                )
            followed.append((number, question))
        if rows:
            answer_rows(model, rows)
        found.append(followed)
    return found


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
    return {
        example.id: context_hash(example, prompt)
        for asked in encoded_contexts(arms[0].experiment, model.prompts, examples)
        for example, prompt in zip(asked.examples, asked.prompts, strict=True)
    }


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
