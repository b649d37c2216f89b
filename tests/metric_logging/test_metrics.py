# B batch, H query heads, G key-value heads, Q queries, K keys, D head dimension, V value dimension

import math

import pytest
import torch

from sah.attention import AttentionInputs, AttentionMask, Visibility
from sah.metric_logging import AttentionMetrics, metrics
from sah.results.schema import DENSITY, OUTPUT_ERROR, RECALL

B, H, G, Q, K, D, V = 2, 4, 2, 3, 5, 4, 3


@pytest.fixture
def inputs():
    """The last three queries of five; the first query of row 1 is padding and sees no key."""
    draw = torch.Generator().manual_seed(0)
    visible = torch.ones(B, 1, Q, K, dtype=torch.bool).tril(K - Q)
    visible[1, :, :, 0] = False
    visible[1, :, 0] = False
    return AttentionInputs(
        query=torch.randn(B, H, Q, D, generator=draw),
        key=torch.randn(B, G, K, D, generator=draw),
        value=torch.randn(B, G, K, V, generator=draw),
        visibility=Visibility(visible),
        scaling=0.7,
        layer_idx=5,
        first_position=K - Q,
    )


@pytest.fixture
def mask(inputs):
    """Each query reads some of the keys it sees, different ones in every head."""
    draw = torch.Generator().manual_seed(1)
    chosen = torch.rand(B, H, Q, K, generator=draw) < 0.5
    return AttentionMask.empty(inputs).add(chosen)


def cells(inputs):
    """Yield every query that sees a key, as (row, head, query, the keys it sees)."""
    for b in range(B):
        for h in range(H):
            for q in range(Q):
                keys = [k for k in range(K) if inputs.visible[b, 0, q, k]]
                if keys:
                    yield b, h, q, keys


def shares(inputs, b, h, q, keys):
    """Compute the softmax over the visible keys, key by key."""
    query, key = inputs.query[b, h, q], inputs.key[b, h // (H // G)]
    powers = [math.exp(float(query @ key[k]) * inputs.scaling) for k in keys]
    return [power / sum(powers) for power in powers]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def test_density_is_the_mean_of_selected_over_visible_keys(inputs, mask):
    expected = mean(
        sum(bool(mask.selected[b, h, q, k]) for k in keys) / len(keys)
        for b, h, q, keys in cells(inputs)
    )
    assert 0.2 < expected < 0.8
    assert float(metrics.density(mask)) == pytest.approx(expected, rel=1e-5)


def test_recall_is_the_softmax_mass_on_the_selected_keys(inputs, mask):
    expected = mean(
        sum(
            share
            for k, share in zip(keys, shares(inputs, b, h, q, keys), strict=True)
            if mask.selected[b, h, q, k]
        )
        for b, h, q, keys in cells(inputs)
    )
    assert float(metrics.recall(inputs, mask)) == pytest.approx(expected, rel=1e-5)


def test_output_error_is_the_relative_distance_to_dense_attention(inputs, mask):
    draw = torch.Generator().manual_seed(2)
    output = torch.randn(B, H, Q, V, generator=draw)

    def error(b, h, q, keys):
        value = inputs.value[b, h // (H // G)]
        dense = sum(
            share * value[k] for k, share in zip(keys, shares(inputs, b, h, q, keys), strict=True)
        )
        return float((output[b, h, q] - dense).norm() / dense.norm())

    expected = mean(error(*cell) for cell in cells(inputs))
    assert float(metrics.output_error(inputs, mask, output)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("all_or_nothing", [1.0, 0.0], ids=["all", "nothing"])
def test_density_and_recall_are_one_for_all_keys_and_zero_for_none(inputs, all_or_nothing):
    mask = AttentionMask.empty(inputs).add(inputs.visible & bool(all_or_nothing))
    assert float(metrics.density(mask)) == all_or_nothing
    assert float(metrics.recall(inputs, mask)) == pytest.approx(all_or_nothing)


def test_an_output_of_zeros_has_an_error_of_one(inputs, mask):
    zeros = torch.zeros(B, H, Q, V)
    assert float(metrics.output_error(inputs, mask, zeros)) == pytest.approx(1.0)


def test_an_observer_logs_each_metric_with_layer_and_step(inputs, mask, configured, records):
    logger = configured(enabled_metrics=[DENSITY, OUTPUT_ERROR, RECALL])
    logger.begin_example("example")
    AttentionMetrics(logger)(inputs, mask, torch.zeros(B, H, Q, V))
    logger.flush()
    found = {record["metric"]: record for record in records()}
    assert len(records()) == len(found) == 3
    for record in records():
        assert record["metadata"] == {"example_id": "example", "layer_idx": 5, "step": K - Q}
        assert record["location"] == "sah.metric_logging.metrics.AttentionMetrics.__call__"
    assert found[DENSITY]["value"] == pytest.approx(float(metrics.density(mask)))
    assert found[OUTPUT_ERROR]["value"] == pytest.approx(1.0)
    assert found[RECALL]["value"] == pytest.approx(float(metrics.recall(inputs, mask)))


def test_a_disabled_metric_is_not_computed(inputs, mask, configured, records, monkeypatch):
    def fail(*arguments):
        raise AssertionError

    monkeypatch.setattr(metrics, "output_error", fail)
    monkeypatch.setattr(metrics, "recall", fail)
    logger = configured(enabled_metrics=[DENSITY])
    AttentionMetrics(logger)(inputs, mask, torch.zeros(B, H, Q, V))
    logger.flush()
    assert [record["metric"] for record in records()] == [DENSITY]
