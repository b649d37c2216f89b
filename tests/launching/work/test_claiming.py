"""What is left of a sweep for a worker."""

import json
import socket
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from sah.errors import ConfigurationError
from sah.launching.plan import Cell
from sah.launching.work import claiming
from sah.launching.work.claiming import SweepWorker
from sah.launching.work.plan_file import write_plan
from sah.results.claim import CLAIM_NAME
from sah.results.store import RESULTS, write_error

SWEEP = OmegaConf.create(
    {
        "hydra": {
            "runtime": {"cwd": "/gone", "config_sources": []},
            "job": {"config_name": "config"},
            "overrides": {"hydra": []},
        }
    }
)


@pytest.fixture
def worker(tmp_path):
    """Five cells in two bundles; cell 0 had failed before it was planned."""
    folder = tmp_path / "outputs" / ".sweeps" / "1"
    folder.mkdir(parents=True)
    cells = [
        Cell(
            number=number,
            overrides=(f"seed={number}",),
            directory=tmp_path / "outputs" / "model" / "attention" / "benchmark" / str(number),
            packed_config=None,
            shared_key="one" if number < 3 else "other",
        )
        for number in range(5)
    ]
    write_error(cells[0].directory, "unknown", "Error", "earlier", "")
    write_plan(folder, cells, SWEEP)
    return SweepWorker(folder, grace_seconds=1), cells


def left(worker):
    return [[cell.number for cell in worker._left(bundle)] for bundle in worker._bundles]


def test_cells_that_failed_before_the_sweep_or_were_interrupted_are_left(worker):
    made, cells = worker
    write_error(cells[1].directory, "interrupt", "Interrupted", "stopped", "")
    assert left(made) == [[0, 1, 2], [3, 4]]


def test_cells_that_are_complete_or_failed_since_are_not_left(worker):
    made, cells = worker
    for number in (0, 3):
        write_error(cells[number].directory, "unknown", "Error", "now", "")
    cells[1].directory.mkdir(parents=True)
    (cells[1].directory / RESULTS).write_text("{}")
    assert left(made) == [[2], [4]]


def test_bundles_that_killed_a_process_come_last(worker):
    made, cells = worker
    cells[0].directory.mkdir(parents=True, exist_ok=True)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    claim = {"token": "1", "host": socket.gethostname(), "pid": ended.pid}
    (cells[0].directory / CLAIM_NAME).write_text(json.dumps(claim))
    for _ in range(8):
        assert [cell.number for cell in made._take()] == [3, 4]


def test_a_worker_waits_for_the_cells_of_others_unless_it_is_told_not_to(worker, monkeypatch):
    made, cells = worker
    for cell in cells:
        made._states[cell.number] = "done"
    made._states[2] = "running"
    monkeypatch.setattr(made, "_state", lambda cell: made._states[cell.number])
    waited = []

    def sleep(seconds):
        waited.append(seconds)
        # The process that computed it has died.
        made._states[2] = "dead"

    monkeypatch.setattr(claiming.time, "sleep", sleep)
    made._waits = False
    assert made._next() is None
    made._waits = True
    assert [cell.number for cell in made._next()] == [2]
    assert len(waited) == 1


def test_a_cell_whose_process_ends_three_times_without_an_error_is_given_up(worker):
    made, _ = worker
    made._tries[1] = 3
    assert left(made) == [[0, 2], [3, 4]]
    assert made._counts()["failed here"] == 1


def test_the_folder_of_a_sweep_without_a_plan_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"has no plan\.json: give the folder of a sweep"):
        SweepWorker(tmp_path, grace_seconds=1)
