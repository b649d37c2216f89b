"""The work that arms share: one prefill per context for those that read it alike."""

import functools
import operator
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from sah.attention import DenseAttention
from sah.attention.eviction.witness import Witness
from sah.attention.prefill.reading import OwnPrefill, SparsePrefill
from sah.attention.session import AttentionSession
from sah.errors import ends_process
from sah.execution.answering import Question, inputs_of
from sah.execution.arm import Arm
from sah.execution.groups.grouping import Group, encoded_contexts, grouped
from sah.execution.teacher_forcing import DenseAnswer
from sah.metric_logging.metrics import DenseOutputs
from sah.models.batch import Row, answer_rows
from sah.models.language_model import LanguageModel, PrefilledContext
from sah.types import Example


def groups_of(
    arms: Sequence[Arm], model: LanguageModel, examples: Sequence[Example]
) -> Iterator[Group]:
    """Group contexts as long as an arm is at work; prompts that cannot be encoded fail all."""
    experiment = arms[0].experiment
    groups = grouped(
        encoded_contexts(experiment, model.prompts, examples),
        batch_rows=1 if model.decodes_alone else experiment.generation.batch_rows,
        batch_tokens=experiment.generation.batch_tokens,
    )
    while working := at_work(arms):
        group = None
        with together(working):
            group = next(groups, None)
        if group is None:
            return
        yield group


def answer_group(arms: Sequence[Arm], model: LanguageModel, group: Group) -> float:
    """Prefill some contexts for the arms that need them, and let each answer its questions.

    Arms that read contexts alike share their prefills; only those of one kind are in memory.

    Returns:
        The seconds of prefill, repetitions of the context (KVzip) included, that sharing saved over
        separate runs.
    """
    _check_answered(arms, group)
    for arm in _with_questions(arms, group.examples):
        with arm.alone():
            arm.clock.check()
    waiting = _with_questions(arms, group.examples)
    if not waiting:
        return 0.0
    contexts: list[PrefilledContext] = []
    with together(waiting):
        by_prefill = _by_prefill(waiting, model)
        questions = _questions(group)
        if waiting[0].experiment.protocol.answer == "forced":
            # The dense answer, which every arm follows, is the answer after a dense prefill.
            contexts = _prefill(by_prefill.get(None, []), model, group, None)
            asked = {example.id for arm in waiting for example in arm.pending(group.examples)}
            questions = _with_dense_answers(waiting[0], model, contexts, questions, asked)
    if not at_work(waiting):
        return 0.0
    saved_seconds = 0.0
    for sparse, sharing in by_prefill.items():
        if sparse is not None:
            contexts = []
        sharing = at_work(sharing)
        if sharing and not contexts:
            with together(sharing):
                contexts = _prefill(sharing, model, group, sparse)
            sharing = at_work(sharing)
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
    return sum(_saved_seconds(arms, context) for context in contexts)


def _saved_seconds(arms: Sequence[Arm], context: PrefilledContext) -> float:
    """Return the seconds of one context's prefill and repetitions that sharing them saved."""
    saved = context.seconds * max(0, len(arms) - 1)
    for asked, found in context.reconstructions.items():
        witnesses = [arm.experiment.witness for arm in arms]
        sharing = [one for one in witnesses if one and asked in one.reconstructions]
        saved += found.seconds * (len(sharing) - 1)
    return saved


def _check_answered(arms: Sequence[Arm], group: Group) -> None:
    """Fail the resumed arms whose stored answers are to other prompts under the same ids."""
    examples = group.examples
    resumed = [arm for arm in at_work(arms) if len(arm.pending(examples)) < len(examples)]
    if not resumed:
        return
    inputs = {
        example.id: inputs_of(resumed[0].experiment, example, prompt)
        for asked in group.contexts
        for example, prompt in zip(asked.examples, asked.prompts, strict=True)
    }
    for arm in resumed:
        with arm.alone():
            arm.store.check_inputs(inputs)


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
            answer_rows(model, rows, stacked_tokens=generation.batch_tokens)
        found.append(followed)
    return found


@contextmanager
def together(arms: Sequence[Arm]) -> Iterator[None]:
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


def at_work(arms: Sequence[Arm]) -> list[Arm]:
    """Return the arms whose attempt is under way."""
    return [arm for arm in arms if arm.is_at_work]


def _with_questions(arms: Sequence[Arm], examples: Sequence[Example]) -> list[Arm]:
    return [arm for arm in at_work(arms) if arm.pending(examples)]
