"""Attention masks: candidates, weights, density, immutability."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sah.attention import AttentionMask

Make = Callable[..., Any]


def test_an_empty_mask_selects_nothing_and_every_visible_key_is_a_candidate(
    make_inputs: Make,
) -> None:
    inputs = make_inputs(queries=3, padding=(0, 2))
    mask = AttentionMask.empty(inputs)
    assert not mask.selected.any()
    assert not mask.weights.any()
    for head in range(4):
        assert torch.equal(mask.candidates[:, head], inputs.visible[:, 0])


def test_adding_leaves_invisible_keys_out(make_inputs: Make) -> None:
    inputs = make_inputs(queries=3, keys=5, padding=(0, 2))
    everything = torch.ones(5, dtype=torch.bool).expand(1, 1, 1, 5)
    mask = AttentionMask.empty(inputs).add(everything, torch.full((1, 1, 1, 1), 3.0))
    assert mask.weights[0, 1].tolist() == [[3, 3, 3, 0, 0], [3, 3, 3, 3, 0], [3, 3, 3, 3, 3]]
    assert mask.weights[1, 3].tolist() == [[0, 0, 3, 0, 0], [0, 0, 3, 3, 0], [0, 0, 3, 3, 3]]


def test_adding_does_not_change_the_original(make_inputs: Make, random_mask: Make) -> None:
    inputs = make_inputs(queries=2)
    for weighted in (False, True):
        mask = random_mask(inputs, share=0.3, weighted=weighted)
        before = {k: v if v is None else v.clone() for k, v in vars(mask).items()}
        mask.add(inputs.visible, torch.full((1, 1, 1, 1), 4.0))
        mask.add(inputs.visible)
        for name, value in before.items():
            now = getattr(mask, name)
            assert now is None if value is None else torch.equal(now, value), name


def test_a_mask_cannot_be_assigned_to(make_inputs: Make) -> None:
    mask = AttentionMask.empty(make_inputs())
    with pytest.raises(dataclasses.FrozenInstanceError):
        mask.selected = mask.visible  # type: ignore[misc]


def test_bounds_add_up_to_at_most_all_keys_until_one_is_unknown(make_inputs: Make) -> None:
    inputs = make_inputs(keys=12)
    mask = AttentionMask.empty(inputs)
    bounds = [mask.at_most]
    for added in (3, 4, 9, None, 2):
        mask = mask.add(inputs.visible, at_most=added)
        bounds.append(mask.at_most)
    assert bounds == [0, 3, 7, 12, None, None]
    assert mask.at_queries(0, 1).at_most is None


def test_keys_broadcast_over_heads_and_queries(make_inputs: Make) -> None:
    inputs = make_inputs(queries=2, keys=6)
    mask = AttentionMask.empty(inputs).add((torch.arange(6) < 2).view(1, 1, 1, 6))
    assert mask.selected.shape == (1, 4, 2, 6)
    assert mask.selected.sum(-1).eq(2).all()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    steps=st.lists(
        st.tuples(
            st.lists(st.booleans(), min_size=6, max_size=6),
            st.one_of(st.none(), st.floats(1, 100, width=32)),
        ),
        max_size=5,
    )
)
def test_the_first_to_select_a_key_decides_its_weight(
    steps: list[tuple[list[bool], float | None]], make_inputs: Make
) -> None:
    inputs = make_inputs(heads=1, groups=1, keys=6, padding=(1,))
    mask = AttentionMask.empty(inputs)
    expected: dict[int, float] = {}
    for keys, weight in steps:
        mask = mask.add(
            torch.tensor(keys).view(1, 1, 1, 6),
            None if weight is None else torch.tensor(weight).view(1, 1, 1, 1),
        )
        for position, chosen in enumerate(keys):
            if chosen and position >= 1:
                expected.setdefault(position, 1.0 if weight is None else weight)
    assert mask.weights.flatten().tolist() == [expected.get(k, 0.0) for k in range(6)]
    assert mask.candidates.flatten().tolist() == [k >= 1 and k not in expected for k in range(6)]
    assert mask.density().item() == pytest.approx(len(expected) / 5)


def test_density_is_selected_over_visible_keys_and_nan_where_a_query_sees_none(
    make_inputs: Make,
) -> None:
    inputs = make_inputs(heads=2, groups=1, queries=4, keys=4, padding=(0, 2))
    keys = torch.zeros(2, 2, 4, 4, dtype=torch.bool)
    keys[:, 0, :, 0] = True
    keys[:, 1, :, 3] = True
    density = AttentionMask.empty(inputs).add(keys).density()
    assert density[0].tolist() == [[1, 1 / 2, pytest.approx(1 / 3), 1 / 4], [0, 0, 0, 1 / 4]]
    assert density[1, :, :2].isnan().all()
    assert density[1, :, 2:].tolist() == [[0, 0], [0, 1 / 2]]
