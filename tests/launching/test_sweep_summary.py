"""The end of a sweep: each reason once, the results, and the command to type next."""

import logging
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from sah.launching import sweep_summary
from sah.launching.monitor import SweepMonitor
from sah.launching.outcome import CellOutcome
from sah.launching.plan import Cell
from sah.launching.sweep_summary import rerun_command, show_results, show_summary
from sah.report.reading import collect
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
    assert "1 done, 2 interrupted" in shown
    assert shown.count("interrupted, 2 of 5 answered") == 2


@pytest.mark.parametrize(
    ("taken", "saved", "shown"),
    [
        (0.2, 0.3, "prefill took 0.2 s; separately it would have taken 0.5 s"),
        (0.0473, 1.2, "prefill took 47.3 ms; separately it would have taken 1.2 s"),
        (0.0021, 0.0063, "prefill took 2.1 ms; separately it would have taken 8.4 ms"),
    ],
)
def test_a_short_prefill_is_shown_in_milliseconds(
    taken, saved, shown, capsys, tmp_path, make_result, monkeypatch
):
    made = make_result()
    timing = replace(made.timing, prefill_seconds=taken + saved, prefill_seconds_saved=saved)
    result = replace(made, timing=timing)
    monkeypatch.setattr(sweep_summary, "read_result", lambda folder: result)
    show_summary([outcome("done")], tmp_path)
    assert shown in capsys.readouterr().err.splitlines()


@pytest.fixture
def show(tmp_path, make_result, monkeypatch, capsys):
    """Show the end of a sweep of (attention, seed, outcome); returns what is printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*cells, typed=("run.py", "-m", "seed=0,1"), root="outputs"):
        outcomes, contents = [], {}
        for number, (attention, seed, name) in enumerate(cells):
            one = outcome(name, number)
            folder = tmp_path / root / "tiny" / attention / "ruler_all" / f"{number:012x}"
            folder.mkdir(parents=True)
            outcomes.append(replace(one, cell=replace(one.cell, directory=folder)))
            config = {"seed": seed, "sparse_attention": {"name": attention}}
            contents[folder] = make_result(attention=attention, directory=folder, config=config)
        monkeypatch.setattr(
            collect,
            "find",
            lambda folders: collect.Found(contents={f: contents[f] for f in folders}),
        )
        monkeypatch.setattr(sys, "argv", list(typed))
        show_results(outcomes)
        return capsys.readouterr().out

    return call


def next_step(text):
    last = text.splitlines()[-1]
    assert last.startswith("next: ")
    return last.removeprefix("next: ")


def test_a_sweep_ends_with_the_report_of_its_own_cells(show):
    shown = show(("dense", 0, "done"), ("sparse", 0, "finished"), ("quest", 0, "failed"))
    rows = [line.split()[0] for line in shown.splitlines() if line.startswith(("dense", "sp", "q"))]
    assert rows == ["dense", "sparse"]
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize(
    ("cells", "options", "expected"),
    [
        ([("dense", 0, "done"), ("sparse", 0, "finished")], {}, "sah compare"),
        ([("dense", 0, "done"), ("sparse", 1, "done")], {}, "sah compare --pool seed"),
        ([("sparse", 0, "done")], {}, "sah report --format html"),
        ([("sparse", 0, "done")], {"root": "a b/c"}, "sah report 'a b/c' --format html"),
        ([("dense", 0, "detached")], {}, "sah status --watch"),
        (
            [("dense", 0, "done"), ("sparse", 0, "failed")],
            {},
            "python run.py -m seed=0,1    # only what has no result",
        ),
        (
            [("dense", 0, "interrupted")],
            {"typed": ("/bin/sah", "-m", "resume=false", "seed=0")},
            "sah run -m seed=0    # only what has no result",
        ),
    ],
)
def test_the_last_line_is_the_command_to_type_next(cells, options, expected, show):
    assert next_step(show(*cells, **options)) == expected


def test_a_long_table_ends_after_twenty_rows_and_says_how_to_see_all(show):
    shown = show(*(("sparse", seed, "done") for seed in range(25)))
    assert "and 5 more: sah report" in shown
    assert sum("sparse" in line for line in shown.splitlines()) <= 21


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


def test_a_terminal_shows_a_line_for_each_slot_and_one_for_the_sweep(tmp_path):
    cells = [
        Cell(
            number=n,
            overrides=(f"attention={name}", f"seed={seed}", "model=tiny"),
            directory=tmp_path / str(n),
            packed_config=None,
        )
        for n, (name, seed) in enumerate([("a", 1), ("b", 1), ("a", 2), ("b", 2), ("c", 2)])
    ]
    monitor = SweepMonitor(cells, finished=0)
    monitor.update(dict.fromkeys([0, 1], "CPU 1") | {2: "CPU 2"})
    for cell, answered in ((cells[1], 3), (cells[2], 2)):
        cell.directory.mkdir()
        (cell.directory / "predictions.jsonl").write_text("{}\n" * answered)
    (cells[0].directory / "results.json").parent.mkdir()
    (cells[0].directory / "results.json").write_text("{}")
    with Claim(cells[1].directory) as first, Claim(cells[2].directory) as second:
        first.note_examples(4)
        second.note_examples(8)
        monitor.update({1: "CPU 1", 2: "CPU 2", 3: "CPU 2", 4: "CPU 2"})
        picture = Console(width=80, file=StringIO(), force_terminal=False)
        picture.print(monitor._picture({1: "CPU 1", 2: "CPU 2", 3: "CPU 2", 4: "CPU 2"}))
    lines = picture.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["CPU", "CPU", "sweep"]
    assert "3 of 4" in lines[0]
    assert lines[0].rstrip().endswith("#1 attention=b seed=1")
    assert "2 of 8" in lines[1]
    assert lines[1].rstrip().endswith("3 arms: seed=2")
    assert "1 of 5" in lines[2]
    assert "left" in lines[2]
    assert max(map(len, lines)) <= 80
