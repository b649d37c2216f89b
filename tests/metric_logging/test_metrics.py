# B batch, H query heads, G key-value heads, Q queries, K keys, D head dimension, V value dimension

import math
from dataclasses import replace

import pytest
import torch

from sah.attention import AttentionInputs, AttentionMask, Visibility
from sah.metric_logging import AttentionMetrics, metrics
from sah.metric_logging.metrics import SampledMeans
from sah.results.schema import DENSITY, OUTPUT_ERROR, RECALL, ROWS_READ

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
    assert float(mask.density().nanmean()) == pytest.approx(expected, rel=1e-5)


def test_recall_is_the_softmax_mass_on_the_selected_keys(inputs, mask):
    expected = mean(
        sum(
            share
            for k, share in zip(keys, shares(inputs, b, h, q, keys), strict=True)
            if mask.selected[b, h, q, k]
        )
        for b, h, q, keys in cells(inputs)
    )
    assert float(metrics.recall(inputs, mask).nanmean()) == pytest.approx(expected, rel=1e-5)


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
    assert float(metrics.output_error(inputs, mask, output).nanmean()) == pytest.approx(
        expected, rel=1e-4
    )


@pytest.mark.parametrize("all_or_nothing", [1.0, 0.0], ids=["all", "nothing"])
def test_density_and_recall_are_one_for_all_keys_and_zero_for_none(inputs, all_or_nothing):
    mask = AttentionMask.empty(inputs).add(inputs.visible & bool(all_or_nothing))
    assert float(mask.density().nanmean()) == all_or_nothing
    assert float(metrics.recall(inputs, mask).nanmean()) == pytest.approx(all_or_nothing)


def test_an_output_of_zeros_has_an_error_of_one(inputs, mask):
    zeros = torch.zeros(B, H, Q, V)
    assert float(metrics.output_error(inputs, mask, zeros).nanmean()) == pytest.approx(1.0)


