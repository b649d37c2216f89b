"""Checks of the model's numbers and of the chosen attention."""

from sah.attention import DenseAttention
from sah.attention.session import AttentionSession
from sah.doctor.finding import Finding, error, ok
from sah.errors import ConfigurationError, SahError
from sah.execution.experiment import Experiment
from sah.models import gate
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
    """Check that the chosen attention answers; report its density on this benchmark's context."""
    attention = experiment.sparse_attention
    if isinstance(attention, DenseAttention):
        return ok("attention", "dense: the model's own attention")
    session = AttentionSession(attention, seed=experiment.seed)
    try:
        session.check(model.model.config)
        context = model.prefill(prompt.context_ids, reserve_tokens=len(prompt.question_ids) + 2)
        session.begin_context(context.length)
        session.begin_example("doctor")
        model.answer(
            context,
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
    shown = "not measured" if density is None else f"{density:.3f}"
    tokens = len(prompt.context_ids)
    return ok("attention", f"{attention.name}: density {shown} on a context of {tokens} tokens")
