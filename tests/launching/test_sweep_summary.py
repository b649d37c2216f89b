"""What the end of a sweep says to do next."""

import sys
from pathlib import Path

from sah.launching.outcome import CellOutcome
from sah.launching.plan import Cell
from sah.launching.sweep_summary import rerun_command


def outcome(name):
    cell = Cell(number=0, overrides=("seed=1",), directory=Path("x"), packed_config=None)
    return CellOutcome(cell=cell, outcome=name)


def test_rerun_skips_what_is_done_although_the_sweep_started_afresh(monkeypatch):
    typed = ["run.py", "-m", "seed=1,2", "resume=false", "model.name=a b"]
    monkeypatch.setattr(sys, "argv", typed)
    command = rerun_command([outcome("done"), outcome("failed")])
    assert command == "python run.py -m seed=1,2 'model.name=a b'"


def test_nothing_failed_nothing_to_rerun():
    assert rerun_command([outcome("done"), outcome("finished")]) is None
