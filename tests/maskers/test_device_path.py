"""Maskers on a device: they read no number of it, and select what they select on the CPU."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from device_path import as_on_a_device
from presets import SELECTING
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.testing import assert_close

from sah.attention import (
    AttentionInputs,
    AttentionMask,
    SparseAttention,
    Visibility,
    compute,
    weighted_attention,
)
from sah.maskers.adaptive_sampling import AdaptiveSampling
from sah.maskers.causal import Causal
from sah.maskers.oracle_top_k import OracleTopK
from sah.maskers.sink import Sink

Make = Callable[..., Any]

OTHERS = {
    "causal": Causal(),
    "units": OracleTopK(fraction=0.2, share="group", unit=16),
    "reused": OracleTopK(tokens=20, every=4),
    "little_before": AdaptiveSampling(epsilon=0.3),
}


@pytest.fixture(params=[*SELECTING, *OTHERS])
def attention(request: pytest.FixtureRequest, preset: Make) -> SparseAttention:
    if request.param in SELECTING:
        found: SparseAttention = preset(request.param)
        return found
    masker = OTHERS[request.param]
    return SparseAttention(name="mine", maskers={"sink": Sink(tokens=3), "mine": masker})


@pytest.fixture(autouse=True)
def gathers_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gather however few keys there are."""
    monkeypatch.setattr(compute, "GATHER_ROWS", 0)


def read(attention: SparseAttention, inputs: AttentionInputs) -> tuple[AttentionMask, Tensor]:
    mask = attention.select(inputs)
    return mask, weighted_attention(inputs, mask)


def without_numbers(inputs: AttentionInputs, keys: int) -> AttentionInputs:
    """Return the inputs of a later decode step; only their shapes are known."""
    return dataclasses.replace(
        inputs,
        query=torch.empty(2, 4, 1, 16),
        key=torch.empty(2, 2, keys, 16),
        value=torch.empty(2, 2, keys, 16),
        visibility=Visibility(torch.empty(2, 1, 1, keys, dtype=torch.bool)),
        first_position=keys - 1,
    )


def test_a_decode_step_reads_no_number_of_the_device(
    attention: SparseAttention, make_inputs: Make
) -> None:
    inputs = dataclasses.replace(make_inputs(padding=(0, 0)), held={})
    with as_on_a_device():
        read(attention, inputs)  # builds the indexes
        # Whatever reads a number, or has a shape that depends on one, fails.
        with FakeTensorMode(allow_non_fake_inputs=True):
            for keys in (201, 202):
                mask, output = read(attention, without_numbers(inputs, keys))
                mask.rows_read(2)
                assert output.shape == (2, 4, 1, 16)


def test_tensors_without_numbers_notice_what_reads_one(make_inputs: Make) -> None:
    attention = SparseAttention(name="mine", maskers={"sink": Sink(tokens=3)})
    with FakeTensorMode(), pytest.raises(DataDependentOutputException):
        read(attention, without_numbers(make_inputs(padding=(0, 0)), 201))


@pytest.mark.parametrize("problem", [{}, {"padding": (0, 90, 184)}, {"queries": 3}], ids=str)
def test_a_device_selects_the_keys_that_the_cpu_selects(
    problem: dict[str, Any], attention: SparseAttention, make_inputs: Make
) -> None:
    mask, output = read(attention, make_inputs(**problem))
    with as_on_a_device():
        same, close = read(attention, make_inputs(**problem))
    assert torch.equal(same.selected, mask.selected)
    assert_close(same.weights, mask.weights, rtol=1e-4, atol=1e-4)
    assert_close(close, output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding", [(0,), (0, 90, 184)], ids=str)
def test_no_query_selects_more_keys_than_its_mask_s_bound(
    padding: tuple[int, ...], attention: SparseAttention, make_inputs: Make
) -> None:
    for keys in (24, 200):
        inputs = make_inputs(keys=keys, padding=[min(n, keys) for n in padding])
        inputs = dataclasses.replace(inputs, held={})
        mask = attention.select(inputs)
        if mask.at_most is not None:
            assert int(mask.selected_count.max()) <= mask.at_most <= keys
