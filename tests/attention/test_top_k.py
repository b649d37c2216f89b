"""TopKMasker: a selector needs only `scores`; sharing, units and reuse by their definitions."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from sah.attention import AttentionInputs, AttentionMask, TopKMasker, Visibility
from sah.maskers.local import Local
from sah.maskers.oracle_top_k import OracleTopK

Make = Callable[..., Any]

HEADS = {"head": [[0], [1], [2], [3]], "group": [[0, 1], [2, 3]], "all": [[0, 1, 2, 3]]}


@dataclass(frozen=True, kw_only=True)
class LargestFirstChannel(TopKMasker):
    """Prefers keys with a large first channel, for every query."""

    def scores(self, inputs: AttentionInputs) -> Tensor:
        first = inputs.key[..., :1].expand(-1, -1, -1, inputs.query.shape[-1])
        return inputs.dot(torch.ones_like(inputs.query), first)


@pytest.fixture(scope="module")
def uneven() -> Callable[[AttentionInputs], AttentionMask]:
    """A mask that holds other keys in every head."""

    def make(inputs: AttentionInputs) -> AttentionMask:
        shape = (*inputs.query.shape[:3], inputs.key.shape[2])
        noise = torch.rand(shape, generator=torch.Generator().manual_seed(4))
        return AttentionMask.empty(inputs).add(noise < 0.2)

    return make


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
    for share in HEADS:
        mask = LargestFirstChannel(tokens=7, share=share)(inputs, AttentionMask.empty(inputs))
        assert torch.equal(mask.selected, (torch.arange(20) < 7).expand_as(mask.selected))


def test_a_masker_without_scores_cannot_be_instantiated() -> None:
    with pytest.raises(TypeError, match="scores"):
        TopKMasker(tokens=3)  # type: ignore[abstract]


def by_definition(
    inputs: AttentionInputs, before: AttentionMask, masker: OracleTopK, b: int, q: int
) -> list[list[int]]:
    """Return the keys that each head adds, by sorting in float64."""
    logits = [
        (inputs.key[b, h // 2].double() @ inputs.query[b, h, q].double() * inputs.scaling).tolist()
        for h in range(4)
    ]
    free = [before.candidates[b, h, q].nonzero().flatten().tolist() for h in range(4)]
    budget = masker.tokens or math.ceil(int(inputs.visible[b, 0, q].sum()) * (masker.fraction or 0))
    added: list[list[int]] = []
    for heads in HEADS[masker.share]:
        score: dict[int, float] = {}
        for h in heads:
            total = sum(math.exp(logits[h][k]) for k in free[h])
            for k in free[h]:
                score[k] = score.get(k, 0) + math.exp(logits[h][k]) / total
        best: dict[int, float] = {}
        for k, value in score.items():
            best[k // masker.unit] = max(value, best.get(k // masker.unit, 0))
        ranked = sorted(sorted(score), key=lambda k: best[k // masker.unit], reverse=True)
        added += [sorted(set(ranked[:budget]) & set(free[h])) for h in heads]
    return added


@pytest.mark.parametrize("share", HEADS)
@pytest.mark.parametrize("unit", [1, 4, 5])
@pytest.mark.parametrize("budget", [{"tokens": 7}, {"fraction": 0.25}], ids=str)
def test_heads_and_units_are_selected_by_their_definitions(
    share: Any, unit: int, budget: dict[str, Any], make_inputs: Make, uneven: Make
) -> None:
    masker = OracleTopK(share=share, unit=unit, **budget)
    inputs = make_inputs(keys=23, queries=3, padding=(0, 22))
    for before in (AttentionMask.empty(inputs), uneven(inputs)):
        added = masker(inputs, before).selected & ~before.selected
        for b, q in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
            expected = by_definition(inputs, before, masker, b, q)
            for h in range(4):
                assert added[b, h, q].nonzero().flatten().tolist() == expected[h]


def test_heads_that_select_together_read_the_same_rows(make_inputs: Make) -> None:
    inputs = make_inputs(keys=40, queries=2)
    for share, groups in (("group", 2), ("all", 1)):
        mask = OracleTopK(tokens=9, share=share)(inputs, AttentionMask.empty(inputs))
        assert (mask.rows_read(groups) == 9).all()
        assert (mask.selected_count == 9).all()
    alone = OracleTopK(tokens=9)(inputs, AttentionMask.empty(inputs))
    assert (alone.rows_read(2) > 9).all()


def test_shares_of_attention_too_small_for_float32_still_rank_keys(make_inputs: Make) -> None:
    inputs = make_inputs(keys=20)
    inputs.query[:] = 0
    inputs.query[..., 0] = 1
    inputs.key[..., 0] = -200.0 * torch.arange(20).flip(0)
    inputs.key[:, :, 0, 0] = 0.0
    mask = OracleTopK(tokens=4, share="all")(inputs, AttentionMask.empty(inputs))
    assert mask.selected[0, 0, 0].nonzero().flatten().tolist() == [0, 17, 18, 19]


@pytest.mark.parametrize("options", [{"share": "group"}, {"unit": 4}, {"share": "all", "unit": 4}])
def test_a_broken_key_is_selected(options: dict[str, Any], make_inputs: Make) -> None:
    inputs = make_inputs(keys=40)
    inputs.key[:, 1, 30] = torch.nan
    mask = OracleTopK(tokens=4, **options)(inputs, AttentionMask.empty(inputs))
    assert mask.selected[:, 2:, :, 30].all()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"unit": 0}, "OracleTopK: unit must be at least 1, got 0"),
        ({"every": True}, "every must be at least 1, got True"),
        ({"unit": 16}, "tokens=8 is less than one unit of unit=16 keys; raise tokens or lower"),
    ],
)
def test_an_invalid_option_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        OracleTopK(tokens=8, **options)


def steps(inputs: AttentionInputs, chunk: int, held: Any) -> list[AttentionInputs]:
    """Return the calls of a decode: each sees the keys up to its last query."""
    calls = []
    first, total = inputs.first_position, inputs.query.shape[2]
    for start in range(0, total, chunk):
        end = min(start + chunk, total)
        keys = first + end
        part = inputs.at_queries(start, end)
        calls.append(
            dataclasses.replace(
                part,
                key=part.key[:, :, :keys],
                value=part.value[:, :, :keys],
                visibility=Visibility(part.visible[..., :keys]),
                held=held,
            )
        )
    return calls


@pytest.mark.parametrize("every", [1, 2, 5, 100])
@pytest.mark.parametrize("chunk", [1, 2, 3, 12])
def test_a_selection_serves_n_steps_however_they_are_chunked(
    chunk: int, every: int, make_inputs: Make
) -> None:
    inputs = make_inputs(keys=40, queries=12, padding=(0, 5))
    masker, local = OracleTopK(tokens=5, every=every), Local(tokens=3)
    query = 0
    for call in steps(inputs, chunk, {}):
        after = masker(call, local(call, AttentionMask.empty(call))).selected
        for row in range(after.shape[2]):
            made = query - query % every
            own = steps(inputs, 1, None)[made]
            selected = OracleTopK(tokens=5)(own, local(own, AttentionMask.empty(own)))
            added = selected.selected & ~local(own, AttentionMask.empty(own)).selected
            expected = torch.zeros_like(after[:, :, row])
            expected[..., : added.shape[3]] = added[:, :, 0]
            now = steps(inputs, 1, None)[query]
            window = local(now, AttentionMask.empty(now)).selected[:, :, 0]
            expected[..., : window.shape[2]] |= window
            assert torch.equal(after[:, :, row], expected)
            query += 1
    assert query == 12


def test_the_queries_of_a_question_select_by_their_own_scores(make_inputs: Make) -> None:
    inputs = make_inputs(keys=40, queries=12)
    assert inputs.held is None
    reusing, always = (
        OracleTopK(tokens=5, every=every)(inputs, AttentionMask.empty(inputs)).selected
        for every in (4, 1)
    )
    assert torch.equal(reusing, always)


def test_a_reused_selection_computes_no_scores(make_inputs: Make) -> None:
    inputs = make_inputs(keys=40, queries=6)
    computed = []
    for call in steps(inputs, 1, {}):
        OracleTopK(tokens=5, every=3)(call, AttentionMask.empty(call))
        computed.append("scores" in vars(call))
    assert computed == [True, False, False, True, False, False]
