"""The command at the end of a sweep that reruns its failures."""

import sys
from pathlib import Path

from sah.launching.outcome import CellOutcome
from sah.launching.plan import Cell
from sah.launching.sweep_summary import rerun_command


def outcome(name):
    cell = Cell(number=0, overrides=("seed=1",), directory=Path("x"), packed_config=None)
    return CellOutcome(cell=cell, outcome=name)


def test_the_rerun_command_resumes_even_if_the_sweep_did_not(monkeypatch):
    typed = ["run.py", "-m", "seed=1,2", "resume=false", "model.name=a b"]
    monkeypatch.setattr(sys, "argv", typed)
    command = rerun_command([outcome("done"), outcome("failed")])
    assert command == "python run.py -m seed=1,2 'model.name=a b'"


def test_without_failures_there_is_no_rerun_command():
    assert rerun_command([outcome("done"), outcome("finished")]) is None
