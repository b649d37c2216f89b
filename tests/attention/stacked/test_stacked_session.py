"""Every row of a batch has the logits and the measures that it has alone."""

import itertools

import pytest
import torch
from small_shape import SMALL
from transformers import Gemma2Config, GptOssConfig, Qwen2MoeConfig

from sah.attention import DenseAttention, SparseAttention
from sah.maskers.local import Local
from sah.maskers.loki import Loki
from sah.maskers.oracle_top_k import OracleTopK
from sah.maskers.quest import Quest
from sah.maskers.sink import Sink

pytestmark = pytest.mark.usefixtures("calibrated")

FIRST = {"sink": Sink(tokens=2), "local": Local(tokens=4)}
MIXED = SparseAttention(
    name="mixed",
    maskers={**FIRST, "quest": Quest(tokens=24, page_size=8)},
    layers={
        "1": {**FIRST, "loki": Loki(tokens=12, every=2), "top": OracleTopK(tokens=6, every=3)},
    },
)


@pytest.fixture(scope="module")
def alone(tiny, answered):
    """The four rows by their limits, each answered alone."""
    return {limit: answered(tiny, MIXED, [limit] * 4, together=False) for limit in (1, 3, 5, 8)}


@pytest.mark.parametrize("limits", list(itertools.permutations((1, 3, 5, 8))), ids=str)
def test_rows_may_leave_in_any_order(tiny, answered, alone, limits):
    # Selections are made at every step, every other and every third one.
    for number, row in enumerate(answered(tiny, MIXED, limits, together=True)):
        row.assert_as(alone[limits[number]][number])


def test_rows_that_end_together_leave_together(tiny, answered, alone):
    for limits in [(3, 8, 3, 8), (8, 3, 3, 3), (5, 5, 5, 5)]:
        for number, row in enumerate(answered(tiny, MIXED, limits, together=True)):
            row.assert_as(alone[limits[number]][number])


@pytest.mark.parametrize("name", ["pq_cache", "loki", "quest", "hash_attention", "magic_pig"])
def test_the_index_of_a_row_is_as_large_as_alone(tiny, preset, answered, name):
    limits = [9, 2, 6, 4]
    both = [answered(tiny, preset(name), limits, together=way) for way in (True, False)]
    for row, single in zip(*both, strict=True):
        assert sum(single.index_bytes.values()) > 0
        assert single.context_index_bytes > 0
        row.assert_as(single)


@pytest.mark.parametrize("name", ["dense", "quest", "pq_cache", "adakv", "streaming_llm"])
def test_answers_may_be_longer_than_the_room_that_was_reserved(tiny, preset, answered, name):
    limits = [24, 3, 18, 21]
    both = [
        answered(tiny, preset(name), limits, together=way, reserve_tokens=1)
        for way in (True, False)
    ]
    for row, single in zip(*both, strict=True):
        row.assert_as(single)


ALTERNATING = ["sliding_attention", "full_attention"]


@pytest.fixture(scope="module", params=["gemma2", "gpt_oss", "qwen2_moe"])
def windowed(request, build_model):
    """A model with a sliding window in layer 0, and soft-capped scores or attention sinks.

    Qwen2-MoE has neither, and does not tell its attention function of the window.
    """
    shape = {**SMALL, "sliding_window": 8, "layer_types": ALTERNATING}
    if request.param == "gemma2":
        config = Gemma2Config(**shape, attn_logit_softcapping=3.0, query_pre_attn_scalar=5)
    elif request.param == "gpt_oss":
        config = GptOssConfig(**shape, num_local_experts=2, num_experts_per_tok=1)
    else:
        config = Qwen2MoeConfig(
            **shape, use_sliding_window=True, num_experts=2, num_experts_per_tok=1
        )
    model = build_model(config, attention="eager")
    for number, layer in enumerate(model.model.model.layers):
        if hasattr(layer.self_attn, "sinks"):
            layer.self_attn.sinks.data = torch.linspace(-1, 2 + number, 4)
    return model


@pytest.mark.parametrize(
    "attention",
    [
        DenseAttention(),
        SparseAttention(name="top", maskers={**FIRST, "top": OracleTopK(tokens=6)}),
        "snapkv",
    ],
    ids=["dense", "top", "snapkv"],
)
def test_windows_soft_caps_and_sinks_are_those_of_the_model(windowed, preset, answered, attention):
    chosen = preset(attention) if isinstance(attention, str) else attention
    both = [answered(windowed, chosen, [9, 2, 6, 4], together=way) for way in (True, False)]
    for row, single in zip(*both, strict=True):
        row.assert_as(single)
