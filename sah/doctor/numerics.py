"""Checks of the model's numbers and of the chosen attention."""

from dataclasses import replace

from sah.attention import DenseAttention
from sah.attention.prefill.reading import SparsePrefill
from sah.attention.session import AttentionSession
from sah.doctor.eviction_check import difference_from_masked
from sah.doctor.finding import Finding, error, ok
from sah.doctor.prefill_check import difference_from_masked_prefill
from sah.errors import ConfigurationError, SahError
from sah.execution.experiment import Experiment
from sah.models import gate
from sah.models.eviction import evicted
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel
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
        return ok("attention", "dense: the model's own attention")
    session = AttentionSession(attention.after_context, seed=experiment.seed)
    distance, prefill_distance, held = 0.0, 0.0, ""
    try:
        attention.check(model.model.config)
        own = context = model.prefill(
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
        if attention.witness is not None:
            own = evicted(context, attention, model.model.config, seed=experiment.seed)
            held += f", {own.cache.bytes_held() / context.cache.bytes_held():.3f} of the cache held"
        if attention.evictor is not None:
            exact = replace(attention, rewrite={})
            compacted = evicted(context, exact, model.model.config, seed=experiment.seed)
            distance = difference_from_masked(model, exact, context, compacted, prompt)
        session.begin_context(own.length, own.kept)
        session.begin_example("doctor")
        model.answer(
            own,
            prompt.question_ids,
            session=session,
            sampler=Generation().sampler(0, "doctor", model.device),
            max_new_tokens=2,
            dense_question=experiment.protocol.question == "dense",
        )
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
        "attention", f"{attention.name}: density {shown} on a context of {tokens} tokens{held}"
    )
