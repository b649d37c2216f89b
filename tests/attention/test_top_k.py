"""TopKMasker: a selector needs only `scores`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from sah.attention import AttentionInputs, AttentionMask, TopKMasker

Make = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class LargestFirstChannel(TopKMasker):
    """Prefers keys with a large first channel, for every query."""

    def scores(self, inputs: AttentionInputs) -> Tensor:
        first = inputs.key[..., :1].expand(-1, -1, -1, inputs.query.shape[-1])
        return inputs.dot(torch.ones_like(inputs.query), first)


@pytest.mark.parametrize("padding", [(0,), (0, 6)], ids=["plain", "padded"])
def test_adds_the_best_candidates_of_every_query_up_to_its_budget(
    padding: tuple[int, ...], make_inputs: Make
) -> None:
    inputs = make_inputs(keys=20, queries=3, padding=padding)
    before = AttentionMask.empty(inputs).add((torch.arange(20) % 5 == 0).view(1, 1, 1, 20))
    for masker in (LargestFirstChannel(tokens=4), LargestFirstChannel(fraction=0.3)):
        added = masker(inputs, before).selected & ~before.selected
        for b, h, q in torch.cartesian_prod(*map(torch.arange, added.shape[:3])).tolist():
            visible = int(inputs.visible[b, 0, q].sum())
            budget = masker.tokens or -(-3 * visible // 10)
            channel = inputs.key[b, h // 2, :, 0].tolist()
            candidates = before.candidates[b, h, q].nonzero().flatten().tolist()
            best = sorted(candidates, key=lambda key: channel[key], reverse=True)[:budget]
            assert added[b, h, q].nonzero().flatten().tolist() == sorted(best)


def test_of_keys_with_equal_scores_the_first_are_added(make_inputs: Make) -> None:
    inputs = make_inputs(keys=20)
    inputs.key[..., 0] = 1.0
    mask = LargestFirstChannel(tokens=7)(inputs, AttentionMask.empty(inputs))
    assert torch.equal(mask.selected[0, 0, 0], torch.arange(20) < 7)


def test_a_masker_without_scores_cannot_be_instantiated() -> None:
    with pytest.raises(TypeError, match="scores"):
        TopKMasker(tokens=3)  # type: ignore[abstract]
