"""Loki against its definition: principal components from another decomposition."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from sah.attention import AttentionInputs, AttentionMask
from sah.attention.compute import weighted_attention
from sah.maskers.loki import Loki, ProjectedKeys
from sah.maskers.oracle_top_k import OracleTopK

Make = Callable[..., Any]


def best_keys(inputs: AttentionInputs, head: int, components: int, budget: int) -> list[int]:
    """Return the best keys of the last query, by a singular value decomposition."""
    keys = inputs.key[0, head // inputs.group_size].double().numpy()
    context = keys[: inputs.context_length]
    directions = np.linalg.svd(context - context.mean(0))[2][:components]
    scores = (keys @ directions.T) @ (directions @ inputs.query[0, head, -1].double().numpy())
    return sorted(np.argsort(-scores)[:budget].tolist())


@pytest.mark.parametrize(("fraction", "components"), [(0.25, 4), (0.3, 5), (1.0, 16)])
def test_adds_the_keys_that_score_best_on_the_first_components(
    fraction: float, components: int, make_inputs: Make
) -> None:
    # Seven keys come after the context and do not affect its components.
    inputs = make_inputs(queries=7)
    mask = Loki(tokens=11, components_fraction=fraction)(inputs, AttentionMask.empty(inputs))
    for head in range(4):
        selected = mask.selected[0, head, -1].nonzero().flatten().tolist()
        assert selected == best_keys(inputs, head, components, 11)


def test_keys_in_a_subspace_are_ranked_exactly(make_inputs: Make) -> None:
    inputs = make_inputs(keys=90)
    generator = torch.Generator().manual_seed(3)
    plane = torch.randn(1, 2, 4, 16, generator=generator)
    # A shared offset outside the plane changes no order.
    shared = 5 * torch.randn(1, 2, 1, 16, generator=generator)
    inputs = replace(inputs, key=inputs.key[..., :4] @ plane + shared)
    empty = AttentionMask.empty(inputs)
    selected = Loki(tokens=12, components_fraction=0.25)(inputs, empty).selected
    assert torch.equal(selected, OracleTopK(tokens=12)(inputs, empty).selected)


def test_the_index_is_a_share_of_the_keys_and_the_directions_of_each_head(
    make_inputs: Make,
) -> None:
    inputs = make_inputs(keys=400)
    index = ProjectedKeys(inputs.key, inputs.value, components=4)
    assert index.nbytes == inputs.key.nbytes // 4 + 2 * 16 * 4 * 4


def test_keys_that_are_not_finite_show_in_the_output(
    make_inputs: Make,
) -> None:
    inputs = make_inputs(keys=30)
    inputs = replace(inputs, key=torch.full_like(inputs.key, torch.nan))
    mask = Loki(tokens=3)(inputs, AttentionMask.empty(inputs))
    assert (mask.selected.sum(-1) == inputs.visible_count.clamp(max=3)).all()
    assert weighted_attention(inputs, mask).isnan().all()


@pytest.mark.parametrize("fraction", [0.0, 1.5])
def test_an_invalid_fraction_of_components_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"Loki: components_fraction must be in \(0, 1\]"):
        Loki(tokens=4, components_fraction=fraction)
