"""Keys read per answer, against a count of every mask and of every causal query."""

from collections import Counter

import orjson
import pytest

from sah.attention import SparseAttention
from sah.seeding import derive

MOCK = ("model=tiny", "benchmark=mock")
LAYERS = 3


def causal(first, queries):
    """Count the keys that consecutive queries see, one query after the other."""
    return sum(position + 1 for position in range(first, first + queries))


def answered(folder):
    return [orjson.loads(line) for line in (folder / "predictions.jsonl").read_bytes().splitlines()]


@pytest.mark.parametrize("protocol", ["default", "question_dense", "forced"])
def test_dense_attention_reads_every_key_that_its_queries_see(start, protocol):
    result, folder = start(*MOCK, "attention=dense", f"protocol={protocol}")
    predictions = answered(folder)
    for one in predictions:
        # No query follows the last token.
        queries = one["question_tokens"] + one["new_tokens"] - 1
        assert one["keys_read"] == causal(one["context_tokens"], queries)
    assert result.keys_read == pytest.approx(sum(one["keys_read"] for one in predictions) / 5)
    assert result.answer_tokens == sum(one["new_tokens"] for one in predictions) / 5


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("protocol", ["default", "question_dense"])
def test_keys_read_are_those_of_the_masks_and_of_all_dense_queries(
    start, monkeypatch, protocol, rows
):
    counted = Counter()
    select = SparseAttention.select

    def recorded(attention, inputs):
        mask = select(attention, inputs)
        # Layers 0 and 2 are sparse, and each example has its own seed in a layer.
        seeds = [inputs.seed] if inputs.rows is None else inputs.rows.seeds
        for row, seed in enumerate(seeds):
            counted[seed] += int(mask.selected[row].sum()) / inputs.query.shape[1]
        return mask

    monkeypatch.setattr(SparseAttention, "select", recorded)
    _, folder = start(
        *(*MOCK, "attention=sparse", f"protocol={protocol}"),
        *("sparse_attention.dense_layers=[1]", f"generation.batch_rows={rows}"),
    )
    expected = []
    for one in answered(folder):
        selected = sum(counted[derive(0, one["example_id"], layer)] for layer in (0, 2))
        context, question = one["context_tokens"], one["question_tokens"]
        first = context + question if protocol == "question_dense" else context
        sparse_queries = context + question + one["new_tokens"] - 1 - first
        by_dense_queries = causal(context, first - context)
        by_dense_layer = causal(first, sparse_queries)
        expected.append((selected + by_dense_layer) / LAYERS + by_dense_queries)
    assert [one["keys_read"] for one in answered(folder)] == pytest.approx(expected)


def test_an_answer_that_ends_at_its_first_token_reads_the_dense_question(start):
    _, folder = start(
        *(*MOCK, "attention=sparse", "protocol=question_dense", "generation.max_new_tokens=1")
    )
    for one in answered(folder):
        assert one["density"] is None
        assert one["keys_read"] == causal(one["context_tokens"], one["question_tokens"])


def test_a_full_budget_reads_as_many_keys_as_dense_attention(start):
    """The continuations of perplexity, whose last token is only predicted."""
    perplexity = ("model=tiny", "benchmark=perplexity", "benchmark.samples=1")
    _, dense = start(*perplexity, "attention=dense")
    _, full = start(*perplexity, "attention=custom", "+masker@sparse_attention.maskers.all=causal")
    keys = [one["keys_read"] for one in answered(dense)]
    assert keys == [one["keys_read"] for one in answered(full)]
    assert all(keys)
