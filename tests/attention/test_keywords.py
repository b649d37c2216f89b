"""Sparse attention refuses what it would ignore, and accepts what changes nothing."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sah.attention import DenseAttention, SparseAttention
from sah.attention.session import AttentionSession
from sah.errors import ConfigurationError
from sah.maskers.causal import Causal

QUERY = torch.randn(1, 4, 3, 8, generator=torch.Generator().manual_seed(0))
KEY = torch.randn(1, 2, 9, 8, generator=torch.Generator().manual_seed(1))
MODULE: Any = SimpleNamespace(layer_idx=0, num_key_value_groups=2, is_causal=True)
SEES = torch.ones(3, 9, dtype=torch.bool).tril(6)[None, None]


def attend(mask: Any = SEES, *, queries: int = 3, **keywords: Any) -> torch.Tensor:
    session = AttentionSession(SparseAttention(name="all", maskers={"all": Causal()}), seed=0)
    output, _ = session._forward(MODULE, QUERY[:, :, -queries:], KEY, KEY, mask, **keywords)
    return output


@pytest.mark.parametrize(
    "keywords",
    [
        {"position_bias": torch.zeros(1, 4, 3, 9)},
        {"indices": torch.zeros(1, 3, 2, dtype=torch.int32)},
        {"block_indices": torch.zeros(1)},
        {"sinks": torch.zeros(1, 4, 3)},
        {"dropout": 0.1},
        {"cu_seq_lens_q": torch.tensor([0, 3])},
        {"something_new": 1},
    ],
    ids=lambda keywords: next(iter(keywords)),
)
@pytest.mark.parametrize("dense_layers", [(), (0,)])
def test_a_keyword_that_would_be_ignored_is_refused_by_name(
    keywords: dict[str, Any], dense_layers: tuple[int, ...]
) -> None:
    attention = SparseAttention(name="all", maskers={"all": Causal()}, dense_layers=dense_layers)
    session = AttentionSession(attention, seed=0)
    with pytest.raises(
        ConfigurationError, match=f"SimpleNamespace passes '{next(iter(keywords))}'"
    ):
        session._forward(MODULE, QUERY, KEY, KEY, SEES, **keywords)


def test_a_keyword_that_is_none_or_harmless_changes_nothing() -> None:
    plain = attend()
    harmless = {
        "dropout": 0.0,
        "position_bias": None,
        "indices": None,
        "position_ids": torch.arange(3)[None],
        "use_cache": True,
        "is_causal": True,
    }
    assert torch.equal(attend(**harmless), plain)


def test_a_call_that_is_not_causal_is_refused_unless_the_mask_or_a_single_query_says_it_all() -> (
    None
):
    with pytest.raises(ConfigurationError, match="'is_causal'"):
        attend(None, is_causal=False)
    assert torch.equal(attend(is_causal=False), attend())
    assert torch.equal(attend(None, queries=1, is_causal=False), attend(None, queries=1))


@pytest.mark.parametrize(
    "mask",
    [torch.zeros(1, 1, 3, 9), SEES.expand(1, 4, 3, 9)],
    ids=["additive", "a mask for each head"],
)
def test_a_mask_that_is_not_boolean_and_equal_for_all_heads_is_refused(mask: torch.Tensor) -> None:
    with pytest.raises(ConfigurationError, match="passes a mask of type"):
        attend(mask)


def test_a_batch_refuses_under_dense_attention_too() -> None:
    session = AttentionSession(DenseAttention(), seed=0)
    with pytest.raises(ConfigurationError, match="'position_bias'"):
        session.attend(MODULE, QUERY[:, :, -1:], KEY, KEY, position_bias=torch.zeros(1, 4, 1, 9))
