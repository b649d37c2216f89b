"""Remembers, while a context or a question is read, what evictors need."""

# B batch, H query heads, G key-value heads, Q queries, W last ones, K keys, D head dimension

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

from sah.attention.eviction.attention_calls import AttentionCalls
from sah.attention.eviction.received import received_attention
from sah.attention.eviction.rotary import FutureQueries, Moments
from sah.attention.eviction.rotary_calls import RotaryCalls
from sah.attention.eviction.witness import Witness, Witnessed
from sah.attention.interface import attention_observed, layer_number, scaling_of
from sah.attention.layers import full_attention_layers


@contextmanager
def remembering(
    model: PreTrainedModel, witness: Witness, before: Mapping[int, Witnessed] | None = None
) -> Iterator[dict[int, Witnessed]]:
    """Remember what `witness` asks for, of each full-attention layer of the pass in the block.

    The attention function in place, the model's own or that of a pattern, computes every output,
    with the arguments it would get without this.

    Args:
        model: reads the tokens inside the block in one pass.
        witness: what to remember.
        before: of the tokens that are cached already, remembered by a witness that asks for at
            least as much; None if the cache is empty.

    Yields:
        What was remembered of the whole sequence, by layer; filled while the model reads.

    Raises:
        ConfigurationError: if the model's attention function cannot be found.
    """
    found: dict[int, Witnessed] = {}
    layers = full_attention_layers(model.config)
    rotary = RotaryCalls(model) if witness.rotary or witness.future else None
    calls = AttentionCalls(model) if witness.calls else None

    def observe(module: nn.Module, query: Tensor, key: Tensor, keywords: dict[str, Any]) -> None:
        number = layer_number(module)
        if number in layers:
            earlier = None if before is None else before.get(number)
            found[number] = _witnessed(
                module, query, key, witness, rotary, calls, keywords, earlier
            )
        elif rotary is not None:
            rotary.forget()

    with ExitStack() as stack:
        stack.enter_context(attention_observed(model, observe))
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
    before: Witnessed | None,
) -> Witnessed:
    """Return what is remembered after a call whose queries are the last ones of K keys."""
    scaling = scaling_of(query, keywords)
    softcap, sinks = keywords.get("softcap"), keywords.get("s_aux")
    length = key.shape[2]
    ahead = max((asked.positions for asked in witness.future), default=0)
    rotated = None if rotations is None else rotations.take(module, query, length + ahead)
    received = None
    if witness.received:
        received = received_attention(query, key, scaling=scaling, softcap=softcap, sinks=sinks)
    rotary, unrotated, future = None, {}, {}
    if rotated is not None:
        own, rotary = rotated
        for asked in witness.future:
            moments = _moments(own, length, asked, before)
            if moments is not None:
                unrotated[asked] = moments
                future[asked] = rotary.future(moments, length, asked.positions)
    seen = Witnessed(
        module=module,
        key_shape=(key.shape[1], key.shape[3]),
        scaling=scaling,
        softcap=softcap,
        sinks=sinks,
        queries=_last(query, witness.last_queries),
        received=received,
        unrotated=unrotated,
        future=future,
        rotary=rotary if witness.rotary else None,
        call=None if calls is None else calls.take(module, query.device),
    )
    return seen if before is None else _joined(before, seen, witness.last_queries)


def _joined(before: Witnessed, seen: Witnessed, last_queries: int) -> Witnessed:
    """Add what was remembered of earlier tokens to what a later call left behind."""
    received, call = seen.received, seen.call
    if received is not None:
        assert before.received is not None, "the earlier witness asks for received attention"
        later = received.shape[-1] - before.received.shape[-1]
        received = received + pad(before.received, (0, later))
    if call is not None and before.call is not None:
        call = before.call.followed_by(call)
    queries = torch.cat([before.queries, seen.queries], dim=2)
    return replace(seen, queries=_last(queries, last_queries), received=received, call=call)


def _moments(
    queries: Float[Tensor, "B H Q D"], length: int, asked: FutureQueries, before: Witnessed | None
) -> Moments | None:
    """Return the moments of the queries that count among the K of a sequence; the last Q are given.

    None if those of the earlier ones are not known.
    """
    first, begin = length - queries.shape[2], min(asked.skip, length - 1)
    own = Moments.of(queries[:, :, max(0, begin - first) :])
    if first <= begin:
        return own
    earlier = None if before is None else before.unrotated.get(asked)
    return None if earlier is None else earlier.merged(own)


def _last(queries: Float[Tensor, "B H Q D"], count: int) -> Float[Tensor, "B H W D"]:
    return queries[:, :, max(0, queries.shape[2] - count) :].clone()
