"""Trackers get live numbers and results, and never delay or lose either."""

import threading
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import pytest

from sah.execution import arm as arm_module
from sah.execution.attempts import compute_arms
from sah.results import ResultStore
from sah.tracking import NoTracker, Record, Reporter, reporter
from sah.tracking.tensorboard import TensorBoardTracker

HOUR = 3600.0


@dataclass
class Spy:
    """A tracker that keeps what it is told, and may hang or fail."""

    told: SimpleQueue = field(default_factory=SimpleQueue)
    free: threading.Event = field(default_factory=threading.Event)
    fails: tuple[str, ...] = ()

    def check(self):
        pass

    def has(self, record):
        return False

    def log(self, record):
        self._tell("log", record.numbers["score"])

    def open(self, record):
        self._tell("open", record.run)
        return self

    def advance(self, numbers, done):
        self._tell("advance", done, numbers.get("progress/score"))

    def finish(self, record):
        self._tell("finish", record.numbers["score"])

    def stop(self):
        self._tell("stop")

    def _tell(self, name, *values):
        assert self.free.wait(60)
        self.told.put((name, *values))
        if name in self.fails:
            raise ConnectionError("the line is cut")

    def all_told(self):
        return [self.told.get() for _ in range(self.told.qsize())]


@pytest.fixture
def spy():
    """A spy that does not hang; freed at the end of the test."""
    made = Spy()
    made.free.set()
    yield made
    made.free.set()


@pytest.fixture
def result(make_result, tmp_path):
    return make_result(score=0.75, directory=tmp_path)


@pytest.fixture
def start(result):
    return Record.from_result(result)


def test_only_the_latest_numbers_are_sent_then_the_result(spy, start, result):
    reporting = Reporter(spy, start, interval_seconds=HOUR)
    reporting.advance(done=0, total=4, score=None)
    assert spy.told.get(timeout=60) == ("open", start.run)
    assert spy.told.get(timeout=60) == ("advance", 0, None)
    for done in (1, 2, 3):
        reporting.advance(done=done, total=4, score=done / 4)
    reporting.finish(result)
    reporting.wait()
    assert spy.all_told() == [("advance", 3, 0.75), ("finish", 0.75)]


def test_a_tracker_gets_about_a_hundred_updates_of_an_experiment(spy, start, result):
    reporting = Reporter(spy, start, interval_seconds=0)
    sent = []
    for done in range(1001):
        reporting.advance(done=done, total=1000, score=None)
        if done % 10 == 0:
            while not sent or sent[-1] != ("advance", done, None):
                sent.append(spy.told.get(timeout=60))
    reporting.finish(result)
    reporting.wait()
    assert len(sent) == 1 + 101


def test_a_tracker_that_hangs_delays_nothing_and_is_named_at_the_end(spy, start, result, caplog):
    spy.free.clear()
    reporting = Reporter(spy, start, patience_seconds=0)
    for done in range(5):
        reporting.advance(done=done, total=4, score=1.0)
    reporting.finish(result)
    reporting.wait()
    assert "did not accept the result within 0 s; it is complete in" in caplog.text
    assert str(result.directory) in caplog.text
    assert spy.told.empty()


def test_live_numbers_that_are_not_accepted_are_one_warning(spy, start, result, caplog):
    spy.fails = ("advance",)
    reporting = Reporter(spy, start, interval_seconds=0)
    for done in (0, 1, 2):
        reporting.advance(done=done, total=2, score=None)
        while spy.told.get(timeout=60) != ("advance", done, None):
            pass
    reporting.finish(result)
    reporting.wait()
    assert spy.all_told() == [("finish", 0.75)]
    assert caplog.text.count("did not accept live numbers (ConnectionError: the line") == 1


def test_a_result_that_is_not_accepted_is_a_warning_that_names_the_directory(
    spy, start, result, caplog
):
    spy.fails = ("open", "log")
    reporting = Reporter(spy, start)
    reporting.advance(done=0, total=2, score=None)
    reporting.finish(result)
    reporting.wait()
    assert [name for name, *_ in spy.all_told()] == ["open", "log"]
    assert "did not accept the result (ConnectionError: the line is cut)" in caplog.text
    assert str(result.directory) in caplog.text
    assert "`sah track` sends it later" in caplog.text


def test_an_experiment_that_fails_ends_its_run_without_a_result(spy, start, result):
    reporting = Reporter(spy, start, interval_seconds=HOUR)
    reporting.advance(done=0, total=2, score=None)
    reporting.stop()
    reporting.finish(result)
    reporting.wait()
    assert [name for name, *_ in spy.all_told()] == ["open", "advance", "stop"]


def test_a_tracker_of_your_own_may_take_results_only(start, result):
    class Own(NoTracker):
        def log(self, record):
            logged.append(record.name)

    logged: list[Any] = []
    reporting = Reporter(Own(), start)
    reporting.advance(done=0, total=2, score=None)
    reporting.finish(result)
    reporting.wait()
    assert logged == [start.name]


def told_of(told, name):
    """Return the value that each call of this name was given."""
    return [one[1] for one in told if one[0] == name]


# -- experiments -----------------------------------------------------------------------


@pytest.fixture
def compute(configure):
    """Compute two arms in one job; returns their outcomes."""

    def run(*overrides):
        names = ("dense", "streaming_llm")
        shared = ("model=tiny", "benchmark=mock", "metric_logging=off", *overrides)
        configs = [configure(*shared, f"attention={name}") for name in names]
        return compute_arms([(config, []) for config in configs])

    return run


def test_an_interrupted_experiment_is_continued_in_the_same_run(compute, spy, calls, monkeypatch):
    monkeypatch.setattr(arm_module, "build", lambda config, name: spy)
    calls(ResultStore, "append", raise_at=3, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        compute()
    first = spy.all_told()
    assert [name for name, *_ in first].count("stop") == 2
    monkeypatch.undo()
    monkeypatch.setattr(arm_module, "build", lambda config, name: spy)
    results = [outcome.result for outcome in compute()]
    second = spy.all_told()
    opened = [sorted(run for run in told_of(told, "open")) for told in (first, second)]
    assert opened[0] == opened[1] == sorted(Record.from_result(one).run for one in results)
    assert sorted(told_of(second, "finish")) == sorted(one.score for one in results)
    ends = {told[1:] for told in second if told[0] == "advance"}
    assert {(one.n, one.score) for one in results} <= ends
    compute("resume=false")
    again = told_of(spy.all_told(), "open")
    assert not {*again} & {*opened[0]}, "what is computed again is another run"


def test_experiments_finish_under_a_tracker_that_hangs(compute, spy, monkeypatch):
    spy.free.clear()
    monkeypatch.setattr(arm_module, "build", lambda config, name: spy)
    monkeypatch.setattr(
        reporter.Reporter.__init__, "__kwdefaults__", {"interval_seconds": 0, "patience_seconds": 0}
    )
    assert all(outcome.result is not None for outcome in compute())
    assert spy.told.empty()


def test_tensorboard_shows_the_score_after_each_share_of_the_examples(compute, tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="the extra tensorboard is not installed",
    )
    dense, _ = (outcome.result for outcome in compute("tracker=tensorboard"))
    record = Record.from_result(dense)
    folder = tmp_path / "outputs/.tensorboard"
    events = accumulator.EventAccumulator(str(folder / record.name)).Reload()
    last = events.Scalars("progress/score")[-1]
    assert (last.step, last.value) == (dense.n, pytest.approx(dense.score))
    assert events.Scalars("progress/share")[0].value == 0
    assert TensorBoardTracker(folder=str(folder)).has(record)
