"""MagicPIG: sampling frequencies and weights of keys at known angles, and its hash tables."""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from device_path import as_on_a_device
from torch import Tensor

from sah.attention import AttentionInputs, AttentionMask, Visibility
from sah.maskers import magic_pig
from sah.maskers.magic_pig import HashTables, MagicPIG
from sah.maskers.sink import Sink

Make = Callable[..., Any]

ANGLES = [math.radians(degrees) for degrees in (10, 30, 45, 60, 75, 85)]
# Made-up scores of the keys at each angle.
SCORES = [2.0, 1.4, 0.9, 0.5, 0.2, 0.0]

# Projections on orthogonal subspaces are independent: each row of the batch is a draw.
ROWS = 64
SEEDS = 60
DRAWS = ROWS * SEEDS


def at_angles() -> AttentionInputs:
    """Return one query and keys at ANGLES to it, in a separate plane for every row.

    Every key is followed by its opposite, so that their mean is zero and centring them
    changes nothing.
    """
    keys = torch.zeros(ROWS, 1, 2 * len(ANGLES), 2 * ROWS)
    query = torch.zeros(ROWS, 1, 1, 2 * ROWS)
    for row in range(ROWS):
        query[row, 0, 0, 2 * row] = 3.0
        for number, angle in enumerate(ANGLES):
            # Lengths differ, because only angles should matter.
            x, y = (1 + number) * math.cos(angle), (1 + number) * math.sin(angle)
            keys[row, 0, 2 * number, 2 * row : 2 * row + 2] = torch.tensor([x, y])
            keys[row, 0, 2 * number + 1] = -keys[row, 0, 2 * number]
    visibility = Visibility(torch.ones(ROWS, 1, 1, keys.shape[2], dtype=torch.bool))
    return AttentionInputs(
        query=query,
        key=keys,
        value=keys,
        visibility=visibility,
        scaling=1.0,
    )


ALL_ANGLES = [angle for near in ANGLES for angle in (near, math.pi - near)]


def tail(angle: float, planes: int, tables: int, least: int) -> float:
    """Return the probability of at least `least` collisions, as a sum of positive terms."""
    p = (1 - angle / math.pi) ** planes
    if p in (0, 1):
        return p
    return math.fsum(
        math.comb(tables, i) * p**i * math.exp((tables - i) * math.log1p(-p))
        for i in range(least, tables + 1)
    )


@pytest.fixture(scope="module", params=[(3, 6, 1), (3, 6, 2), (2, 8, 3)], ids=str)
def draws(request: pytest.FixtureRequest) -> tuple[MagicPIG, Tensor, Tensor]:
    """A masker, and for every draw the sampled keys [n, K] and their weights [n, K]."""
    planes, tables, collisions = request.param
    masker = MagicPIG(planes=planes, tables=tables, min_collisions=collisions)
    given, masks = at_angles(), []
    for seed in range(SEEDS):
        inputs = replace(given, index_seed=seed, indexes={})
        masks.append(masker(inputs, AttentionMask.empty(inputs)))
    selected = torch.cat([mask.selected[:, 0, 0] for mask in masks])
    return masker, selected, torch.cat([mask.weights[:, 0, 0] for mask in masks]).double()


def test_keys_are_sampled_as_often_as_the_formula_says(
    draws: tuple[MagicPIG, Tensor, Tensor],
) -> None:
    masker, selected, _ = draws
    frequency = selected.double().mean(0).tolist()
    for angle, observed in zip(ALL_ANGLES, frequency, strict=True):
        expected = tail(angle, masker.planes, masker.tables, masker.min_collisions)
        # 36 comparisons: one in 4,000 seeds exceeds 4.5 standard errors by chance. The rarest
        # keys are expected less than once in all draws.
        allowed = 4.5 * math.sqrt(expected * (1 - expected) / DRAWS) + 2 / DRAWS
        assert abs(observed - expected) < allowed


def test_a_sampled_key_weighs_one_over_its_probability(
    draws: tuple[MagicPIG, Tensor, Tensor],
) -> None:
    masker, selected, weights = draws
    for number, angle in enumerate(ALL_ANGLES):
        probability = tail(angle, masker.planes, masker.tables, masker.min_collisions)
        expected = 1 / max(probability, 1e-4)
        own = weights[:, number][selected[:, number]]
        # Angles are computed from float32 products.
        assert torch.allclose(own, torch.full_like(own, expected), rtol=1e-3)