def test_rows_read_is_the_share_of_rows_that_any_head_of_a_group_reads(inputs, mask):
    expected = {}
    for b, h, q, keys in cells(inputs):
        union = expected.setdefault((b, h // (H // G), q), (set(), len(keys)))[0]
        union.update(k for k in keys if mask.selected[b, h, q, k])
    read = float(metrics.rows_read(inputs, mask).nanmean())
    assert read == pytest.approx(mean(len(rows) / seen for rows, seen in expected.values()))
    density = float(mask.density().nanmean())
    assert density < read < H / G * density


def test_padding_counts_in_no_metric(inputs, mask):
    zeros = torch.zeros(B, H, Q, V)
    for values in (
        mask.density(),
        metrics.rows_read(inputs, mask),
        metrics.output_error(inputs, mask, zeros),
        metrics.recall(inputs, mask),
    ):
        heads = values.shape[1]
        assert values.isnan().nonzero().tolist() == [[1, head, 0] for head in range(heads)]


def test_equal_outputs_of_zeros_have_no_error(inputs, mask):
    nothing = replace(inputs, value=torch.zeros_like(inputs.value))
    error = metrics.output_error(nothing, mask, torch.zeros(B, H, Q, V))
    assert error.nansum() == 0


def test_an_observer_logs_each_metric_with_layer_and_step(inputs, mask, configured, records):
    logger = configured(enabled_metrics=[DENSITY, ROWS_READ, OUTPUT_ERROR, RECALL])
    logger.begin_example("example")
    AttentionMetrics(logger)(inputs, mask, torch.zeros(B, H, Q, V))
    logger.flush()
    found = {record["metric"]: record for record in records()}
    assert len(records()) == len(found) == 4
    for record in records():
        assert record["metadata"] == {
            "example_id": "example",
            "layer_idx": 5,
            "step": K - Q,
            "queries": Q,
        }
        assert record["location"] == "sah.metric_logging.metrics.AttentionMetrics._measure"
    assert found[DENSITY]["value"] == pytest.approx(float(mask.density().nanmean()))
    rows = float(metrics.rows_read(inputs, mask).nanmean())
    assert found[ROWS_READ]["value"] == pytest.approx(rows)
    assert found[OUTPUT_ERROR]["value"] == pytest.approx(1.0)
    recall = float(metrics.recall(inputs, mask).nanmean())
    assert found[RECALL]["value"] == pytest.approx(recall)


def test_a_disabled_metric_is_not_computed(inputs, mask, configured, records, monkeypatch):
    def fail(*arguments):
        raise AssertionError

    monkeypatch.setattr(metrics, "output_error", fail)
    monkeypatch.setattr(metrics, "recall", fail)
    logger = configured(enabled_metrics=[DENSITY])
    observer = AttentionMetrics(logger)
    observer(inputs, mask, torch.zeros(B, H, Q, V))
    logger.flush()
    assert [record["metric"] for record in records()] == [DENSITY]
    assert observer.means() == SampledMeans(output_error=None, recall=None, queries=None)


# -- means of an example ---------------------------------------------------------------


def observed(logger, calls):
    """Show an observer calls of (queries, how much of the visible keys they read)."""
    draw = torch.Generator().manual_seed(3)
    observer = AttentionMetrics(logger)
    for queries, share in calls:
        inputs = AttentionInputs(
            query=torch.zeros(1, H, queries, D),
            key=torch.randn(1, G, 8, D, generator=draw),
            value=torch.ones(1, G, 8, V),
            visibility=Visibility(torch.ones(1, 1, queries, 8, dtype=torch.bool)),
            scaling=1.0,
        )
        first = torch.arange(8).view(1, 1, 1, 8) < 8 * share
        mask = AttentionMask.empty(inputs).add(first)
        # Keys have equal shares of the softmax, and a dense output of ones.
        observer(inputs, mask, torch.full((1, H, queries, V), 1 - share))
    return observer.means()


CALLS = [(30, 0.25), (1, 1.0), (1, 0.5)]


def test_a_call_counts_by_its_number_of_queries(configured):
    logger = configured()
    logger.begin_example("a")
    expected = (30 * 0.25 + 1.0 + 0.5) / 32
    means = observed(logger, CALLS)
    assert means.recall == pytest.approx(expected)
    assert means.output_error == pytest.approx(expected)
    assert means.queries == 32


def test_every_query_of_a_layer_is_drawn_with_the_same_probability(configured):
    """Whatever the size of its call: five layers with a question of 88 tokens and 12 steps."""
    logger = configured(sampling_factor=0.2)
    calls = [(88, 0.25)] * 5 + [(1, 1.0)] * 60
    expected = (88 * 0.25 + 12) / 100
    found = []
    for number in range(100):
        logger.begin_example(str(number))
        means = observed(logger, calls)
        assert 0.9 * 100 <= means.queries <= 1.1 * 100
        assert means.recall == pytest.approx(means.output_error)
        found.append(means.recall)
    # A mean over calls would be 0.94.
    assert mean(found) == pytest.approx(expected, abs=0.005)
    assert min(found) > 0.31
    assert max(found) < 0.37


def test_the_drawn_queries_have_the_values_they_have_among_all(inputs, mask, configured):
    output = torch.randn(B, H, Q, V, generator=torch.Generator().manual_seed(2))
    whole = metrics.output_error(inputs, mask, output), metrics.recall(inputs, mask)
    for computed in (True, False):
        fresh = replace(inputs)
        if computed:
            fresh.scores  # noqa: B018 - cached
        for start, end in ((0, 1), (1, 3), (0, 3)):
            some, part = fresh.at_queries(start, end), mask.at_queries(start, end)
            error = metrics.output_error(some, part, output[:, :, start:end])
            torch.testing.assert_close(error, whole[0][..., start:end], equal_nan=True)
            share = metrics.recall(some, part)
            torch.testing.assert_close(share, whole[1][..., start:end], equal_nan=True)
            rows = metrics.rows_read(inputs, mask)[..., start:end]
            torch.testing.assert_close(metrics.rows_read(some, part), rows, equal_nan=True)
            assert some.first_position == inputs.first_position + start


@pytest.mark.parametrize("limit", [0, 1])
def test_a_limit_of_records_does_not_change_the_means(configured, limit, records):
    unlimited, limited = configured(), configured(max_records=limit)
    means = []
    for logger in (unlimited, limited):
        logger.begin_example("a")
        means.append(observed(logger, CALLS))
    assert means[0] == means[1]
    limited.end_example()
    limited.flush()
    assert len(records()) == limit


def test_the_means_of_an_example_start_afresh(configured):
    logger = configured()
    logger.begin_example("a")
    observed(logger, [(30, 0.25)])
    logger.begin_example("b")
    assert observed(logger, [(2, 0.5)]).queries == 2


def test_an_example_without_a_drawn_call_is_not_measured(configured):
    logger = configured(sampling_factor=0.0)
    logger.begin_example("a")
    assert observed(logger, CALLS) == SampledMeans(output_error=None, recall=None, queries=0)


def test_a_mean_that_is_not_finite_counts_as_not_measured(configured, monkeypatch):
    logger = configured()
    logger.begin_example("a")
    monkeypatch.setattr(metrics, "output_error", lambda *_: torch.tensor([[[torch.inf]]]))
    monkeypatch.setattr(metrics, "recall", lambda *_: torch.tensor([[[torch.nan]]]))
    means = observed(logger, [(1, 0.5)])
    assert (means.output_error, means.recall) == (None, None)
