"""Records with the value of every head."""

# B batch, H query heads, G key-value heads, Q queries, K keys, D head dimension, V value dimension

import math
from dataclasses import replace

import pytest
import torch

from sah.attention import AttentionInputs, AttentionMask, Visibility
from sah.metric_logging import AttentionMetrics
from sah.metric_logging.metrics import PER_HEAD
from sah.results.schema import DENSITY, OUTPUT_ERROR, RECALL, ROWS_READ

B, H, G, Q, K, D, V = 2, 4, 2, 3, 5, 4, 3
GROUP = H // G


@pytest.fixture
def inputs():
    """The last three queries of five; the first query of row 1 is padding and sees no key."""
    draw = torch.Generator().manual_seed(0)
    visible = torch.ones(B, 1, Q, K, dtype=torch.bool).tril(K - Q)
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
    chosen = torch.rand(B, H, Q, K, generator=torch.Generator().manual_seed(1)) < 0.5
    return AttentionMask.empty(inputs).add(chosen)


@pytest.fixture
def output():
    return torch.randn(B, H, Q, V, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def recorded(configured, records, path):
    """Observe some calls of one example, and return the records."""

    def record(*calls, **settings):
        path.unlink(missing_ok=True)
        logger = configured(enabled_metrics=list(PER_HEAD), **settings)
        logger.begin_example("example")
        observer = AttentionMetrics(logger)
        for call in calls:
            observer(*call)
        logger.end_example()
        logger.flush()
        return [{**one, "timestamp": ""} for one in records()]

    return record


def expected_values(inputs, mask, output):
    """Compute the four metrics head by head and query by query, as means over the queries."""
    found = {name: {} for name in PER_HEAD}
    for b in range(B):
        for q in range(Q):
            keys = [k for k in range(K) if inputs.visible[b, 0, q, k]]
            if not keys:
                continue
            unions = [set() for _ in range(G)]
            for h in range(H):
                chosen = [k for k in keys if mask.selected[b, h, q, k]]
                unions[h // GROUP].update(chosen)
                key, value = inputs.key[b, h // GROUP], inputs.value[b, h // GROUP]
                powers = {
                    k: math.exp(float(inputs.query[b, h, q] @ key[k]) * inputs.scaling)
                    for k in keys
                }
                shares = {k: power / sum(powers.values()) for k, power in powers.items()}
                dense = sum(share * value[k] for k, share in shares.items())
                values = {
                    DENSITY: len(chosen) / len(keys),
                    RECALL: sum(shares[k] for k in chosen),
                    OUTPUT_ERROR: float((output[b, h, q] - dense).norm() / dense.norm()),
                }
                for name, one in values.items():
                    found[name].setdefault(h, []).append(one)
            for g, union in enumerate(unions):
                found[ROWS_READ].setdefault(g, []).append(len(union) / len(keys))
    return {
        name: [sum(values) / len(values) for _, values in sorted(by_head.items())]
        for name, by_head in found.items()
    }


def test_every_head_has_its_own_value(inputs, mask, output, recorded):
    found = {one["metric"]: one["heads"] for one in recorded((inputs, mask, output), per_head=True)}
    expected = expected_values(inputs, mask, output)
    assert {name: len(values) for name, values in expected.items()} == {
        name: H if unit == "query head" else G for name, unit in PER_HEAD.items()
    }
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, rel=1e-4), name
        assert len(set(values)) > 1


def test_the_values_of_heads_change_nothing_else_in_a_record(inputs, mask, output, recorded):
    call = (inputs, mask, output)
    without, with_heads = recorded(call), recorded(call, per_head=True)
    assert all("heads" not in one for one in without)
    assert [{k: v for k, v in one.items() if k != "heads"} for one in with_heads] == without


def test_the_mean_over_heads_is_the_value_of_the_record(inputs, mask, output, recorded):
    for record in recorded((inputs, mask, output), per_head=True):
        mean = sum(record["heads"]) / len(record["heads"])
        assert record["value"] == pytest.approx(mean, rel=1e-6)


def test_of_a_single_query_the_mean_over_heads_is_exactly_the_value(inputs, mask, output, recorded):
    one_row = replace(
        inputs,
        query=inputs.query[:1],
        key=inputs.key[:1],
        value=inputs.value[:1],
        visibility=Visibility(inputs.visible[:1]),
    ).at_queries(2, 3)
    chosen = AttentionMask.empty(one_row).add(mask.selected[:1, :, 2:])
    for record in recorded((one_row, chosen, output[:1, :, 2:]), per_head=True):
        assert float(torch.tensor(record["heads"]).mean()) == record["value"]


def test_a_limit_keeps_the_same_records_with_and_without_heads(inputs, mask, output, recorded):
    calls = [(inputs, mask, output * scale) for scale in (1, 2, 3)]
    without, with_heads = (
        recorded(*calls, max_records=5, per_head=per_head) for per_head in (False, True)
    )
    assert len(without) == 5
    assert [one["value"] for one in with_heads] == [one["value"] for one in without]
    assert all(one["heads"] for one in with_heads)


def test_a_call_that_sees_no_key_has_no_value_of_any_head(inputs, mask, output, recorded):
    nothing = replace(inputs, visibility=Visibility(torch.zeros(B, 1, Q, K, dtype=torch.bool)))
    for record in recorded((nothing, AttentionMask.empty(nothing), output), per_head=True):
        assert record["value"] is None
        assert set(record["heads"]) == {None}


def test_a_value_of_a_head_takes_at_most_thirteen_characters(inputs, mask, output, recorded, path):
    recorded((inputs, mask, output), per_head=True)
    for line in path.read_text().splitlines():
        values = line.partition('"heads":[')[2].partition("]")[0].split(",")
        assert len(values) in (G, H)
        assert max(map(len, values)) <= 13
