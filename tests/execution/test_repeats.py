"""Several sampled answers to each question, from one prefill."""

import orjson
import pytest

from sah.execution.rescoring import rescore
from sah.models.language_model import LanguageModel
from sah.results.store import read_result


def lines(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def sums(tmp_path):
    """A file of questions with final answers; three have no context, two share one."""
    rows = [
        {"id": f"sum {n}", "context": context, "question": f"{n} + 1?", "references": str(n + 1)}
        for n, context in enumerate(["", "", " ", "Use your fingers.", "Use your fingers."])
    ]
    path = tmp_path / "sums.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return (
        *("model=tiny", "benchmark=jsonl", f"benchmark.path={path}", "attention=sparse"),
        *("benchmark.metric=competition_integer", "benchmark.max_new_tokens=4"),
        *("generation.temperature=0.8", "metric_logging=off"),
    )


def test_repeats_share_a_prefill_and_belong_to_one_cluster(start, sums, calls):
    prefills = calls(LanguageModel, "prefill")
    result, folder = start(*sums, "benchmark.repeats=4")
    assert len(prefills) == 3
    records = lines(folder / "predictions.jsonl")
    assert [one["example_id"] for one in records] == [
        f"sum {n}#{k}" for n in range(5) for k in (1, 2, 3, 4)
    ]
    assert len({one["text"] for one in records}) > 10, "the answers are sampled"
    clusters = [one["context_hash"] for one in records]
    assert [len(set(clusters[4 * n : 4 * n + 4])) for n in range(5)] == [1] * 5
    assert len(set(clusters)) == 4 == result.tasks["jsonl"].contexts, "only fingers are shared"
    metrics = result.tasks["jsonl"].metrics
    assert list(metrics) == ["pass@1", "pass@2", "pass@4", "majority@4"]
    assert metrics["pass@1"] == result.score


def test_more_repeats_keep_the_earlier_answers(start, sums):
    texts = {}
    for repeats in (2, 3):
        _, folder = start(*sums, f"benchmark.repeats={repeats}")
        records = lines(folder / "predictions.jsonl")
        texts[repeats] = {one["example_id"]: one["text"] for one in records}
    assert texts[2].items() < texts[3].items()


def test_teacher_forcing_follows_each_sampled_dense_answer(start):
    overrides = ("model=tiny", "benchmark=mock", "benchmark.repeats=2", "protocol=forced")
    sampled = (*overrides, "generation.temperature=0.8", "metric_logging=off")
    texts = []
    for attention in ("dense", "sparse"):
        result, folder = start(*sampled, f"attention={attention}")
        texts.append([one["text"] for one in lines(folder / "predictions.jsonl")])
        assert result.dense_agreement is not None
    assert texts[0] == texts[1]
    assert texts[0][::2] != texts[0][1::2]


def test_rescoring_keeps_questions_and_votes_again(start, sums, monkeypatch):
    result, folder = start(*sums, "benchmark.repeats=4")
    before = lines(folder / "scores.jsonl")
    assert [one["question_id"] for one in before] == [f"sum {n}" for n in range(5) for _ in "1234"]
    assert {type(one["answer"]) for one in before} == {str}
    rescore(folder)
    assert lines(folder / "scores.jsonl") == before
    assert read_result(folder).tasks == result.tasks
    monkeypatch.setattr("sah.benchmarks.jsonl._ANSWERS", {"competition_integer": lambda text: "1"})
    monkeypatch.setattr(
        "sah.benchmarks.scorers.competition_integer", lambda text, references, **_: 1.0
    )
    rescore(folder)
    rescored = read_result(folder).tasks["jsonl"]
    assert (rescored.score, rescored.metrics["majority@4"], rescored.metrics["pass@4"]) == (1, 1, 1)
