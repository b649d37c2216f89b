"""PQCache against its definition in loops: k-means, codes, scores."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from sah.attention import AttentionMask
from sah.maskers.local import Local
from sah.maskers.oracle_top_k import OracleTopK
from sah.maskers.pq_cache import PQCache, ProductQuantisedKeys
from sah.maskers.sink import Sink

Make = Callable[..., Any]
Metric = Literal["l2", "ip"]

METRICS: tuple[Metric, ...] = ("l2", "ip")


def settings(**changes: Any) -> PQCache:
    return PQCache(**{"tokens": 8, "subvectors": 2, "bits": 3, "iterations": 5, **changes})


def keys(count: int, seed: int = 0) -> Tensor:
    """Return clustered keys of different lengths, [2, 2, count, 8]."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(2, 2, 6, 8, generator=generator)
    member = torch.randint(6, (count,), generator=generator)
    return 2 * centre[:, :, member] + 0.7 * torch.randn(2, 2, count, 8, generator=generator)


def parts(key: Tensor, index: ProductQuantisedKeys, metric: Metric, context: Tensor) -> Any:
    """Yield every (clustered sub-vectors [N, E], codes [N], centroids [C, E])."""
    (codes,) = index.codes
    width = key.shape[-1] // codes.shape[2]
    for b, g, m in torch.cartesian_prod(*map(torch.arange, codes.shape[:3])).tolist():
        cut = slice(m * width, (m + 1) * width)
        vectors = key[b, g, :, cut].double()
        if metric == "ip":
            longest = context[b, g, :, cut].double().norm(dim=-1).max().item()
            missing = [math.sqrt(max(0.0, longest**2 - float(v @ v))) for v in vectors]
            vectors = torch.cat([vectors, torch.tensor(missing).double()[:, None]], dim=1)
        yield vectors, codes[b, g, m].tolist(), index.centroids[b, g, m].double()


def error(key: Tensor, index: ProductQuantisedKeys, metric: Metric) -> float:
    """Return Σ |x - centroid(x)|² over the context's keys."""
    return math.fsum(
        float((vectors - centroids[codes]).square().sum())
        for vectors, codes, centroids in parts(key, index, metric, key)
    )


@pytest.mark.parametrize("metric", METRICS)
def test_every_iteration_of_k_means_reduces_the_error(metric: Metric) -> None:
    key = keys(120)
    errors = [
        error(key, ProductQuantisedKeys(settings(iterations=n, metric=metric), key, key, 3), metric)
        for n in range(9)
    ]
    assert all(after <= before * (1 + 1e-6) for before, after in itertools.pairwise(errors))
    assert errors[-1] < 0.85 * errors[0]


@pytest.mark.parametrize("metric", METRICS)
def test_k_means_ends_with_every_centroid_the_mean_of_its_keys(metric: Metric) -> None:
    key = keys(120)
    index = ProductQuantisedKeys(settings(iterations=60, metric=metric), key, key, 3)
    for vectors, codes, centroids in parts(key, index, metric, key):
        for code in set(codes):
            members = [vector for vector, own in zip(vectors, codes, strict=True) if own == code]
            mean = torch.stack(members).mean(0)
            assert torch.allclose(mean, centroids[code], atol=1e-5)


@pytest.mark.parametrize("subvectors", [1, 2, 8])
@pytest.mark.parametrize("metric", METRICS)
def test_codes_are_the_nearest_centroids_of_context_and_later_keys(
    metric: Metric, subvectors: int
) -> None:
    context, later = keys(50), 1.5 * keys(20, seed=1)
    options = settings(metric=metric, subvectors=subvectors)
    index = ProductQuantisedKeys(options, context, context, 3)
    centroids, (codes,) = index.centroids.clone(), index.codes
    codes = codes.clone()
    for number in range(20):
        index.append(later[:, :, number : number + 1], later[:, :, number : number + 1])
    assert torch.equal(index.centroids, centroids)
    assert torch.equal(index.codes[0][..., :50], codes)
    assert index.codes[0].dtype == torch.uint8
    key = torch.cat([context, later], dim=2)
    for vectors, own, places in parts(key, index, metric, context):
        assert len(own) == 70
        for vector, code in zip(vectors, own, strict=True):
            distances = [float((vector - place).square().sum()) for place in places]
            assert distances[code] <= min(distances) + 1e-4


def test_ip_extends_context_keys_to_one_norm_so_that_the_nearest_has_the_largest_product() -> None:
    key = keys(40)
    index = ProductQuantisedKeys(settings(metric="ip", subvectors=1, bits=8), key, key, 0)
    # More centroids than keys: the centroids are the extended keys.
    extended = index.centroids[0, 0, 0][index.codes[0][0, 0, 0].long()]
    assert torch.allclose(extended[:, :-1], key[0, 0], atol=1e-5)
    assert torch.allclose(extended.norm(dim=-1), key[0, 0].norm(dim=-1).max(), atol=1e-4)
    for query in torch.randn(10, 8, generator=torch.Generator().manual_seed(0)):
        target = torch.cat([query, torch.zeros(1)])
        nearest = int((extended - target).norm(dim=-1).argmin())
        assert nearest == int((key[0, 0] @ query).argmax())


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_fewer_keys_than_centroids_are_kept_exactly(count: int, metric: Metric) -> None:
    key = keys(count)
    index = ProductQuantisedKeys(settings(bits=4, metric=metric), key, key, 3)
    assert index.centroids.shape[3] == 16
    assert error(key, index, metric) < 1e-8
    later = keys(5, seed=1)
    index.append(later, later)
    assert index.codes[0].shape[-1] == count + 5


