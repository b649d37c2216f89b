"""A model whose heads read a context by a mixture of full and streaming attention."""

# B batch, of one passage; H query heads, G key-value heads, L layers, C tokens of the context
# Q tokens after it, P of them predict a passkey's token; S sinks and recent keys; D head dimension

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sah.attention.interface import attention_replaced, layer_number
from sah.attention.keywords import check_keywords
from sah.attention.layers import full_attention_layers
from sah.calibration.passkeys import PasskeyPassage
from sah.errors import ConfigurationError
from sah.models.language_model import LanguageModel


@dataclass(frozen=True, kw_only=True)
class ReadPassage:
    """A passage as the full model reads it."""

    passage: PasskeyPassage
    key: Sequence[Float[Tensor, "B G C D"]]
    """Of the context, by layer; after the rotary embedding."""
    value: Sequence[Float[Tensor, "B G C D"]]
    hidden: Float[Tensor, "P hidden"]
    """Last hidden states of the tokens that predict a passkey's token."""


def require_gates(model: LanguageModel) -> None:
    """Check that every layer of a model can be read through gates.

    Raises:
        ConfigurationError: if a layer is local, or if the model takes no positions.
    """
    config = model.model.config
    layers = range(config.get_text_config(decoder=True).num_hidden_layers)
    local = sorted(set(layers) - full_attention_layers(config))
    if local:
        raise ConfigurationError(
            "duo_attention is calibrated where every layer attends to all earlier tokens, but the "
            f"layers {local} of {type(model.model).__name__} do not; choose another model"
        )
    if not model.accepts("position_ids"):
        raise ConfigurationError(
            f"duo_attention cannot be calibrated, as {type(model.model).__name__} does not accept "
            "position_ids; choose another model"
        )


@torch.no_grad()
def read_densely(model: LanguageModel, passage: PasskeyPassage) -> ReadPassage:
    """Read context and question with the model's own attention."""
    context = len(passage.context_ids)
    keys: list[Tensor] = []
    values: list[Tensor] = []

    def attend(
        module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **given: Any
    ) -> tuple[Tensor, None]:
        # Cloned, so that the keys of the question are not held in memory.
        keys.append(key[:, :, :context].clone())
        values.append(value[:, :, :context].clone())
        return _attention(module, query, key, value, mask, **given), None

    hidden = _last_hidden(model, attend, [*passage.context_ids, *passage.question_ids], 0)
    places = [context + position for position in passage.predicting]
    return ReadPassage(passage=passage, key=keys, value=values, hidden=hidden[places])


def read_through_gates(
    model: LanguageModel,
    read: ReadPassage,
    gates: Float[Tensor, "L G"],
    *,
    sinks: int,
    recent: int,
) -> Float[Tensor, "P hidden"]:
    """Read the question again, with heads that mix full and streaming attention by their gates.

    The output of a head is gate · full + (1 - gate) · streaming attention (arXiv:2410.10819, eq.
    1). Streaming attention reads the first `sinks` and the last `recent` keys of the context, and
    all keys after it, as the evictor DuoAttention leaves them. Gradients go to the gates.

    Returns:
        The last hidden states of the tokens that predict a passkey's token.
    """
    context, questions = len(read.passage.context_ids), len(read.passage.question_ids)
    # 1 1 Q C+Q: all of the context, and the question up to the query
    shape = (1, 1, questions, context + questions)
    visible = torch.ones(shape, dtype=torch.bool, device=model.device).tril(context)
    ends = [slice(0, sinks), slice(context - recent, context)]

    def attend(
        module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **given: Any
    ) -> tuple[Tensor, None]:
        layer = layer_number(module)
        before = read.key[layer], read.value[layer]
        whole = [torch.cat(both, dim=2) for both in zip(before, (key, value), strict=True)]
        streamed = [  # B G S+Q D
            torch.cat([*(held[:, :, end] for end in ends), after], dim=2)
            for held, after in zip(before, (key, value), strict=True)
        ]
        full, streaming = (
            _attention(module, query, keys, values, visible[..., -keys.shape[2] :], **given)
            for keys, values in (whole, streamed)
        )
        gate = gates[layer].repeat_interleave(query.shape[1] // key.shape[1])
        gate = gate.to(query.dtype)[:, None]  # H 1; outputs are B Q H D
        return gate * full + (1 - gate) * streaming, None

    hidden = _last_hidden(model, attend, read.passage.question_ids, context)
    return hidden[read.passage.predicting]


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    **given: Any,
) -> Float[Tensor, "B Q H D"]:
    scaling = given.pop("scaling", None)
    check_keywords(module, query.shape[2], mask, given)
    output: Tensor = sdpa_attention_forward(module, query, key, value, mask, scaling=scaling)[0]
    return output


def _last_hidden(
    model: LanguageModel, attend: Callable[..., Any], ids: Sequence[int], start: int
) -> Float[Tensor, "Q hidden"]:
    end = start + len(ids)
    with attention_replaced(model.model, attend, sdpa_mask), model.rope.of_length(end):
        output: Tensor = model.model.base_model(
            input_ids=torch.tensor([list(ids)], device=model.device),
            position_ids=torch.arange(start, end, device=model.device)[None],
            use_cache=False,
        )[0]
    return output[0]


@contextmanager
def frozen(model: LanguageModel) -> Iterator[None]:
    """Compute no gradients of the model's weights."""
    trained = [weight for weight in model.model.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)