def test_denominator_and_numerator_are_unbiased(draws: tuple[MagicPIG, Tensor, Tensor]) -> None:
    _, _, weights = draws
    # Keys at acute angles only: the others are sampled too rarely to measure.
    mass = torch.tensor(SCORES).double().exp()
    value = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0, 2.0]).double()
    for quantity in (mass, mass * value):
        estimates = weights[:, 0::2] @ quantity
        standard_error = float(estimates.std()) / math.sqrt(DRAWS)
        assert abs(float(estimates.mean() - quantity.sum())) < 4 * standard_error
        assert standard_error < 0.05 * float(mass.sum())


@pytest.mark.parametrize(("planes", "tables"), [(1, 1), (2, 8), (10, 150), (15, 255)])
@pytest.mark.parametrize("collisions", [1, 2, 3])
def test_the_inclusion_probability_is_the_tail_of_a_binomial(
    planes: int, tables: int, collisions: int
) -> None:
    collisions = min(collisions, tables)
    masker = MagicPIG(planes=planes, tables=tables, min_collisions=collisions)
    for step in range(101):
        angle = math.pi * step / 100
        computed = float(masker.inclusion_probability(torch.tensor(angle, dtype=torch.float64)))
        expected = tail(angle, planes, tables, collisions)
        # A difference of numbers near 1, one a power up to 255: an error of about 255 · 2^-53.
        assert computed == pytest.approx(expected, rel=1e-9, abs=2e-13)


