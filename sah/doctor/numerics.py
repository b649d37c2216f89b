"""Checks of the model's numbers: positions, full budget against dense, the chosen attention."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sah.attention import DenseAttention, SparseAttention
from sah.attention.session import AttentionSession
from sah.doctor.finding import Finding, error, ok
from sah.errors import SahError
from sah.execution.experiment import Experiment
from sah.maskers.causal import Causal
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel, PrefilledContext
from sah.models.prompts import EncodedPrompt

# Enough tokens for positions to matter, few enough to take only seconds on a CPU.
_CONTEXT, _QUESTION = 256, 64

_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
_HALF_PRECISION = 0.05


@torch.inference_mode()
def check_positions(model: LanguageModel, prompt: EncodedPrompt) -> Finding:
    """Check that a question after a cached context has the logits of the whole prompt."""
    context_ids, question_ids = _short(prompt)
    context = model.prefill(context_ids, reserve_tokens=len(question_ids))
    split = _logits(model, context, question_ids)
    context.cache.rewind()
    again = _logits(model, context, question_ids)
    whole = model.model(
        input_ids=torch.tensor([[*context_ids, *question_ids]], device=model.device),
        logits_to_keep=1,
    ).logits[:, -1]
    if not torch.equal(split, again):
        return error(
            "positions",
            "the same question about one context has different logits the second time: the cache "
            "does not rewind",
            "this model's cache is not supported; please report it with the model's name",
        )
    distance = _distance(split, whole)
    if distance > _tolerance(model):
        return error(
            "positions",
            "after a cached context the logits differ from those of the whole prompt by "
            f"{distance:.2g} of their norm",
            "the model does not derive positions from its cache; please report it with the "
            "model's name",
        )
    message = f"cached context and whole prompt agree (relative difference {distance:.1g})"
    return ok("positions", message)


@torch.inference_mode()
def check_full_budget(model: LanguageModel, prompt: EncodedPrompt) -> Finding:
    """Check that sparse attention that reads every key equals dense attention on this model."""
    context_ids, question_ids = _short(prompt)
    context = model.prefill(context_ids, reserve_tokens=len(question_ids) + 1)
    # The last token alone is a decode step, which is computed differently.
    parts = (question_ids[:-1], question_ids[-1:]) if len(question_ids) > 1 else (question_ids,)
    dense = [_logits(model, context, part) for part in parts]
    context.cache.rewind()
    session = AttentionSession(SparseAttention(name="doctor", maskers={"all": Causal()}), seed=0)
    session.begin_context(context.length)
    session.begin_example("doctor")
    try:
        with session.attached(model.model):
            sparse = [_logits(model, context, part) for part in parts]
        density = session.density()
    except SahError as problem:
        return error("full budget", str(problem), "choose a model with full-attention layers")
    distance = max(_distance(one, other) for one, other in zip(sparse, dense, strict=True))
    if distance > _tolerance(model):
        return error(
            "full budget",
            "sparse attention that reads every key differs from dense attention by "
            f"{distance:.2g} of the logits' norm",
            "do not trust sparse results of this model; please report it with the model's name",
        )
    measured = f"relative difference {distance:.1g}, density {density:.3f}"
    return ok("full budget", f"equals dense attention ({measured})")


def check_attention(experiment: Experiment, model: LanguageModel, prompt: EncodedPrompt) -> Finding:
    """Check that the chosen attention answers; report its density on this benchmark's context."""
    attention = experiment.sparse_attention
    if isinstance(attention, DenseAttention):
        return ok("attention", "dense: the model's own attention")
    session = AttentionSession(attention, seed=experiment.seed)
    context = model.prefill(prompt.context_ids, reserve_tokens=len(prompt.question_ids) + 2)
    session.begin_context(context.length)
    session.begin_example("doctor")
    try:
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


def _short(prompt: EncodedPrompt) -> tuple[list[int], list[int]]:
    return prompt.context_ids[:_CONTEXT], prompt.question_ids[-_QUESTION:]


def _logits(model: LanguageModel, context: PrefilledContext, ids: Sequence[int]) -> Tensor:
    logits: Tensor = model.model(
        input_ids=torch.tensor([list(ids)], device=model.device),
        past_key_values=context.cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits
    return logits[:, -1]


def _distance(one: Tensor, other: Tensor) -> float:
    one, other = one.double(), other.double()
    return float((one - other).norm() / other.norm())


def _tolerance(model: LanguageModel) -> float:
    return _TOLERANCE.get(model.model.dtype, _HALF_PRECISION)
