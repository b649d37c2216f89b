"""The maskers without an index, against their definitions by loops and sorting."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sah.attention import AttentionInputs, AttentionMask, Visibility
from sah.maskers.causal import Causal
from sah.maskers.local import Local
from sah.maskers.oracle_top_k import OracleTopK
from sah.maskers.oracle_top_p import OracleTopP
from sah.maskers.random_sampling import RandomSampling
from sah.maskers.sink import Sink

Make = Callable[..., Any]

problems = given(
    keys=st.integers(1, 30),
    queries=st.integers(1, 30),
    padding=st.lists(st.integers(0, 12), min_size=1, max_size=2),
    tokens=st.integers(1, 20),
    seed=st.integers(0, 99),
)
few = settings(max_examples=30, deadline=None, derandomize=True)


def _rows(inputs: AttentionInputs) -> Iterator[tuple[tuple[int, int, int], list[int]]]:
    """Yield every (batch, head, query) and the positions of its visible keys."""
    batch, heads, queries = inputs.query.shape[:3]
    for b in range(batch):
        for h in range(heads):
            for q in range(queries):
                yield (b, h, q), inputs.visible[b, 0, q].nonzero().flatten().tolist()


def _selected(mask: AttentionMask, row: tuple[int, int, int]) -> list[int]:
    return mask.selected[row].nonzero().flatten().tolist()  # type: ignore[no-any-return]


def _scores(inputs: AttentionInputs, row: tuple[int, int, int]) -> list[float]:
    """Return q·k·scaling in float64."""
    b, h, q = row
    group = h // (inputs.query.shape[1] // inputs.key.shape[1])
    scores = inputs.key[b, group].double() @ inputs.query[b, h, q].double() * inputs.scaling
    return scores.tolist()  # type: ignore[no-any-return]


@few
@problems
def test_sink_adds_the_first_visible_keys(
    keys: int, queries: int, padding: list[int], tokens: int, seed: int, make_inputs: Make
) -> None:
    inputs = make_inputs(keys=keys, queries=min(queries, keys), padding=padding, seed=seed)
    mask = Sink(tokens=tokens)(inputs, AttentionMask.empty(inputs))
    for row, visible in _rows(inputs):
        assert _selected(mask, row) == visible[:tokens]


@few
@problems
def test_local_adds_the_last_visible_keys_of_each_query_itself_included(
    keys: int, queries: int, padding: list[int], tokens: int, seed: int, make_inputs: Make
) -> None:
    inputs = make_inputs(keys=keys, queries=min(queries, keys), padding=padding, seed=seed)
    mask = Local(tokens=tokens)(inputs, AttentionMask.empty(inputs))
    for row, visible in _rows(inputs):
        assert _selected(mask, row) == visible[-tokens:]


@few
@problems
def test_causal_adds_all_visible_keys(
    keys: int, queries: int, padding: list[int], tokens: int, seed: int, make_inputs: Make
) -> None:
    inputs = make_inputs(keys=keys, queries=min(queries, keys), padding=padding, seed=seed)
    mask = Causal()(inputs, Sink(tokens=tokens)(inputs, AttentionMask.empty(inputs)))
    for row, visible in _rows(inputs):
        assert _selected(mask, row) == visible


@few
@problems
def test_oracle_top_k_adds_the_highest_scores_among_the_candidates(
    keys: int, queries: int, padding: list[int], tokens: int, seed: int, make_inputs: Make
) -> None:
    inputs = make_inputs(keys=keys, queries=min(queries, keys), padding=padding, seed=seed)
    before = Sink(tokens=2)(inputs, AttentionMask.empty(inputs))
    mask = OracleTopK(tokens=tokens)(inputs, before)
    for row, visible in _rows(inputs):
        score = _scores(inputs, row)
        ranked = sorted(visible[2:], key=lambda k: score[k], reverse=True)
        assert _selected(mask, row) == sorted(visible[:2] + ranked[:tokens])


@few
@given(
    keys=st.integers(1, 40),
    padding=st.lists(st.integers(0, 8), min_size=1, max_size=2),
    p=st.floats(0.05, 0.999),
    window=st.integers(1, 5),
    seed=st.integers(0, 99),
)
def test_oracle_top_p_adds_the_fewest_keys_that_reach_p_with_those_selected_before(
    keys: int, padding: list[int], p: float, window: int, seed: int, make_inputs: Make
) -> None:
    inputs = make_inputs(keys=keys, queries=min(3, keys), padding=padding, seed=seed)
    before = Local(tokens=window)(inputs, AttentionMask.empty(inputs))
    mask = OracleTopP(p=p)(inputs, before)
    for row, visible in _rows(inputs):
        mass = {k: math.exp(score) for k, score in enumerate(_scores(inputs, row)) if k in visible}
        total = sum(mass.values())
        chosen = visible[-window:]
        ranked = sorted(visible[:-window], key=lambda k: mass[k], reverse=True)
        while ranked and sum(mass[k] for k in chosen) < p * total:
            chosen.append(ranked.pop(0))
        assert _selected(mask, row) == sorted(chosen)


def test_random_sampling_draws_without_replacement_and_weighs_by_the_inverse_probability(
    make_inputs: Make,
) -> None:
    inputs = make_inputs(keys=30, queries=20, padding=(0, 4))
    before = Sink(tokens=3)(inputs, AttentionMask.empty(inputs))
    mask = RandomSampling(tokens=5)(inputs, before)
    for row, visible in _rows(inputs):
        candidates = visible[3:]
        drawn = [k for k in _selected(mask, row) if k not in visible[:3]]
        assert set(drawn) <= set(candidates)
        assert len(drawn) == min(5, len(candidates))
        for k in drawn:
            expected = max(1.0, len(candidates) / 5)
            assert mask.weights[row][k].item() == pytest.approx(expected, rel=1e-6)
        for k in visible[:3]:
            assert mask.weights[row][k].item() == 1


def test_random_sampling_draws_differently_for_every_head_query_and_seed(make_inputs: Make) -> None:
    drawn = set()
    for seed in range(3):
        inputs = make_inputs(keys=200, queries=5, run_seed=seed)
        mask = RandomSampling(tokens=20)(inputs, AttentionMask.empty(inputs))
        drawn |= {tuple(_selected(mask, row)) for row, _ in _rows(inputs)}
    assert len(drawn) == 3 * 4 * 5


@pytest.fixture(scope="module")
def draws(make_inputs: Make) -> tuple[torch.Tensor, torch.Tensor]:
    """12,000 draws of 6 of 24 candidates: the drawn keys [n, 24] and their weights [n, 24].

    20 seeds, 4 heads and 150 queries that all see the same 26 keys, of which Sink took 2.
    """
    selected, weights = [], []
    for seed in range(20):
        given = make_inputs(keys=26, queries=1, dim=4, run_seed=seed)
        inputs = AttentionInputs(
            query=given.query.expand(1, 4, 150, 4),
            key=given.key,
            value=given.value,
            visibility=Visibility(given.visible.expand(1, 1, 150, 26)),
            scaling=given.scaling,
            seed=seed,
        )
        before = Sink(tokens=2)(inputs, AttentionMask.empty(inputs))
        mask = RandomSampling(tokens=6)(inputs, before)
        selected.append(mask.selected.flatten(0, 2)[:, 2:])
        weights.append(mask.weights.flatten(0, 2)[:, 2:])
    return torch.cat(selected), torch.cat(weights)


def test_random_sampling_includes_every_candidate_with_probability_b_over_n(
    draws: tuple[torch.Tensor, torch.Tensor],
) -> None:
    selected, _ = draws
    frequency = selected.double().mean(0)
    standard_error = math.sqrt(6 / 24 * (1 - 6 / 24) / len(selected))
    # 24 keys: one in 700 seeds exceeds 4 standard errors by chance.
    assert (frequency - 6 / 24).abs().max() < 4 * standard_error


def test_random_sampling_includes_every_pair_as_often_as_drawing_without_replacement(
    draws: tuple[torch.Tensor, torch.Tensor],
) -> None:
    selected, _ = draws
    together = selected.double().T @ selected.double() / len(selected)
    expected = 6 * 5 / (24 * 23)
    standard_error = math.sqrt(expected * (1 - expected) / len(selected))
    pairs = together[torch.triu(torch.ones(24, 24, dtype=torch.bool), diagonal=1)]
    # 276 pairs: one in 500 seeds exceeds 4.5 standard errors by chance.
    assert (pairs - expected).abs().max() < 4.5 * standard_error


def test_random_sampling_is_unbiased_in_denominator_and_numerator(
    draws: tuple[torch.Tensor, torch.Tensor],
) -> None:
    _, weights = draws
    generator = torch.Generator().manual_seed(3)
    exponentials = torch.randn(24, generator=generator).double().exp()
    values = torch.randn(24, generator=generator).double()
    for quantity in (exponentials, exponentials * values):
        estimates = weights.double() @ quantity
        # Variance of a total that is estimated from 6 of 24, drawn without replacement.
        variance = 24**2 * (1 - 6 / 24) * quantity.var() / 6
        standard_error = math.sqrt(variance / len(estimates))
        assert abs(estimates.mean() - quantity.sum()) < 4 * standard_error
        # It would be a third larger with replacement.
        assert estimates.var().item() == pytest.approx(variance.item(), rel=0.1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Sink(tokens=0), "Sink: tokens must be a whole number of at least 1, got 0"),
        (lambda: Local(tokens=2.0), "Local: tokens must be a whole number of at least 1, got 2.0"),
        (lambda: OracleTopK(), "OracleTopK: give exactly one of tokens and fraction"),
        (lambda: RandomSampling(tokens=1.0), "RandomSampling: tokens must be a whole number"),
        (lambda: RandomSampling(fraction="0.1"), r"RandomSampling: fraction must be in \(0, 1\]"),
        (lambda: OracleTopP(p=0), r"OracleTopP: p must be in \(0, 1\], got 0"),
    ],
)
def test_invalid_parameters_are_refused_by_name(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_an_integer_1_is_the_whole_fraction(make_inputs: Make) -> None:
    inputs = make_inputs(keys=9, queries=2)
    mask = RandomSampling(fraction=1)(inputs, AttentionMask.empty(inputs))
    assert torch.equal(mask.weights, inputs.visible.expand_as(mask.selected).float())
