"""Interrupted and failed runs resume to the same results."""

import orjson
import pytest
import torch

from sah.attention.session import AttentionSession
from sah.errors import Busy, DamagedResults
from sah.execution import run as experiment_module
from sah.models.language_model import LanguageModel
from sah.results import ResultStore, directory
from sah.results.disturbance import disturbances
from sah.results.stored_lines import prediction_line
from sah.types import Prediction

MOCK = ("model=tiny", "benchmark=mock")
RULER = ("model=tiny", "benchmark=ruler", "benchmark.context_tokens=400", "benchmark.samples=2")


def lines(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


RESUMED = [
    (MOCK, ("metric_logging=full",)),
    (MOCK, ("metric_logging=default", "generation.temperature=0.8")),
    (MOCK, ("metric_logging=full", "generation.temperature=0.8", "attention=random_sampling")),
    (MOCK, ("metric_logging=full", "metric_logging.max_records=40", "attention=oracle_top_p")),
    (MOCK, ("metric_logging=default", "metric_logging.flush_every=3", "protocol=question_dense")),
    (MOCK, ("metric_logging=off", "attention=dense", "generation.temperature=0.8")),
    (RULER, ("metric_logging=full", "generation.temperature=0.8", "generation.max_new_tokens=6")),
    (RULER, ("metric_logging.per_head=true", "generation.max_new_tokens=6")),
    (MOCK, ("metric_logging=full", "protocol=forced", "generation.temperature=0.8")),
    (MOCK, ("metric_logging=full", "benchmark.repeats=3", "generation.temperature=0.8")),
]


@pytest.mark.parametrize(("benchmark", "overrides"), RESUMED)
def test_interrupted_run_resumes_to_identical_results(
    start, outcome, calls, configure, monkeypatch, benchmark, overrides
):
    _, undisturbed = start(*benchmark, *overrides, root="undisturbed")
    # In the middle of a batch, between the metrics of an answer and the answer itself, and between
    # two answers of a batch.
    for owner, name, number in (
        (LanguageModel, "decode_rows", 3),
        (ResultStore, "append", 1),
        (ResultStore, "append", 2),
    ):
        calls(owner, name, raise_at=number, error=KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            start(*benchmark, *overrides)
        monkeypatch.undo()
    folder = directory(configure(*benchmark, *overrides))
    assert orjson.loads((folder / "error.json").read_bytes())["attempt"] == 3
    start(*benchmark, *overrides)
    assert outcome(folder) == outcome(undisturbed)
    assert not (folder / "error.json").exists()


@pytest.mark.parametrize("changed", [True, False])
def test_answers_of_another_commit_or_device_are_reported(changed, start, calls, monkeypatch):
    with monkeypatch.context() as patch:
        calls(ResultStore, "append", raise_at=3, error=KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            start(*MOCK)
        patch.undo()
    monkeypatch.undo()
    if changed:
        monkeypatch.setattr(experiment_module, "device_name", lambda device: "another device")
    result, folder = start(*MOCK)
    assert result.provenance.starts == 2
    devices = [start["device"] for start in lines(folder / "starts.jsonl")]
    assert devices == ["cpu", "another device" if changed else "cpu"]
    made_by = [
        {
            key: value
            for key, value in start.items()
            if key not in ("time", "typed", "content", "load_per_core")
        }
        for start in lines(folder / "starts.jsonl")
    ]
    assert result.provenance.answered_by == (made_by if changed else None)


def test_the_highest_load_of_all_starts_is_reported(start, calls, monkeypatch):
    for load in (0.5, 2.5, None):
        with monkeypatch.context() as patch:
            patch.setattr(experiment_module, "load_per_core", lambda load=load: load)
            if load is None:
                result, folder = start(*MOCK)
                break
            calls(ResultStore, "append", raise_at=2, error=KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                start(*MOCK)
        monkeypatch.undo()
    assert [one["load_per_core"] for one in lines(folder / "starts.jsonl")] == [0.5, 2.5, None]
    assert (result.provenance.load_per_core, result.provenance.starts) == (2.5, 3)
    # The load is not a part of what answered.
    assert result.provenance.answered_by is None
    assert disturbances(result)[0] == "interrupted"


def test_cpu_time_is_measured_with_every_answer(start):
    for rows in (1, 2, 8):
        result, folder = start(*MOCK, f"generation.batch_rows={rows}")
        timing = result.timing
        for name in ("decode_cpu_seconds", "decode_thread_seconds"):
            values = [prediction[name] for prediction in lines(folder / "predictions.jsonl")]
            assert all(value > 0 for value in values)
            assert getattr(timing, name) == pytest.approx(sum(values))
        # Other threads may be at work too, and the thread's clock may be coarser.
        assert timing.decode_thread_seconds < 1.01 * timing.decode_cpu_seconds + 0.01
        assert timing.decode_thread_seconds < 1.1 * timing.decode_seconds + 0.01


def test_a_run_that_lost_its_claim_writes_no_more_metrics(start, configure, monkeypatch):
    overrides = (*MOCK, "metric_logging=full")
    folder = directory(configure(*overrides))
    real = ResultStore.append
    written = []

    def append(store, prediction):
        real(store, prediction)
        if len(store.predictions) == 2:
            holder = orjson.loads((folder / ".claim").read_bytes())
            (folder / ".claim").write_bytes(orjson.dumps({**holder, "token": "another"}))
            written.append((folder / "micro_metrics.jsonl").read_bytes())

    monkeypatch.setattr(ResultStore, "append", append)
    with pytest.raises(Busy, match="taken over by another process"):
        start(*overrides)
    assert (folder / "micro_metrics.jsonl").read_bytes() == written[0] != b""


@pytest.mark.parametrize("answered", [1, 2, 3, 4])
def test_what_was_answered_before_the_interruption_is_not_answered_again(
    start, calls, configure, monkeypatch, answered
):
    overrides = (*MOCK, "metric_logging=full", "generation.batch_rows=1")
    calls(ResultStore, "append", raise_at=answered + 1, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        start(*overrides)
    monkeypatch.undo()
    path = directory(configure(*overrides)) / "predictions.jsonl"
    before = path.read_bytes()
    assert len(before.splitlines()) == answered
    answers = calls(LanguageModel, "answer")
    start(*overrides)
    assert len(answers) == 5 - answered
    assert path.read_bytes().startswith(before)


@pytest.mark.parametrize(("answered", "batches"), [(1, 2), (2, 1), (3, 1)])
def test_an_interrupted_batch_is_decoded_again_and_only_its_missing_answers_are_stored(
    start, calls, configure, monkeypatch, answered, batches
):
    # Three questions about the first context, two about the second.
    overrides = (*MOCK, "metric_logging=full", "generation.batch_rows=2")
    calls(ResultStore, "append", raise_at=answered + 1, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        start(*overrides)
    monkeypatch.undo()
    path = directory(configure(*overrides)) / "predictions.jsonl"
    before = path.read_bytes()
    assert len(before.splitlines()) == answered
    questions = calls(AttentionSession, "begin_example")
    start(*overrides)
    assert len(questions) == 5 - answered + (1 if answered == 1 else 0)
    assert path.read_bytes().startswith(before)
    records = [
        line["metadata"]["example_id"] for line in lines(path.parent / "micro_metrics.jsonl")
    ]
    of_each = {example: records.count(example) for example in records}
    # Shorter answers have fewer records; none has those of two decodings.
    assert max(of_each.values()) < 2 * min(of_each.values())


def test_an_answer_to_another_benchmark_stops_the_experiment(start, calls, configure, monkeypatch):
    calls(ResultStore, "append", raise_at=2, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        start(*MOCK)
    monkeypatch.undo()
    path = directory(configure(*MOCK)) / "predictions.jsonl"
    (answer,) = map(orjson.loads, path.read_bytes().splitlines())
    own = {name: answer.pop(name) for name in ("fingerprint", "checksum")}
    old = Prediction(**answer | {"example_id": "old-0"})
    path.write_bytes(prediction_line(old, own["fingerprint"]))
    with pytest.raises(DamagedResults, match="old-0"):
        start(*MOCK)
    assert b"old-0" in path.read_bytes()


def test_error_json_counts_the_attempts(start, calls, configure, monkeypatch):
    error = RuntimeError("CUDA error: device-side assert triggered")
    for attempt in (1, 2):
        calls(LanguageModel, "prefill", raise_at=1, error=error)
        with pytest.raises(RuntimeError, match="CUDA error"):
            start(*MOCK)
        monkeypatch.undo()
        folder = directory(configure(*MOCK))
        written = orjson.loads((folder / "error.json").read_bytes())
        assert (written["category"], written["attempt"]) == ("gpu", attempt)
        assert "device-side assert" in written["traceback"]
    assert not (folder / ".claim").exists()


def test_a_retryable_error_is_retried_to_the_same_result(start, outcome, calls):
    _, undisturbed = start(*MOCK, "metric_logging=full", root="undisturbed")
    error = torch.OutOfMemoryError("CUDA out of memory")
    steps = calls(LanguageModel, "decode_rows", raise_at=5, error=error)
    _, folder = start(*MOCK, "metric_logging=full", "retries=1")
    assert len(steps) > 5
    assert outcome(folder) == outcome(undisturbed)
    assert not (folder / "error.json").exists()
