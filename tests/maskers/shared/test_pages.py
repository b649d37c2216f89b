"""Selecting whole pages gives what selecting keys by the scores of their pages gives."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from sah.attention import AttentionMask, select_top
from sah.maskers.quest import Quest
from sah.maskers.shared.pages import select_pages

Make = Callable[..., Any]


@pytest.mark.parametrize("page_size", [1, 3, 16])
@pytest.mark.parametrize("distinct", [True, False], ids=["distinct", "ties"])
def test_pages_are_selected_like_keys_that_share_a_score(distinct: bool, page_size: int) -> None:
    generator = torch.Generator().manual_seed(page_size)
    for keys in (1, 5, 48, 50):
        shape = (2, 3, 4, -(-keys // page_size))
        scores = torch.randn(shape, generator=generator)
        if not distinct:
            scores = scores.round()
        scores[torch.rand(shape, generator=generator) < 0.1] = torch.nan
        candidates = torch.rand(2, 3, 4, keys, generator=generator) < 0.6
        budget = torch.randint(keys + 2, (2, 1, 4, 1), generator=generator)
        per_key = scores.repeat_interleave(page_size, dim=-1)[..., :keys]
        assert torch.equal(
            select_pages(scores, candidates, budget, page_size),
            select_top(per_key, candidates, budget, keys),
        )


def test_quest_selects_what_its_scores_say(make_inputs: Make, some_mask: Make) -> None:
    inputs = make_inputs(queries=3, padding=(0, 31))
    quest = Quest(fraction=0.2, page_size=5)
    for mask in (AttentionMask.empty(inputs), some_mask(inputs)):
        budget, bound = quest.per_query(inputs)
        expected = select_top(quest.scores(inputs), mask.candidates, budget, bound)
        assert torch.equal(quest.select(inputs, mask), expected)
