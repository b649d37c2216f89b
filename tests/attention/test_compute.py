"""Both ways to compute weighted attention, against the formula in loops."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from sah.attention import (
    AttentionInputs,
    AttentionMask,
    Visibility,
    dense_attention,
    gathered_attention,
    weighted_attention,
)

Compute = Callable[[AttentionInputs, AttentionMask], Tensor]
Make = Callable[..., Any]

ways = pytest.mark.parametrize(
    "compute",
    [dense_attention, gathered_attention, weighted_attention],
    ids=["dense", "gathered", "weighted"],
)


@ways
@pytest.mark.parametrize("weighted", [False, True], ids=["unweighted", "weighted"])
@pytest.mark.parametrize(
    "problem",
    [
        {},
        {"queries": 5},
        {"heads": 6, "groups": 1},
        {"heads": 3, "groups": 3, "queries": 2},
        {"queries": 3, "softcap": 2.0},
        {"queries": 3, "sinks": True},
        {"queries": 4, "sinks": True, "softcap": 1.5, "padding": (0, 5)},
        {"queries": 2, "value_dim": 3},
    ],
    ids=lambda problem: "-".join(problem) or "plain",
)
def test_output_is_the_weighted_mean_of_the_formula(
    compute: Compute,
    problem: dict[str, Any],
    weighted: bool,
    make_inputs: Make,
    random_mask: Make,
    formula: Compute,
) -> None:
    inputs = make_inputs(**problem)
    mask = random_mask(inputs, share=0.4, weighted=weighted)
    assert_close(compute(inputs, mask).double(), formula(inputs, mask), atol=2e-6, rtol=2e-6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**20),
    groups=st.integers(1, 3),
    group_size=st.integers(1, 3),
    queries=st.integers(1, 4),
    context=st.integers(0, 20),
    share=st.floats(0, 1),
    padding=st.lists(st.integers(0, 6), min_size=1, max_size=3),
    softcap=st.sampled_from([None, 3.0]),
    sinks=st.booleans(),
    weighted=st.booleans(),
)
def test_gathered_attention_equals_dense_attention(
    seed: int,
    groups: int,
    group_size: int,
    queries: int,
    context: int,
    share: float,
    padding: list[int],
    softcap: float | None,
    sinks: bool,
    weighted: bool,
    make_inputs: Make,
    random_mask: Make,
) -> None:
    inputs = make_inputs(
        heads=groups * group_size,
        groups=groups,
        queries=queries,
        keys=context + queries,
        padding=padding,
        softcap=softcap,
        sinks=sinks,
        seed=seed,
    )
    mask = random_mask(inputs, share=share, weighted=weighted, seed=seed)
    dense = dense_attention(inputs, mask)
    assert_close(gathered_attention(inputs, mask), dense, atol=3e-6, rtol=3e-6)


@ways
@pytest.mark.parametrize("keys", [12, 400])
def test_a_decode_step_is_correct_with_and_without_precomputed_scores(
    compute: Compute, keys: int, make_inputs: Make, random_mask: Make, formula: Compute
) -> None:
    for share in (0.02, 0.9):
        inputs = make_inputs(keys=keys)
        mask = random_mask(inputs, share=share, weighted=True)
        expected = formula(inputs, mask)
        assert_close(compute(inputs, mask).double(), expected, atol=2e-6, rtol=2e-6)
        assert inputs.scores.shape[-1] == keys
        assert_close(compute(inputs, mask).double(), expected, atol=2e-6, rtol=2e-6)


@ways
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("queries", [1, 3])
def test_a_query_without_any_selected_key_gets_zeros(
    compute: Compute, queries: int, sinks: bool, make_inputs: Make
) -> None:
    inputs = make_inputs(queries=queries, sinks=sinks)
    nothing = AttentionMask.empty(inputs)
    assert torch.equal(compute(inputs, nothing), torch.zeros(1, 4, queries, 8))


@ways
def test_a_query_without_any_selected_key_does_not_disturb_the_others(
    compute: Compute, make_inputs: Make, formula: Compute
) -> None:
    inputs = make_inputs(queries=3)
    keys = torch.zeros(1, 4, 3, 12, dtype=torch.bool)
    keys[0, 1, 2, 4] = keys[0, 3, 1, :7] = True
    mask = AttentionMask.empty(inputs).add(keys)
    assert_close(compute(inputs, mask).double(), formula(inputs, mask), atol=2e-6, rtol=2e-6)
    assert torch.equal(compute(inputs, mask)[0, 0], torch.zeros(3, 8))


@ways
def test_a_key_of_weight_two_counts_like_two_copies_of_it(
    compute: Compute, make_inputs: Make
) -> None:
    inputs = make_inputs(keys=6)
    twice = dataclasses.replace(
        inputs,
        key=torch.cat([inputs.key, inputs.key[:, :, 2:3]], dim=2),
        value=torch.cat([inputs.value, inputs.value[:, :, 2:3]], dim=2),
        visibility=Visibility(torch.ones(1, 1, 1, 7, dtype=torch.bool)),
    )
    one, two = torch.arange(6).view(1, 1, 1, 6) == 2, torch.full((1, 1, 1, 1), 2.0)
    mask = AttentionMask.empty(inputs).add(one, two).add(inputs.visible)
    all_of_it = AttentionMask.empty(twice).add(twice.visible)
    assert_close(compute(inputs, mask), compute(twice, all_of_it), atol=2e-6, rtol=2e-6)


@ways
def test_large_scores_do_not_overflow(compute: Compute, make_inputs: Make) -> None:
    inputs = make_inputs(queries=2)
    inputs = dataclasses.replace(inputs, query=inputs.query * 1e4)
    mask = AttentionMask.empty(inputs).add(inputs.visible)
    scores = inputs.query.double() @ inputs.key.double().repeat_interleave(2, 1).mT * inputs.scaling
    best = scores.masked_fill(~inputs.visible, -torch.inf).argmax(-1)
    value = inputs.value.repeat_interleave(2, 1)
    expected = value.gather(2, best[..., None].expand(-1, -1, -1, 8))
    assert_close(compute(inputs, mask), expected)


@ways
def test_the_model_s_own_sink_adds_to_the_denominator_only(
    compute: Compute, make_inputs: Make
) -> None:
    inputs = make_inputs(keys=1, sinks=True)
    mask = AttentionMask.empty(inputs).add(inputs.visible)
    key = inputs.key.repeat_interleave(2, 1)
    score = (inputs.query * key).sum(-1, keepdim=True) * inputs.scaling
    sink = inputs.sinks.view(1, 4, 1, 1)
    expected = torch.sigmoid(score - sink) * inputs.value.repeat_interleave(2, 1)
    assert_close(compute(inputs, mask), expected, atol=2e-6, rtol=2e-6)


@ways
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_output_has_the_query_s_dtype_and_is_computed_in_float32(
    compute: Compute, dtype: torch.dtype, make_inputs: Make, random_mask: Make, formula: Compute
) -> None:
    single = make_inputs(queries=2, keys=60)
    inputs = dataclasses.replace(
        single,
        query=single.query.to(dtype),
        key=single.key.to(dtype),
        value=single.value.to(dtype),
    )
    mask = random_mask(inputs, share=0.5, weighted=True)
    output = compute(inputs, mask)
    assert output.dtype == dtype
    # Only the final rounding may lose precision.
    assert_close(output, formula(inputs, mask).to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-6)


@ways
def test_with_every_visible_key_the_output_is_that_of_sdpa(
    compute: Compute, make_inputs: Make
) -> None:
    inputs = make_inputs(queries=5, padding=(0, 4))
    mask = AttentionMask.empty(inputs).add(inputs.visible)
    expected = torch.nn.functional.scaled_dot_product_attention(
        inputs.query,
        inputs.key,
        inputs.value,
        attn_mask=inputs.visible,
        scale=inputs.scaling,
        enable_gqa=True,
    )
    assert_close(compute(inputs, mask), expected, atol=1e-5, rtol=1e-5)