def test_the_angles_are_those_of_the_centred_keys(make_inputs: Make) -> None:
    # A mean much larger than the differences between keys.
    inputs = make_inputs(keys=60, dim=8)
    inputs.key[:] += 5.0
    masker = MagicPIG(planes=2, tables=10, min_collisions=1)
    mask = masker(inputs, AttentionMask.empty(inputs))
    mean = inputs.key[:, :, : inputs.context_length].double().mean(2)
    for h in range(4):
        query = inputs.query[0, h, 0].double()
        for k in mask.selected[0, h, 0, : inputs.context_length].nonzero().flatten().tolist():
            key = inputs.key[0, h // 2, k].double() - mean[0, h // 2]
            angle = math.acos(float(query @ key / query.norm() / key.norm()))
            weight = float(mask.weights[0, h, 0, k])
            assert weight == pytest.approx(1 / tail(angle, 2, 10, 1), rel=1e-3)


def test_no_weight_exceeds_the_largest(make_inputs: Make) -> None:
    weights = []
    for largest in (1e4, 3.0):
        inputs = make_inputs(keys=60)
        masker = MagicPIG(planes=2, tables=4, max_weight=largest)
        weights.append(masker(inputs, AttentionMask.empty(inputs)).weights)
    assert weights[0].max() > 3
    assert torch.equal(weights[0].clamp(max=3.0), weights[1])


def test_keys_after_the_context_are_read_exactly(make_inputs: Make) -> None:
    inputs = make_inputs(keys=60, queries=7, padding=(0, 5))
    mask = MagicPIG(planes=4, tables=10)(inputs, AttentionMask.empty(inputs))
    later = mask.weights[..., 53:]
    assert torch.equal(later, inputs.visible[..., 53:].expand_as(later).float())


def test_keys_selected_before_keep_weight_1(make_inputs: Make) -> None:
    inputs = make_inputs(keys=60)
    before = Sink(tokens=20)(inputs, AttentionMask.empty(inputs))
    mask = MagicPIG(planes=2, tables=10)(inputs, before)
    assert (mask.weights[..., :20] == 1).all()
    assert (mask.weights[..., 20:] > 1).any()


def tables_of(context: Tensor, planes: int = 4, **options: Any) -> HashTables:
    return HashTables(MagicPIG(planes=planes, tables=20, **options), context, context, 3)


def expected_collisions(tables: HashTables, query: Tensor, keys: Tensor) -> Tensor:
    """Count the tables with equal buckets, hashing all centred keys from scratch."""
    buckets = tables.hyperplanes.buckets(keys - tables.mean)
    own = tables.hyperplanes.buckets(query)
    counts = torch.zeros(*query.shape[:3], keys.shape[2], dtype=torch.long)
    for b, g, q, k in torch.cartesian_prod(*map(torch.arange, counts.shape)).tolist():
        counts[b, g, q, k] = sum(map(int.__eq__, own[b, g, q].tolist(), buckets[b, g, k].tolist()))
    return counts


@pytest.mark.parametrize("path", [nullcontext, as_on_a_device], ids=["cpu", "device"])
@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("context_length", [1, 31])
def test_collisions_are_those_of_the_context_whatever_comes_later(
    context_length: int, centre: bool, path: Make
) -> None:
    generator = torch.Generator().manual_seed(0)
    context, first, second = (
        torch.randn(2, 2, n, 8, generator=generator) + 2 for n in (context_length, 9, 9)
    )
    query = torch.randn(2, 2, 3, 8, generator=generator)
    with path():
        tables = tables_of(context, planes=3, centre=centre)
    mean = tables.mean.clone()
    expected_mean = context.mean(2, keepdim=True) if centre else torch.zeros(2, 2, 1, 8)
    assert torch.allclose(mean, expected_mean, atol=1e-6)
    assert torch.equal(tables.collisions(query), expected_collisions(tables, query, context))
    for later in (first, 4 * second, first):
        tables.rewind(context_length)
        for number in range(9):
            tables.append(later[:, :, number : number + 1], later[:, :, number : number + 1])
        keys = torch.cat([context, later], dim=2)
        assert tables.length == keys.shape[2]
        assert torch.equal(tables.mean, mean)
        assert torch.allclose(tables.norms, (context - mean).norm(dim=-1), rtol=1e-6)
        assert torch.equal(tables.collisions(query), expected_collisions(tables, query, context))


@pytest.mark.parametrize("planes", [1, 8, 15])
def test_the_first_and_last_bucket_of_a_table_are_found(planes: int) -> None:
    # With at most as many planes as dimensions, some vector is above all of them.
    settings = MagicPIG(planes=planes, tables=1, min_collisions=1, centre=False)
    vectors = torch.randn(1, 1, 40, 16, generator=torch.Generator().manual_seed(0))
    of_all_planes = HashTables(settings, vectors, vectors, 3).hyperplanes.normals.T
    upper = torch.linalg.lstsq(of_all_planes, torch.ones(planes, 1)).solution.view(1, 1, 1, 16)
    ends = torch.cat([upper, -upper], dim=2)
    keys = torch.cat([vectors, ends], dim=2)
    tables = HashTables(settings, keys, keys, 3)
    assert tables.hyperplanes.buckets(ends).flatten().tolist() == [2**planes - 1, 0]
    assert torch.equal(tables.collisions(ends), expected_collisions(tables, ends, keys))


def test_collisions_do_not_depend_on_chunking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keys = torch.randn(1, 2, 50, 8, generator=torch.Generator().manual_seed(0))
    whole = tables_of(keys)
    expected = whole.collisions(keys)
    monkeypatch.setattr(magic_pig, "_CHUNK_KEYS", 7)
    monkeypatch.setattr(magic_pig, "_CHUNK_ROWS", 3)
    chunked = tables_of(keys)
    assert torch.equal(chunked.collisions(keys), expected)
    assert chunked.nbytes == whole.nbytes
    monkeypatch.setattr(magic_pig, "_CHUNK_COMPARISONS", 2000)
    with as_on_a_device():
        compared = tables_of(keys)
    assert torch.equal(compared.collisions(keys), expected)


def test_tables_take_two_bytes_per_key_and_table_on_a_device_and_four_on_the_cpu() -> None:
    keys = torch.randn(1, 2, 50, 8, generator=torch.Generator().manual_seed(0))
    on_cpu = tables_of(keys)
    with as_on_a_device():
        on_device = tables_of(keys)
    starts = 2 * 20 * (2**4 + 1) * 4  # of the buckets of 2 heads and 20 tables
    assert on_cpu.nbytes - on_device.nbytes == 2 * 20 * 50 * (4 - 2) + starts


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"planes": 0}, "planes must be from 1 to 15, got 0"),
        ({"planes": 16}, "planes must be from 1 to 15, got 16"),
        ({"tables": 0}, "tables must be at least 1, got 0"),
        ({"max_weight": 0.5}, "max_weight must be at least 1, got 0.5"),
        ({"tables": 3, "min_collisions": 4}, "min_collisions must be from 1 to tables=3, got 4"),
    ],
)
def test_invalid_parameters_are_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        MagicPIG(**changes)
