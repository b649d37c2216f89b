"""Training of DuoAttention's gates: which heads need the whole context, and which may stream."""

# L layers, G key-value heads, P tokens that predict a passkey's token

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sah.calibration.gated_attention import (
    ReadPassage,
    frozen,
    read_densely,
    read_through_gates,
    require_gates,
)
from sah.calibration.passkeys import MOST_PASSKEYS, PasskeyPassage, passkey_passages
from sah.errors import ConfigurationError
from sah.evictors.streaming.head_scores import lowest_of
from sah.models.language_model import LanguageModel
from sah.models.prompts import PromptEncoder
from sah.seeding import derive
from sah.validation import check_types

logger = logging.getLogger(__name__)

# One passage in five is held out to measure how much of its passkeys is retrieved.
_HELD_OUT = 5

# Share of the heads that stream in this measurement; the evictor's default.
_STREAMING = 0.5


@dataclass(frozen=True, kw_only=True)
class GateTraining:
    """Settings for training the gates (arXiv:2410.10819, section 2.2).

    Adam minimises the squared distance of the last hidden states to those of the full model, at
    the tokens that predict a passkey, plus `regularisation` times the mean gate. Gates start at 1
    and are clipped to [0, 1]; the learning rate rises in the first fifth of the steps and falls in
    the last fifth.

    Deviations from the paper, all so that training sees what the evictor does: full attention
    prefills the context, and only question and answer are read through gates; recent keys are the
    last ones of the context and do not move on with the answer.

    Deviations from the authors' code: the full attention of a head reads the keys of the gated
    model, as in the paper's equation, not those of the full model. Tokens of questions do not
    count. Steps are fewer, texts and passkeys shorter, and the learning rate is higher (theirs:
    2,000 steps at 0.02 on 1,000 to 32,000 tokens, with passkeys of 32 words), so that a small model
    is fitted in minutes on a CPU.
    """

    steps: int = 40
    """Steps of Adam, each on one passage."""
    learning_rate: float = 0.05
    regularisation: float = 0.05
    """Weight of the mean gate in the loss."""
    sinks: int = 128
    """First keys of the context that streaming attention reads."""
    recent: int = 256
    """Last keys of the context that streaming attention reads."""
    passkeys: int = 10
    """Passkeys hidden in a passage, at most 10."""
    passkey_words: int = 6
    """Words of a passkey."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("steps", "recent", "passkeys", "passkey_words"):
            if getattr(self, name) < 1:
                raise ValueError(f"GateTraining: {name} must be at least 1, got {vars(self)[name]}")
        for name in ("sinks", "regularisation"):
            if getattr(self, name) < 0:
                raise ValueError(f"GateTraining: {name} must be at least 0, got {vars(self)[name]}")
        if not self.learning_rate > 0:
            raise ValueError(
                f"GateTraining: learning_rate must be positive, got {self.learning_rate}"
            )
        if self.passkeys > MOST_PASSKEYS:
            raise ValueError(
                f"GateTraining: passkeys must be at most {MOST_PASSKEYS}, got {self.passkeys}"
            )

    def passages(
        self, prompts: PromptEncoder, *, text: str | None, tokens: int, passage_tokens: int
    ) -> list[PasskeyPassage]:
        """Hide passkeys in a text file, or in verses; see `passkey_passages`."""
        return passkey_passages(
            prompts,
            text=text,
            tokens=tokens,
            passage_tokens=passage_tokens,
            passkeys=self.passkeys,
            words=self.passkey_words,
            seed=self.seed,
        )


def trained_gates(
    model: LanguageModel, passages: Sequence[PasskeyPassage], training: GateTraining
) -> Float[Tensor, "L G"]:
    """Train a gate for every key-value head.

    The last fifth of the passages is held out; the share of its passkeys' tokens that the model
    retrieves with half of the heads streaming is logged.

    Returns:
        The gates in [0, 1]: near 1 where a head needs the whole context.

    Raises:
        ConfigurationError: if there are fewer than two passages, if they are too short, or if the
            model cannot be read through gates.
    """
    require_gates(model)
    _require_enough(passages, training)
    held_out = max(1, len(passages) // _HELD_OUT)
    learn = [read_densely(model, passage) for passage in passages[:-held_out]]
    measure = [read_densely(model, passage) for passage in passages[-held_out:]]
    with frozen(model):
        gates = _train(model, learn, training)
        _log_retrieved(model, measure, gates, training)
    return gates


def _require_enough(passages: Sequence[PasskeyPassage], training: GateTraining) -> None:
    if len(passages) < 2:
        raise ConfigurationError(
            "duo_attention needs at least two passages, as one is held out to measure retrieval; "
            "raise tokens or lower passage_tokens"
        )
    shortest = min(len(passage.context_ids) for passage in passages)
    kept = training.sinks + training.recent
    if shortest <= kept:
        raise ConfigurationError(
            f"duo_attention needs contexts of more than sinks + recent = {kept} tokens, but the "
            f"shortest has {shortest}; raise passage_tokens, or lower sinks or recent"
        )


def _train(
    model: LanguageModel, passages: Sequence[ReadPassage], training: GateTraining
) -> Float[Tensor, "L G"]:
    gates = torch.ones(len(passages[0].key), passages[0].key[0].shape[1], device=model.device)
    gates.requires_grad_()
    optimizer = torch.optim.Adam([gates], lr=training.learning_rate)
    ramp = max(1, training.steps // 5)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, max((step + 1) / ramp, 0.1), max((training.steps - step) / ramp, 0.1)),
    )
    draw = random.Random(derive(training.seed, "duo_attention", "steps"))
    order: list[ReadPassage] = []
    for step in range(1, training.steps + 1):
        order = order or draw.sample(passages, len(passages))
        read = order.pop()
        hidden = read_through_gates(
            model, read, gates, sinks=training.sinks, recent=training.recent
        )
        distance = (hidden.float() - read.hidden.float()).square().mean()
        optimizer.zero_grad()
        (distance + training.regularisation * gates.mean()).backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            gates.clamp_(0, 1)
        if not distance.isfinite():
            raise ConfigurationError(
                f"duo_attention: the hidden states of step {step} are not finite in "
                f"{hidden.dtype}; use model.dtype=float32"
            )
        if step % 10 == 0 or step == training.steps:
            logger.info(
                "step %d of %d: distance %.4f, mean gate %.3f",
                *(step, training.steps, distance.item(), gates.mean().item()),
            )
    return gates.detach()


def _log_retrieved(
    model: LanguageModel,
    passages: Sequence[ReadPassage],
    gates: Float[Tensor, "L G"],
    training: GateTraining,
) -> None:
    generator = torch.Generator().manual_seed(derive(training.seed, "duo_attention", "random"))
    shares = [_retrieved(model, passages, torch.ones_like(gates), training)]
    for scores in (gates, torch.rand(gates.shape, generator=generator), -gates):
        streams = torch.tensor(lowest_of(scores.tolist(), _STREAMING), device=gates.device)
        shares.append(_retrieved(model, passages, (~streams).float(), training))
    logger.info(
        "tokens of passkeys retrieved on %d held-out passages: %.2f by full attention; if half of "
        "the heads stream, %.2f (lowest gates), %.2f (random heads), %.2f (highest gates)",
        *(len(passages), *shares),
    )


@torch.no_grad()
def _retrieved(
    model: LanguageModel,
    passages: Sequence[ReadPassage],
    gates: Float[Tensor, "L G"],
    training: GateTraining,
) -> float:
    """Return the share of the passkeys' tokens that are the most likely ones after the others."""
    right: list[bool] = []
    for read in passages:
        hidden = read_through_gates(
            model, read, gates, sinks=training.sinks, recent=training.recent
        )
        chosen = model.model.get_output_embeddings()(hidden).argmax(-1).tolist()
        wanted = [read.passage.question_ids[place + 1] for place in read.passage.predicting]
        right += [token == other for token, other in zip(chosen, wanted, strict=True)]
    return sum(right) / len(right)
