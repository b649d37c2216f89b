"""Any scores, computed again while decoding over the keys that are left."""

# B batch, H query heads, G key-value heads, W window queries, N held keys, R rows

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import pad

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.evictor import DecodingEvictor
from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.query_step import HeldKeys, QueryStep
from sah.attention.eviction.witness import Witness, Witnessed
from sah.evictors.scoring import RankingEvictor, ScoringEvictor, keep_best
from sah.seeding import derive


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Apply another evictor to the context, and again after every `every` queries that follow.

    It then scores the keys that are left, its window being the last queries of the sequence.
    Between two times, all new keys stay. As in kvpress (DecodingPress), where `every` is
    compression_interval, and the budget target_size.
    """

    batched: ClassVar = True

    of: ScoringEvictor
    """The evictor that scores the keys, and whose budget holds for the whole sequence."""
    every: int = 128
    """Queries between two evictions."""

    def __post_init__(self) -> None:
        require_every("Decoding", self.every)
        name = type(self.of).__name__
        if not isinstance(self.of, ScoringEvictor) or isinstance(self.of, DecodingEvictor):
            raise ValueError(
                "Decoding: `of` must be an evictor that scores keys by itself and works on the "
                f"context only, and {name} is not; {_CHOOSE}"
            )
        kind = type(self.of)
        if (
            kind.budget is not ScoringEvictor.budget
            or kind.at_context is not RankingEvictor.at_context
        ):
            raise ValueError(
                f"Decoding: {name} overrides the budget or the choice of keys, which is defined at "
                f"the context's end only; {_CHOOSE}"
            )
        asked = self.of.witness
        if asked != Witness(last_queries=asked.last_queries):
            raise ValueError(
                f"Decoding: {name} needs all queries of the context or its rotary embedding, which "
                f"are not available while decoding; {_CHOOSE}"
            )

    @property
    def witness(self) -> Witness:
        """What the inner evictor needs."""
        return self.of.witness

    def budget(self, layer: ContextLayer) -> int:
        """Return the inner evictor's budget for each head of the layer."""
        return self.of.budget(layer)

    def at_context(self, layer: ContextLayer) -> Bool[Tensor, "B G K"]:
        """Return which keys stay."""
        return self.of.at_context(layer)

    def begin(self, layer: ContextLayer, kept: KeptKeys) -> tuple[Tensor, ...]:
        """Remember the last queries."""
        return (last_queries(layer.witnessed.queries, self.of.witness.last_queries),)

    def after_query(self, held: HeldKeys, step: QueryStep) -> HeldKeys:
        """Score the keys again when it is time, and keep the best within the budget."""
        return rescored(self.of, self.every, held, step)


_CHOOSE = (
    "choose another one with evictor@sparse_attention.evict.NAME.of=OPTION, or use "
    "tova_decoding, h2o_decoding or r_kv"
)


def rescored(evictor: ScoringEvictor, every: int, held: HeldKeys, step: QueryStep) -> HeldKeys:
    """Remember the query; after every `every` queries, keep the best of the keys that are left.

    In a batch, sequences reach that point at different steps, and are scored one by one.
    """
    window, query = evictor.witness.last_queries, step.inputs.query
    before = held.memory[0] if held.memory else query[:, :, :0]
    queries = last_queries(torch.cat([before, query], dim=2), window)
    due = [row for row, after in enumerate(step.after_contexts) if after % every == 0]
    if not due:
        return HeldKeys(alive=held.alive, memory=(queries,))
    if step.inputs.rows is None:
        alive = _scored_again(evictor, every, held.alive, queries, step)
        return HeldKeys(alive=alive, memory=(queries,))
    alive = held.alive.clone()
    for row in due:
        one, this = step.sequence(row), slice(row, row + 1)
        own = alive[this, :, : one.inputs.key.shape[2]]
        own.copy_(_scored_again(evictor, every, own, queries[this], one))
    return HeldKeys(alive=alive, memory=(queries,))


def last_queries(queries: Float[Tensor, "B H N D"], window: int) -> Float[Tensor, "B H W D"]:
    """Return the last `window` queries; zeros before the first one, if there are fewer."""
    return pad(queries, (0, 0, window - queries.shape[2], 0))


def _scored_again(
    evictor: ScoringEvictor,
    every: int,
    alive: Bool[Tensor, "B G R"],
    queries: Tensor,
    step: QueryStep,
) -> Bool[Tensor, "B G R"]:
    budget = evictor.capacity(step.context)
    count = _held_by_each_head(every, budget, step)
    if count <= budget:
        return alive
    # The first ones are zeros in a sequence that is shorter than the window.
    seen = min(queries.shape[2], step.context + step.after_context)
    left = KeptKeys.of(alive, step.inputs.key, step.inputs.value, each=count)
    layer = _layer(left, queries[:, :, queries.shape[2] - seen :], step)
    stays = keep_best(evictor.scores(layer), budget)  # B G N
    return torch.zeros_like(alive).scatter(2, left.position, stays)


def _held_by_each_head(every: int, budget: int, step: QueryStep) -> int:
    """Return the number of keys that each head holds before an eviction, known on the host."""
    kept = step.inputs.kept
    assert kept is not None
    assert kept.valid is None, "evictors that score keep the same number of keys in each head"
    before = step.after_context - every  # queries when keys were evicted last
    return (min(kept.rows + before, budget) if before else kept.rows) + every


def _layer(left: KeptKeys, queries: Tensor, step: QueryStep) -> ContextLayer:
    """Return the keys that are left, as evictors of a context see them."""
    inputs = step.inputs
    key = left.rows_of(left.key)
    return ContextLayer(
        key=key,
        value=left.rows_of(left.value),
        witnessed=Witnessed(
            module=step.module,
            key_shape=(key.shape[1], key.shape[3]),
            scaling=inputs.scaling,
            softcap=inputs.softcap,
            sinks=inputs.sinks,
            queries=queries,
        ),
        layer_idx=inputs.layer_idx,
        layers=step.layers,
        seed=derive(inputs.seed, "evict", step.after_context),
        age=step.context + step.after_context - 1 - step.positions.gather(-1, left.position),
    )


def require_every(name: str, every: int) -> None:
    """Check a number of queries.

    Raises:
        ValueError: if it is less than 1.
    """
    if isinstance(every, bool) or every < 1:
        raise ValueError(f"{name}: every must be at least 1, got {every!r}")
