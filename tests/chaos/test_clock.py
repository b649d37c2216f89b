"""The system clock is changed while experiments run."""

import time
from itertools import count
from types import SimpleNamespace

import pytest

from sah.errors import ExperimentTimeout
from sah.execution.accounting import Clock
from sah.launching import pool
from sah.launching.bundles import Bundle
from sah.launching.outcome import CellWatch
from sah.launching.plan import Cell
from sah.launching.settings import LauncherSettings
from sah.results import ResultStore

DAY = 86400.0


@pytest.fixture
def jump(monkeypatch):
    """Move the system clock by a number of days at every look."""

    def install(days):
        real, looks = time.time, count(1)
        monkeypatch.setattr(time, "time", lambda: real() + days * DAY * next(looks))

    return install


@pytest.mark.parametrize("days", [-1, 1])
def test_an_interrupted_run_goes_on_although_the_system_clock_jumps(
    days, jump, here, outcome, monkeypatch, tmp_path
):
    overrides = ("metric_logging=full", "timeout_minutes=60")
    here(*overrides, root="undisturbed/outputs")
    jump(days)
    real_append = ResultStore.append

    def append(store, prediction):
        real_append(store, prediction)
        if len(store.predictions) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ResultStore, "append", append)
        with pytest.raises(KeyboardInterrupt):
            here(*overrides)
    here(*overrides)
    undisturbed = outcome(tmp_path / "undisturbed")
    assert len(undisturbed) == 1
    assert outcome(tmp_path) == undisturbed


@pytest.mark.parametrize("days", [-1, 1])
def test_a_timeout_ignores_the_system_clock(days, jump):
    clock = Clock(timeout_minutes=1)
    with clock.running():
        jump(days)
        clock.check()
        assert 0 <= clock.seconds < 60
    over = Clock(timeout_minutes=1e-9)
    with over.running(), pytest.raises(ExperimentTimeout):
        over.check()


@pytest.mark.parametrize(("days", "minutes", "over"), [(1, 60, False), (-1, 1e-9, True)])
def test_the_time_limit_of_a_job_ignores_the_system_clock(days, minutes, over, jump, tmp_path):
    cell = Cell(number=0, overrides=(), directory=tmp_path / "cell", packed_config=None)
    running = pool.Running(
        bundle=Bundle(cells=(cell,)),
        worker=SimpleNamespace(),
        watch=CellWatch([cell]),
        started=time.monotonic(),
    )
    jump(days)
    settings = LauncherSettings(timeout_min=minutes, grace_seconds=0.0)
    assert pool._limit_is_over(running, settings) is over
