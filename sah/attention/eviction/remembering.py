"""Remembers, while a context is prefilled, what evictors need."""

# B batch, H query heads, G key-value heads, Q queries, K keys, D head dimension

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from sah.attention.eviction.attention_calls import AttentionCalls
from sah.attention.eviction.received import received_attention
from sah.attention.eviction.rotary_calls import RotaryCalls
from sah.attention.eviction.witness import Witness, Witnessed
from sah.attention.interface import (
    attention_function,
    attention_replaced,
    layer_number,
    mask_function,
)
from sah.attention.layers import full_attention_layers


@contextmanager
def remembering(model: PreTrainedModel, witness: Witness) -> Iterator[dict[int, Witnessed]]:
    """Remember what `witness` asks for, of each full-attention layer of the prefill in the block.

    The attention function in place, the model's own or that of a pattern, computes every output,
    with the arguments it would get without this.

    Yields:
        What was remembered, by layer; filled while the model reads the context.

    Raises:
        ConfigurationError: if the model's attention function cannot be found.
    """
    name = model.config.get_text_config(decoder=True)._attn_implementation
    found: dict[int, Witnessed] = {}
    layers = full_attention_layers(model.config)
    rotary = RotaryCalls(model) if witness.rotary or witness.future else None
    calls = AttentionCalls(model) if witness.calls else None

    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        **kwargs: Any,
    ) -> Any:
        number = layer_number(module)
        if number in layers:
            found[number] = _witnessed(module, query, key, witness, rotary, calls, kwargs)
        elif rotary is not None:
            rotary.forget()
        return attention_function(name, module)(module, query, key, value, attention_mask, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(attention_replaced(model, attend, mask_function(name)))
        for recorder in (rotary, calls):
            if recorder is not None:
                stack.enter_context(recorder.recorded())
        yield found


def _witnessed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    witness: Witness,
    rotations: RotaryCalls | None,
    calls: AttentionCalls | None,
    keywords: dict[str, Any],
) -> Witnessed:
    scaling = keywords.get("scaling")
    scaling = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    softcap, sinks = keywords.get("softcap"), keywords.get("s_aux")
    length = query.shape[2]
    ahead = max((asked.positions for asked in witness.future), default=0)
    rotated = None if rotations is None else rotations.take(module, query, length + ahead)
    rotary, future = None, {}
    if rotated is not None:
        unrotated, rotary = rotated
        future = {asked: rotary.future(unrotated, asked) for asked in witness.future}
    return Witnessed(
        module=module,
        key_shape=(key.shape[1], key.shape[3]),
        scaling=scaling,
        softcap=softcap,
        sinks=sinks,
        queries=query[:, :, max(0, length - witness.last_queries) :].clone(),
        received=received_attention(query, key, scaling=scaling, softcap=softcap, sinks=sinks)
        if witness.received
        else None,
        future=future,
        rotary=rotary if witness.rotary else None,
        call=None if calls is None else calls.take(module, query.device),
    )
