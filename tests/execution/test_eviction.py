"""Experiments that evict: what is held, what is counted, and what a resumed one computes."""

from functools import partial

import orjson
import pytest

from sah.execution import keeping
from sah.execution.attempts import compute, compute_arms
from sah.results import directory
from sah.results.store import read_result


@pytest.fixture
def configure(configure):
    return partial(configure, "model=tiny", "benchmark=ruler", "benchmark.samples=2")


def answers(folder):
    return [orjson.loads(line) for line in (folder / "predictions.jsonl").read_bytes().splitlines()]


def computed(configure, *overrides):
    config = configure(*overrides)
    compute(config, list(overrides))
    folder = directory(config)
    return folder, read_result(folder, folder.name)


def test_resident_and_keys_read_follow_from_the_budget(configure):
    folder, result = computed(
        configure, "attention=knorm", "sparse_attention.evict.knorm.fraction=0.25"
    )
    for answer in answers(folder):
        context = answer["context_tokens"]
        kept, queries = context // 4, answer["question_tokens"] + answer["new_tokens"] - 1
        assert answer["resident"] == pytest.approx(kept / context)
        assert answer["keys_read"] == queries * kept + queries * (queries + 1) / 2
        seen = [(kept + after) / (context + after) for after in range(1, queries + 1)]
        assert answer["density"] == pytest.approx(sum(seen) / queries)
        assert answer["rows_read"] == answer["density"]
    assert result.resident == pytest.approx(0.25, abs=0.001)


def test_an_index_counts_as_held(configure):
    _, dense = computed(configure, "attention=dense")
    _, quest = computed(configure, "attention=quest", "sparse_attention.dense_layers=[]")
    assert dense.resident == 1
    # Two bounds of a page of 16 keys, beside 16 keys and values.
    assert quest.resident == pytest.approx(1 + 2 / 32, abs=0.01)


def test_layers_that_stay_dense_are_held_and_read_whole(configure):
    folder, result = computed(
        configure,
        "attention=knorm",
        "sparse_attention.evict.knorm.fraction=0.5",
        "sparse_attention.dense_layers=[0]",
        "model.layers=2",
    )
    assert result.resident == pytest.approx(0.75, abs=0.001)
    assert all(0.74 < answer["density"] < 0.9 for answer in answers(folder))


def test_a_selector_reads_among_what_is_kept(configure):
    _, evicted = computed(configure, "attention=snapkv")
    _, both = computed(
        configure,
        "attention=snapkv",
        "+masker@sparse_attention.maskers.top=oracle_top_k",
        "sparse_attention.maskers.top.fraction=0.5",
    )
    assert both.resident == evicted.resident
    # Half of the kept keys, rounded up for every query.
    assert both.density == pytest.approx(evicted.density / 2, rel=0.01)
    assert both.output_error > evicted.output_error


def test_rewritten_keys_count_as_packed(configure):
    folder, result = computed(
        configure, "attention=kivi", "sparse_attention.rewrite.kivi.residual=32"
    )
    for answer in answers(folder):
        context = answer["context_tokens"]
        old = context - 32
        # Of a head's 16 channels: codes of 2 bits, and 8 bytes for each group.
        key = 16 * (-(-old // 32) * 8 + old / 4)
        value = old * (4 + 8)
        packed = key + value + 32 * 128
        assert answer["resident"] == pytest.approx(packed / (context * 128), abs=0.001)
        assert answer["density"] == 1
        assert answer["recall"] == pytest.approx(1)
        assert answer["output_error"] > 0.001
    assert 0.1 < result.resident < 0.3


def test_an_eviction_and_a_selector_go_with_a_rewriter(configure):
    _, evicted = computed(configure, "attention=snapkv")
    _, both = computed(
        configure, "attention=snapkv", "+rewriter@sparse_attention.rewrite.think=think"
    )
    _, all_three = computed(
        configure,
        "attention=snapkv",
        "+rewriter@sparse_attention.rewrite.think=think",
        "+masker@sparse_attention.maskers.top=oracle_top_k",
        "sparse_attention.maskers.top.fraction=0.5",
    )
    # Half of the channels of the keys, all of the values.
    assert both.resident == pytest.approx(evicted.resident * 3 / 4, rel=0.01)
    assert both.density == pytest.approx(evicted.density, rel=0.01)
    assert both.output_error > evicted.output_error
    assert all_three.density == pytest.approx(both.density / 2, rel=0.02)


def test_resident_while_decoding_is_that_of_the_whole_sequence(configure):
    folder, _ = computed(
        configure,
        "attention=tova_decoding",
        "sparse_attention.evict.tova_decoding.fraction=null",
        "sparse_attention.evict.tova_decoding.tokens=30",
        "generation.max_new_tokens=9",
    )
    for answer in answers(folder):
        context, new_tokens = answer["context_tokens"], answer["new_tokens"]
        queries = answer["question_tokens"] + new_tokens - 1
        assert answer["resident"] == pytest.approx(30 / (context + queries))
        assert answer["keys_read"] == 31 * queries
        seen = [31 / (context + after) for after in range(1, queries + 1)]
        assert answer["density"] == pytest.approx(sum(seen) / queries)


def test_after_a_dense_question_the_budget_is_of_context_and_question(configure):
    folder, result = computed(
        configure,
        "attention=snapkv",
        "sparse_attention.evict.snapkv.fraction=0.25",
        "protocol=question_dense",
        "generation.max_new_tokens=9",
    )
    for answer in answers(folder):
        read = answer["context_tokens"] + answer["question_tokens"]
        kept, steps = read // 4, answer["new_tokens"] - 1
        assert answer["resident"] == pytest.approx(kept / read)
        seen = [(kept + after) / (read + after) for after in range(1, steps + 1)]
        assert answer["density"] == pytest.approx(sum(seen) / steps)
        by_question = sum(range(answer["context_tokens"] + 1, read + 1))
        by_answer = sum(kept + after for after in range(1, steps + 1))
        assert answer["keys_read"] == by_question + by_answer
    assert result.protocol == "question_dense"
    assert result.output_error > 0


def test_arms_share_one_pass_that_repeats_the_context(configure, calls):
    passes = calls(keeping, "reconstruct")
    kvzip = "sparse_attention.evict.kvzip"
    overrides = [
        ["attention=dense"],
        ["attention=kvzip", f"{kvzip}.fraction=0.5"],
        ["attention=kvzip", f"{kvzip}.fraction=0.1", f"{kvzip}.across=head"],
        ["attention=kvzip", f"{kvzip}.chunk=100"],
    ]
    ended = compute_arms([(configure(*one, "benchmark.limit=2"), one) for one in overrides])
    assert [arm.error for arm in ended] == [None] * 4
    dense, first, second, other = [arm.result.timing for arm in ended]
    # Two contexts, in two sizes of chunks.
    assert len(passes) == 4
    plain = dense.prefill_seconds
    assert first.prefill_seconds == second.prefill_seconds > plain
    assert other.prefill_seconds > plain
    assert first.prefill_seconds_saved == other.prefill_seconds_saved == plain
    assert second.prefill_seconds_saved == pytest.approx(second.prefill_seconds)
    assert dense.prefill_seconds_saved == 0
    assert ended[1].result.resident == pytest.approx(0.5, abs=0.01)
    assert ended[2].result.resident == pytest.approx(0.1, abs=0.01)
