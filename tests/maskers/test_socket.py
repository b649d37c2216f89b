"""SOCKET against its definition in loops: buckets, and a softmax over all sign corners."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from sah.attention import AttentionInputs, AttentionMask
from sah.maskers import socket
from sah.maskers.socket import SOCKET, HashedKeys

Make = Callable[..., Any]


def planes_of(masker: SOCKET, index: HashedKeys) -> list[list[list[float]]]:
    """Return the planes as [table][plane] lists of D numbers."""
    columns: list[list[float]] = index.hyperplanes.normals.T.double().tolist()
    return [
        columns[first : first + masker.planes] for first in range(0, len(columns), masker.planes)
    ]


def dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def signs(vector: list[float], table: list[list[float]]) -> tuple[int, ...]:
    return tuple(1 if dot(vector, plane) >= 0 else -1 for plane in table)


def scores(masker: SOCKET, inputs: AttentionInputs, b: int, h: int, q: int) -> list[float]:
    """Return Σ_tables p(bucket of the key), times the norm of the value, for every key."""
    index = inputs.indexes[masker]
    assert isinstance(index, HashedKeys)
    query = inputs.query[b, h, q].double().tolist()
    g = h // inputs.group_size
    collisions = [0.0] * inputs.key.shape[2]
    for table in planes_of(masker, index):
        soft = [math.tanh(dot(query, plane)) / math.sqrt(len(query)) for plane in table]
        corners = list(itertools.product((-1, 1), repeat=masker.planes))
        logits = [dot(soft, list(corner)) / masker.tau for corner in corners]
        largest = max(logits)
        mass = [math.exp(logit - largest) for logit in logits]
        probability = dict(zip(corners, (m / math.fsum(mass) for m in mass), strict=True))
        for k, key in enumerate(inputs.key[b, g].double().tolist()):
            collisions[k] += probability[signs(key, table)]
    return [
        collided * math.sqrt(dot(value, value))
        for collided, value in zip(collisions, inputs.value[b, g].double().tolist(), strict=True)
    ]


def select(masker: SOCKET, inputs: AttentionInputs) -> torch.Tensor:
    return masker(inputs, AttentionMask.empty(inputs)).selected


@pytest.mark.parametrize("tau", [0.05, 0.5])
@pytest.mark.parametrize(("planes", "tables"), [(1, 5), (2, 4), (3, 4), (5, 3), (8, 1)])
def test_ranks_keys_by_their_probability_in_the_softmax_over_all_corners(
    planes: int, tables: int, tau: float, make_inputs: Make
) -> None:
    inputs = replace(make_inputs(keys=12, queries=2, padding=(0, 0), dim=8), index_seed=planes)
    # Every budget from 1 up, which checks the whole order of the keys.
    picked = [
        select(SOCKET(tokens=n, planes=planes, tables=tables, tau=tau), inputs)
        for n in range(1, 11)
    ]
    masker = SOCKET(tokens=1, planes=planes, tables=tables, tau=tau)
    for b, h, q in torch.cartesian_prod(*map(torch.arange, (2, 4, 2))).tolist():
        score = scores(masker, inputs, b, h, q)
        visible = inputs.visible[b, 0, q].nonzero().flatten().tolist()
        for n, selected in enumerate(picked, start=1):
            chosen = selected[b, h, q].nonzero().flatten().tolist()
            assert len(chosen) == n
            rejected = max(score[k] for k in visible if k not in chosen)
            assert min(score[k] for k in chosen) >= rejected * (1 - 1e-4)


def test_buckets_are_the_sides_of_the_planes_bit_by_bit(make_inputs: Make) -> None:
    inputs = make_inputs(keys=20, padding=(0, 0))
    masker = SOCKET(tokens=1, planes=7, tables=3)
    index = HashedKeys(masker, inputs.key, inputs.value, 1)
    buckets, norms = index.codes
    assert buckets.dtype == torch.int16
    for b, g, k in torch.cartesian_prod(*map(torch.arange, (2, 2, 20))).tolist():
        key, value = inputs.key[b, g, k].tolist(), inputs.value[b, g, k].tolist()
        for table, planes in enumerate(planes_of(masker, index)):
            bits = [sign > 0 for sign in signs(key, planes)]
            assert buckets[b, g, k, table] == sum(bit << p for p, bit in enumerate(bits))
        assert norms[b, g, k].item() == pytest.approx(math.sqrt(dot(value, value)), rel=1e-5)


def test_buckets_of_15_planes_fit_into_int16(make_inputs: Make) -> None:
    inputs = make_inputs(keys=400)
    (buckets, _) = HashedKeys(
        SOCKET(tokens=1, planes=15, tables=40), inputs.key, inputs.value, 0
    ).codes
    assert buckets.min() >= 0
    # 16,000 draws out of 2^15 buckets: some are in the upper half, and none is negative.
    assert buckets.max() >= 2**14


@pytest.mark.parametrize("planes", [3, 4])
def test_a_small_tau_counts_hard_collisions(planes: int, make_inputs: Make) -> None:
    inputs = make_inputs(keys=60, dim=8)
    masker = SOCKET(tokens=6, planes=planes, tables=12, tau=1e-5)
    selected = select(masker, inputs)
    index = inputs.indexes[masker]
    assert isinstance(index, HashedKeys)
    tables = planes_of(masker, index)
    for h in range(4):
        query = inputs.query[0, h, 0].double().tolist()
        own = [signs(query, table) for table in tables]
        score = [
            sum(signs(key, table) == corner for table, corner in zip(tables, own, strict=True))
            * math.sqrt(dot(value, value))
            for key, value in zip(
                inputs.key[0, h // 2].double().tolist(),
                inputs.value[0, h // 2].double().tolist(),
                strict=True,
            )
        ]
        ranked = sorted(range(60), key=lambda k: score[k], reverse=True)
        assert score[ranked[5]] > score[ranked[6]] > 0
        assert sorted(ranked[:6]) == selected[0, h, 0].nonzero().flatten().tolist()


def test_with_a_large_tau_only_the_norms_of_the_values_count(make_inputs: Make) -> None:
    inputs = make_inputs(keys=60)
    selected = select(SOCKET(tokens=7, planes=4, tables=5, tau=1e6), inputs)
    for h in range(4):
        largest = inputs.value[0, h // 2].norm(dim=-1).topk(7).indices.sort().values
        assert torch.equal(selected[0, h, 0].nonzero().flatten(), largest)


def test_planes_are_normal_and_depend_on_the_index_seed_only(make_inputs: Make) -> None:
    inputs = make_inputs(keys=20)
    masker = SOCKET(tokens=3, planes=10, tables=60)

    def drawn(**seeds: int) -> torch.Tensor:
        given = replace(inputs, indexes={}, **seeds)
        select(masker, given)
        index = given.indexes[masker]
        assert isinstance(index, HashedKeys)
        return index.hyperplanes.normals

    planes = drawn(index_seed=1)
    assert torch.equal(planes, drawn(index_seed=1, seed=5))
    assert not torch.equal(planes, drawn(index_seed=2))
    # 9,600 numbers: four standard errors of mean and variance.
    assert abs(planes.mean()) < 4 / math.sqrt(planes.numel())
    assert abs(planes.var() - 1) < 4 * math.sqrt(2 / planes.numel())


def test_codes_do_not_depend_on_how_keys_are_chunked(
    make_inputs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_inputs(keys=50)
    masker = SOCKET(tokens=3, planes=6, tables=9)
    whole = HashedKeys(masker, inputs.key, inputs.value, 0)
    monkeypatch.setattr(socket, "_CHUNK_KEYS", 7)
    chunked = HashedKeys(masker, inputs.key, inputs.value, 0)
    assert torch.equal(whole.codes[0], chunked.codes[0])
    assert torch.allclose(whole.codes[1], chunked.codes[1])
    # Two bytes per table, four for the norm, and the planes.
    assert whole.nbytes == chunked.nbytes == 2 * 50 * (9 * 2 + 4) + 16 * 54 * 4


def test_scores_do_not_depend_on_the_size_of_query_chunks(
    make_inputs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = make_inputs(keys=60, queries=20)
    masker = SOCKET(tokens=5, planes=4, tables=8)
    whole = select(masker, inputs)
    monkeypatch.setattr(socket, "_QUERIES_AT_ONCE", 3)
    assert torch.equal(select(masker, inputs), whole)


@pytest.mark.parametrize(("workspace", "look_ups"), [(2**20, 16), (0, 1), (0, 4), (0, 99)])
@pytest.mark.parametrize("planes", [1, 4, 5])
def test_scores_are_the_looked_up_probabilities_of_each_row_of_the_batch(
    planes: int,
    workspace: int,
    look_ups: int,
    make_inputs: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "_CPU_WORKSPACE", workspace)
    monkeypatch.setattr(socket, "_MOST_LOOK_UPS", look_ups)
    inputs = make_inputs(padding=(0, 0, 0), keys=30, queries=2)
    masker = SOCKET(tokens=5, planes=planes, tables=7)
    scores = masker.scores(inputs)
    index = inputs.indexes[masker]
    assert isinstance(index, HashedKeys)
    buckets, norms = index.codes
    corner = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=planes))).flip(-1)  # C P
    for b, h in torch.cartesian_prod(torch.arange(3), torch.arange(4)).tolist():
        g = h // 2
        soft = torch.tanh(inputs.query[b, h] @ index.hyperplanes.normals) / 16**0.5  # Q LP
        table = torch.softmax(soft.unflatten(-1, (7, planes)) @ corner.T / masker.tau, dim=-1)
        code = buckets[b, g].T.long().expand(2, -1, -1)  # Q L K
        expected = table.gather(-1, code).sum(1) * norms[b, g]
        torch.testing.assert_close(scores[b, h], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"planes": 0}, "planes must be from 1 to 15, got 0"),
        ({"planes": 16}, "planes must be from 1 to 15, got 16"),
        ({"tables": 0}, "tables must be at least 1, got 0"),
        ({"tau": 0.0}, r"tau must be positive, got 0\.0"),
        ({"tau": math.nan}, "tau must be positive, got nan"),
    ],
)
def test_invalid_parameters_are_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SOCKET(tokens=4, **changes)


def test_value_norms_matter_only_with_weigh_by_value(make_inputs: Make) -> None:
    inputs = make_inputs(keys=120)
    scale = 1 + 9 * torch.rand(120, 1, generator=torch.Generator().manual_seed(1))
    other = replace(inputs, value=inputs.value * scale, indexes={})
    for weigh, same in ((True, False), (False, True)):
        masker = SOCKET(tokens=20, weigh_by_value=weigh)
        masks = [masker(given, AttentionMask.empty(given)) for given in (inputs, other)]
        assert torch.equal(masks[0].selected, masks[1].selected) == same
