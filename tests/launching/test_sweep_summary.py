"""The end of a sweep: each reason once, and the command that reruns its failures."""

import logging
import sys
from pathlib import Path

from sah.launching.monitor import SweepMonitor
from sah.launching.outcome import CellOutcome
from sah.launching.plan import Cell
from sah.launching.sweep_summary import rerun_command, show_summary
from sah.results.claim import Claim
from sah.results.store import write_error


def outcome(name, number=0, reason=""):
    overrides = (f"seed={number}",)
    cell = Cell(number=number, overrides=overrides, directory=Path("x"), packed_config=None)
    return CellOutcome(cell=cell, outcome=name, reason=reason)


def test_the_rerun_command_resumes_even_if_the_sweep_did_not(monkeypatch):
    typed = ["run.py", "-m", "seed=1,2", "resume=false", "model.name=a b"]
    monkeypatch.setattr(sys, "argv", typed)
    command = rerun_command([outcome("done"), outcome("failed")])
    assert command == "python run.py -m seed=1,2 'model.name=a b'"


def test_interrupted_cells_are_rows_of_their_own_and_run_again(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run.py", "-m", "seed=0,1"])
    outcomes = [
        outcome("interrupted", number, "interrupted, 2 of 5 answered") for number in range(2)
    ]
    show_summary([*outcomes, outcome("done", 2)], tmp_path)
    shown = capsys.readouterr().err
    assert "2 interrupted, 1 done" in shown
    assert shown.count("interrupted, 2 of 5 answered") == 2
    assert "python run.py -m seed=0,1" in shown


def test_without_failures_there_is_no_rerun_command():
    assert rerun_command([outcome("done"), outcome("finished")]) is None


def test_a_reason_that_several_cells_have_is_told_once(capsys, tmp_path):
    reasons = ["model_not_found: no such folder", "memory: killed"]
    outcomes = [outcome("failed", number, reasons[number % 2]) for number in range(5)]
    show_summary([*outcomes, outcome("not started", 5), outcome("not started", 6)], tmp_path)
    rows = [line.split() for line in capsys.readouterr().err.splitlines() if "seed=" in line]
    assert [" ".join(row[1:-1]) for row in rows[:7]] == [
        *("model_not_found: no such folder", "memory: killed", "as #0", "as #1", "as #0"),
        *("not started", "not started"),
    ]


def test_an_error_that_several_cells_have_is_logged_once(caplog, tmp_path):
    cells = [
        Cell(number=n, overrides=(f"seed={n}",), directory=tmp_path / str(n), packed_config=None)
        for n in range(3)
    ]
    for cell in cells:
        message = "no such folder" if cell.number != 1 else "another"
        write_error(cell.directory, "model_not_found", "ModelNotFound", message, "")
    with caplog.at_level(logging.ERROR), SweepMonitor(cells, finished=0) as monitor:
        monitor.update({cell.number: "CPU" for cell in cells})
        monitor.update({})
    assert caplog.messages == [
        "#0 model_not_found: no such folder: seed=0",
        "#1 model_not_found: another: seed=1",
        "#2 failed as #0: seed=2",
    ]


def test_an_interrupted_cell_is_not_counted_as_failed(caplog, tmp_path):
    cells = [
        Cell(number=n, overrides=(f"seed={n}",), directory=tmp_path / str(n), packed_config=None)
        for n in range(2)
    ]
    cells[0].directory.mkdir()
    with Claim(cells[0].directory) as claim:
        claim.note_examples(4)
        write_error(cells[0].directory, "interrupt", "Interrupted", "by signal 2", "")
    write_error(cells[1].directory, "memory", "ProcessEnded", "killed", "")
    monitor = SweepMonitor(cells, finished=0)
    with caplog.at_level(logging.WARNING), monitor:
        monitor.update({cell.number: "CPU" for cell in cells})
        monitor.update({})
    assert caplog.messages == [
        "#0 interrupted, 0 of 4 answered: seed=0",
        "#1 memory: killed: seed=1",
    ]
    assert monitor._counts().endswith("1 failed, 1 interrupted")