@pytest.mark.parametrize("metric", METRICS)
def test_chunks_give_the_same_codes_and_centroids(metric: Metric) -> None:
    key = keys(300)
    # 8 sub-vectors at 64 centroids of 4 bytes: 32 keys at a time instead of all 300.
    whole, chunked = (
        ProductQuantisedKeys(settings(bits=6, metric=metric, workspace_bytes=n), key, key, 3)
        for n in (2**26, 2**16)
    )
    assert torch.equal(whole.codes[0], chunked.codes[0])
    assert torch.allclose(whole.centroids, chunked.centroids, atol=1e-5)


@pytest.mark.parametrize("bits", [1, 6, 8])
def test_codes_take_one_byte_for_any_number_of_bits(bits: int) -> None:
    key = keys(300)
    index = ProductQuantisedKeys(settings(bits=bits), key, key, 3)
    assert index.codes[0].dtype == torch.uint8
    assert index.codes[0].max() == 2**bits - 1
    assert index.nbytes == 2 * 2 * (2 * 300 + 2**bits * 8 * 4)


@pytest.mark.parametrize("subvectors", [1, 2, 4])
@pytest.mark.parametrize("metric", METRICS)
def test_adds_the_candidates_whose_centroids_score_highest(
    metric: Metric, subvectors: int, make_inputs: Make, some_mask: Make
) -> None:
    inputs = make_inputs(keys=60, queries=3, padding=(0, 5))
    before = some_mask(inputs)
    masker = settings(metric=metric, subvectors=subvectors, bits=4, share="head")
    added = masker(inputs, before).selected & ~before.selected
    index = inputs.indexes[masker]
    (codes,) = index.codes
    width = 16 // subvectors
    for b, h, q in torch.cartesian_prod(*map(torch.arange, (2, 4, 3))).tolist():
        query = inputs.query[b, h, q].tolist()
        scores = {}
        for k in before.candidates[b, h, q].nonzero().flatten().tolist():
            scores[k] = 0.0
            for m in range(subvectors):
                centroid = index.centroids[b, h // 2, m, int(codes[b, h // 2, m, k])].tolist()
                for d in range(width):
                    scores[k] += query[m * width + d] * centroid[d]
        chosen = added[b, h, q].nonzero().flatten().tolist()
        assert len(chosen) == 8
        # Keys with equal codes tie.
        rejected = max(score for k, score in scores.items() if k not in chosen)
        assert min(scores[k] for k in chosen) >= rejected - 1e-4


@pytest.mark.parametrize("metric", METRICS)
def test_with_one_centroid_per_key_it_equals_the_oracle(
    metric: Metric, make_inputs: Make, some_mask: Make
) -> None:
    # All keys are context: later keys would not have their own centroids.
    inputs = replace(make_inputs(keys=100, queries=4), context_length=100)
    mask = some_mask(inputs)
    for share in ("head", "group"):
        found = settings(metric=metric, bits=7, share=share)(inputs, mask)
        expected = OracleTopK(tokens=8, share=share)(inputs, mask)
        assert torch.equal(found.selected, expected.selected)


def test_the_heads_of_a_group_select_by_the_sum_of_their_softmax(make_inputs: Make) -> None:
    inputs = make_inputs(keys=60, queries=3)
    before = Sink(tokens=4)(inputs, Local(tokens=8)(inputs, AttentionMask.empty(inputs)))
    masker = settings()
    assert masker.share == "group"
    added = masker(inputs, before).selected & ~before.selected
    logits = masker.scores(inputs).double() / 16**0.5
    share = logits.masked_fill(~before.candidates, -math.inf).softmax(-1)
    total = share.unflatten(1, (2, 2)).sum(2)  # B G Q K
    best = total.argsort(dim=-1, descending=True, stable=True)[..., :8]
    expected = torch.zeros(1, 2, 3, 60, dtype=torch.bool).scatter_(-1, best, True)
    assert torch.equal(added, expected.repeat_interleave(2, dim=1))


def test_centroids_depend_on_seed_and_context_only(make_inputs: Make) -> None:
    key = keys(120)
    first, again, other = (ProductQuantisedKeys(settings(), key, key, n) for n in (3, 3, 4))
    assert torch.equal(first.centroids, again.centroids)
    assert not torch.equal(first.centroids, other.centroids)
    # The context of make_inputs is all keys but those of the queries.
    masker = settings()
    inputs = make_inputs(keys=60, queries=20)
    masker(inputs, AttentionMask.empty(inputs))
    alone = ProductQuantisedKeys(masker, inputs.key[:, :, :40], inputs.value[:, :, :40], 0)
    assert torch.equal(inputs.indexes[masker].centroids, alone.centroids)


def test_subvectors_that_do_not_divide_the_head_dimension_are_refused(make_inputs: Make) -> None:
    inputs = make_inputs(keys=20)
    with pytest.raises(ValueError, match="subvectors=3 does not divide the head dimension 16"):
        settings(subvectors=3)(inputs, AttentionMask.empty(inputs))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"subvectors": 0}, "subvectors must be at least 1, got 0"),
        ({"bits": 0}, "bits must be from 1 to 8, got 0"),
        ({"bits": 9}, "bits must be from 1 to 8, got 9"),
        ({"iterations": -1}, "iterations must be at least 0, got -1"),
        ({"workspace_bytes": 100}, r"workspace_bytes must be at least 2\*\*16, got 100"),
    ],
)
def test_invalid_parameters_are_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        settings(**changes)
