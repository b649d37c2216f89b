"""Checks of the model's numbers and of the chosen attention."""

from collections.abc import Sequence
from dataclasses import replace

from sah.attention import DenseAttention, SparseAttention
from sah.attention.prefill.reading import SparsePrefill
from sah.attention.session import AttentionSession
from sah.doctor.eviction_check import difference_from_masked
from sah.doctor.finding import Finding, error, ok
from sah.doctor.prefill_check import difference_from_masked_prefill
from sah.errors import ConfigurationError, SahError
from sah.execution.experiment import Experiment
from sah.execution.keeping import Keeping
from sah.models import gate
from sah.models.eviction import evicted
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel, PrefilledContext
from sah.models.prompts import EncodedPrompt


def check_numbers(model: LanguageModel) -> list[Finding]:
    """Check the model's own numbers: cached contexts, sparse attention with all keys, density."""
    findings = []
    try:
        for name, message in gate.checks(model):
            findings.append(ok(name, message))
    except ConfigurationError as problem:
        findings.append(error("model", str(problem), "choose another model"))
    return findings


def check_attention(experiment: Experiment, model: LanguageModel, prompt: EncodedPrompt) -> Finding:
    """Check that the chosen attention answers; report its density on this benchmark's context.

    With an evictor, also that the compacted cache, before any rewriting, answers as if the evicted
    keys were masked. With a pattern, also that it gives the logits of masked attention.
    """
    attention = experiment.sparse_attention
    if isinstance(attention, DenseAttention):
        return ok("attention", f"dense: the model's own attention{_indexer(attention, model)}")
    session = AttentionSession(attention.after_context, seed=experiment.seed)
    keeping = Keeping(experiment, session)
    distance, prefill_distance, held = 0.0, 0.0, ""
    try:
        attention.check(model.model.config)
        context = model.prefill(
            prompt.context_ids,
            reserve_tokens=len(prompt.question_ids) + 2,
            witness=attention.witness,
            sparse=SparsePrefill.of(attention, model.model.config, seed=experiment.seed),
        )
        if attention.pattern is not None and prompt.context_ids:
            prefill_distance = difference_from_masked_prefill(
                model, attention, prompt.context_ids, seed=experiment.seed
            )
            held = f", prefill density {context.prefill_density:.3f}"
        own = keeping.begin(model, context, prompt)
        if attention.evictor is not None:
            distance = _difference_from_masked(experiment, model, context, prompt.question_ids)
        session.begin_example("doctor")
        model.answer(
            own,
            prompt.question_ids,
            session=session,
            sampler=Generation().sampler(0, "doctor", model.device),
            max_new_tokens=2,
            dense_question=experiment.protocol.question == "dense",
            after_question=keeping.after_question(model),
        )
        if attention.witness is not None:
            held = f", {keeping.share:.3f} of the cache held"
        density = session.density()
    except (SahError, ValueError) as problem:
        return error(
            "attention", f"{attention.name}: {problem}", "change the settings that it names"
        )
    if distance > gate.tolerance(model):
        return error(
            "attention",
            f"{attention.name}: without the evicted keys, the logits differ by {distance:.2g} from "
            "those with these keys masked",
            "choose another model, or an attention that evicts nothing",
        )
    if prefill_distance > gate.tolerance(model):
        return error(
            "attention",
            f"{attention.name}: under its pattern, the logits of the context differ by "
            f"{prefill_distance:.2g} from those with the other keys masked",
            "choose another model, or an attention without a pattern",
        )
    shown = "not measured" if density is None else f"{density:.3f}"
    tokens = len(prompt.context_ids)
    return ok(
        "attention",
        f"{attention.name}: density {shown} on a context of {tokens} tokens{held}"
        f"{_indexer(attention, model)}",
    )


def _indexer(attention: DenseAttention | SparseAttention, model: LanguageModel) -> str:
    if not model.has_indexer:
        return ""
    return f"; the model's own indexer is {'on' if attention.uses_indexer else 'off'}"


def _difference_from_masked(
    experiment: Experiment, model: LanguageModel, context: PrefilledContext, question: Sequence[int]
) -> float:
    """Compare the compacted cache, not rewritten, with the masked one on the question.

    If the keys are evicted after a dense question, on its last token once more.
    """
    attention, seed = experiment.sparse_attention, experiment.seed
    assert isinstance(attention, SparseAttention)
    assert attention.witness is not None
    exact = replace(attention, rewrite={})
    read, whole = question, context
    if experiment.protocol.question == "dense":
        whole, _ = model.prefill_question(context, question, witness=attention.witness)
        read = question[-1:]
    try:
        own = evicted(whole, exact, model.model.config, seed=seed)
        return difference_from_masked(model, exact, whole, own, read)
    finally:
        context.cache.rewind()
