"""Which attempt an error.json belongs to: decided by its content, not by its date."""

import json
import os

import pytest

from sah.launching.outcome import CellWatch, outcome_of
from sah.launching.plan import Cell
from sah.results.claim import CLAIM_NAME, Claim
from sah.results.state import read_state
from sah.results.store import write_error

DAY = 86400.0


@pytest.fixture
def cell(tmp_path):
    """A cell that failed in an earlier sweep."""
    cell = Cell(
        number=7, overrides=("seed=1",), directory=tmp_path / "deep" / "cell", packed_config=None
    )
    fail(cell, "dataset")
    return cell


def fail(cell, category, days=0.0):
    write_error(cell.directory, category, "Error", "a message", "")
    path = cell.directory / "error.json"
    date = path.stat().st_mtime + days * DAY
    os.utime(path, (date, date))


def category(cell):
    return read_state(cell.directory).error.category


def test_a_process_that_wrote_no_error_is_not_judged_by_an_earlier_one(cell):
    watch = CellWatch([cell])
    assert not watch.has_ended(cell)
    watch.ensure_error(cell, "memory", "killed")
    assert category(cell) == "memory"
    assert read_state(cell.directory).error.attempt == 2


@pytest.mark.parametrize("days", [-1, 1])
def test_the_error_of_a_process_is_kept_whatever_its_date(days, cell):
    watch = CellWatch([cell])
    fail(cell, "network", days)
    assert watch.has_ended(cell)
    watch.ensure_error(cell, "memory", "killed")
    watch.end([cell], "timeout", "over")
    assert category(cell) == "network"


def test_the_reason_for_ending_a_job_replaces_its_interruption(cell):
    watch = CellWatch([cell])
    fail(cell, "interrupt")
    assert not watch.has_ended(cell)
    watch.end([cell], "timeout", "over")
    assert category(cell) == "timeout"


def test_an_interrupted_cell_has_not_failed_and_says_how_far_it_came(cell):
    with Claim(cell.directory) as claim:
        claim.note_examples(3)
        fail(cell, "interrupt")
    (cell.directory / "predictions.jsonl").write_text("{}\n")
    # Cancelled by SLURM, which does not know the number of examples.
    write_error(cell.directory, "interrupt", "ProcessEnded", "CANCELLED", "")
    found = outcome_of(cell)
    assert (found.outcome, found.reason) == ("interrupted", "interrupted, 1 of 3 answered")


def test_a_cell_whose_job_was_cancelled_and_killed_is_interrupted(cell):
    with Claim(cell.directory) as claim:
        content = json.loads(claim.path.read_text())
        assert outcome_of(cell).outcome == "elsewhere"
        assert outcome_of(cell, cancelled=True).outcome == "interrupted"
    (cell.directory / CLAIM_NAME).write_text(json.dumps({**content, "process_start": "before"}))
    assert (read_state(cell.directory).state, outcome_of(cell).outcome) == ("dead", "failed")
    fail(cell, "interrupt")
    assert (read_state(cell.directory).state, outcome_of(cell).outcome) == ("dead", "interrupted")


def test_a_cell_with_results_has_ended_and_gets_no_error(cell):
    (cell.directory / "error.json").unlink()
    watch = CellWatch([cell])
    (cell.directory / "results.json").write_text("{}")
    assert watch.has_ended(cell)
    watch.ensure_error(cell, "memory", "killed")
    watch.end([cell], "timeout", "over")
    assert not (cell.directory / "error.json").exists()
