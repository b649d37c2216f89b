"""A context that is prefilled under a pattern: its cache, its density, its witness, refusals."""

# B batch, H query heads, K positions of the context

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import DynamicCache

from sah.attention import DenseAttention, SparseAttention
from sah.attention.eviction.witness import Witness
from sah.attention.prefill.pattern import PrefillLayer, Reads
from sah.attention.prefill.reading import SparsePrefill, reading
from sah.errors import ConfigurationError
from sah.maskers.local import Local
from sah.models.language_model import LanguageModel, PrefilledContext
from sah.patterns.a_shape import AShape
from sah.patterns.tri_shape import TriShape

CONTEXT = [1 + (7 * n) % 390 for n in range(90)]


@dataclass(frozen=True)
class Fixed:
    """Answers what it is given."""

    reads_: Reads = field(hash=False)

    def reads(self, layer: PrefillLayer) -> Reads:
        return self.reads_


def prefilled(
    tiny: LanguageModel, pattern: Any, *, witness: Witness | None = None, **options: Any
) -> PrefilledContext:
    attention = SparseAttention(name="mine", prefill={"mine": pattern}, **options)
    sparse = SparsePrefill.of(attention, tiny.model.config, seed=0)
    return tiny.prefill(CONTEXT, reserve_tokens=4, witness=witness, sparse=sparse)


def test_later_layers_cache_what_the_pattern_computed_and_the_first_what_it_always_does(
    tiny: LanguageModel,
) -> None:
    dense = tiny.prefill(CONTEXT, reserve_tokens=4)
    sparse = prefilled(tiny, AShape(sinks=2, window=5))
    first, *later = zip(dense.cache.layers, sparse.cache.layers, strict=True)
    assert_close(first[0].keys, first[1].keys)
    assert all(not torch.allclose(one.keys, other.keys) for one, other in later)


def test_density_is_the_share_of_visible_pairs_and_dense_layers_count_one(
    tiny: LanguageModel,
) -> None:
    read = sum(min(seen, 2 + 5) for seen in range(1, 91))
    share = read / (90 * 91 / 2)
    pattern = AShape(sinks=2, window=5)
    layers = tiny.model.config.num_hidden_layers
    assert prefilled(tiny, pattern).prefill_density == pytest.approx(share)
    mixed = prefilled(tiny, pattern, dense_layers=[0]).prefill_density
    assert mixed == pytest.approx((1 + (layers - 1) * share) / layers)
    last = sum(range(81, 91)) + sum(min(seen, 7) for seen in range(1, 81))
    tri = prefilled(tiny, TriShape(sinks=2, window=5, last_queries=10))
    assert tri.prefill_density == pytest.approx(last / (90 * 91 / 2))
    assert tiny.prefill(CONTEXT, reserve_tokens=4).prefill_density == 1.0


def test_what_evictors_ask_for_is_remembered_of_the_sparse_prefill(tiny: LanguageModel) -> None:
    pattern = AShape(sinks=2, window=5)
    plain = prefilled(tiny, pattern)
    watched = prefilled(tiny, pattern, witness=Witness(last_queries=8, calls=True))
    for one, other in zip(plain.cache.layers, watched.cache.layers, strict=True):
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)
    assert watched.prefill_density == plain.prefill_density
    dense = tiny.prefill(CONTEXT, reserve_tokens=4, witness=Witness(last_queries=8))
    assert set(watched.witnessed) == set(dense.witnessed)
    last = max(dense.witnessed)
    assert not torch.allclose(watched.witnessed[last].queries, dense.witnessed[last].queries)


def test_without_another_stage_the_context_is_answered_by_dense_attention() -> None:
    pattern = {"mine": AShape()}
    alone = SparseAttention(name="mine", prefill=pattern, dense_layers=[0], layers={"1": "dense"})
    assert alone.after_context == DenseAttention(name="mine")
    masked = SparseAttention(name="mine", prefill=pattern, layers={"1": {"local": Local(tokens=4)}})
    assert masked.after_context is masked


@pytest.mark.parametrize(
    ("reads", "message"),
    [
        (Reads(window=0), "window=0 in layer 0; it must be at least 1"),
        (Reads(columns=torch.ones(1, 1, 89, dtype=torch.bool)), r"shape \[1, 1, 89\] in layer 0"),
        (Reads(columns=torch.ones(1, 1, 90)), "columns of torch.float32"),
        (Reads(blocks=torch.ones(1, 1, 2, 1, dtype=torch.bool)), r"must be .* \[1, 4, 2, 2\]"),
    ],
)
def test_a_pattern_that_does_not_fit_is_refused_by_name(
    reads: Reads, message: str, tiny: LanguageModel
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        prefilled(tiny, Fixed(reads))


def test_padding_is_refused(tiny: LanguageModel) -> None:
    ids = torch.tensor([CONTEXT])
    padding = torch.ones_like(ids)
    padding[:, :3] = 0
    sparse = SparsePrefill(pattern=AShape())
    refused = pytest.raises(ConfigurationError, match="otherwise than causally")
    with reading(tiny.model, sparse), torch.inference_mode(), refused:
        tiny.model(input_ids=ids, attention_mask=padding, past_key_values=DynamicCache())
