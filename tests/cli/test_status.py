"""`sah status`: failures first, what differs instead of hashes, and the time left."""

import json
import time

import pytest
import yaml

from sah.cli import status
from sah.report.tables.overview import result_table
from sah.report.tables.state_table import FoundExperiment, duration
from sah.results.claim import Claim
from sah.results.state import read_state
from sah.results.store import write_error
from sah.results.sweep_folders import PlannedCell, planned_cells, write_planned

NAMES = {"model": "tiny", "benchmark": "mock", "subset": "all", "protocol": "default"}


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """Make the directory of an experiment that has begun; returns it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    made = []

    def make(attention, seed=0, answered=0, **method):
        folder = tmp_path / "outputs" / "tiny" / attention / "mock_all" / f"{len(made):012x}"
        folder.mkdir(parents=True)
        made.append(folder)
        config = {
            "model": {"name": "tiny"},
            "sparse_attention": {"name": attention, **method},
            "benchmark": {"name": "mock", "subset": None},
            "protocol": {"name": "default"},
            "seed": seed,
            "output_root": f"outputs{seed}",
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        (folder / "predictions.jsonl").write_text("{}\n" * answered)
        return folder

    return make


@pytest.fixture
def shown(capsys):
    """Call `sah status`; return what it prints."""

    def call(*arguments):
        status.main(list(arguments))
        return capsys.readouterr().out

    return call


def rows(text):
    """The lines between the rule and the first empty one, as words."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("───")) + 1
    return [line.split() for line in lines[start : lines.index("", start)]]


def test_failures_come_first_with_their_reason_in_one_line_and_interruptions_apart(begin, shown):
    with Claim(begin("dense", answered=3)) as claim:
        claim.note_examples(4)
        assert [row[0] for row in rows(shown())] == ["running"]
    stopped, failed = begin("quest", answered=1), begin("sparse")
    write_error(stopped, "interrupt", "Interrupted", "interrupted by signal 15", "")
    message = f"CUDA out of memory. {'Tried to allocate. ' * 9}\nsecond line"
    write_error(failed, "gpu_out_of_memory", "OutOfMemory", message, "")
    text = shown()
    assert [row[0] for row in rows(text)] == ["failed", "interrupted", "interrupted"]
    assert rows(text)[0][:4] == ["failed", "0", "sparse", "gpu_out_of_memory:"]
    table, _, rest = text.partition("\n\n")
    assert max(map(len, table.splitlines())) <= 80
    assert rest.splitlines()[0].startswith("gpu_out_of_memory: CUDA out of memory. Tried")
    assert rest.splitlines()[1] == f"  {failed.relative_to(failed.parents[4])}/error.json"
    assert "second line" not in text
    assert "2 interrupted, 1 failed" in text


def test_rows_say_what_differs_and_not_hashes(begin, shown):
    first, second = begin("quest", seed=1, page=16), begin("quest", seed=2, page=32)
    begin("dense", seed=1)
    text = shown()
    assert text.splitlines()[0] == "tiny  mock"
    header = ["state", "examples", "seed", "attention", "page", "note"]
    assert text.splitlines()[1].split() == header
    assert ["interrupted", "0", "1", "quest", "16"] in rows(text)
    assert ["interrupted", "0", "2", "quest", "32"] in rows(text)
    assert not any(folder.name in text for folder in (first, second))
    begin("quest", seed=1, page=16, share="all")
    assert ["interrupted", "0", "1", "quest", "page=16", "share=all"] in rows(shown())


def test_a_cell_that_has_not_begun_is_known_by_its_sweep(begin, shown, tmp_path):
    begin("quest", seed=1)
    root = tmp_path / "outputs"
    folder = root / ".sweeps" / "20260101-000000"
    folder.mkdir(parents=True)
    overrides = ("model=tiny", "attention=snapkv", "seed=2", "+masker@x.y=quest", "resume=false")
    cell = PlannedCell(attention="snapkv", overrides=overrides, **NAMES)
    write_planned(folder, {root / "tiny/snapkv/mock_all/0123456789ab": cell}, root)
    text = shown()
    assert rows(text) == [["interrupted", "0", "1", "quest"], ["waiting", "2", "snapkv"]]
    (one,) = rows(shown("--where", "attention=snap*"))
    assert one == ["waiting", "snapkv"]


def test_the_plans_of_earlier_versions_are_read(tmp_path):
    folder = tmp_path / ".sweeps" / "20260101-000000"
    folder.mkdir(parents=True)
    (folder / "cells.json").write_text('["tiny/dense/mock_all/0123456789ab"]')
    ((path, cell),) = planned_cells(tmp_path)
    assert path == tmp_path / "tiny/dense/mock_all/0123456789ab"
    assert cell == PlannedCell()


def test_the_time_left_counts_what_this_process_answered(begin, shown):
    with Claim(begin("quest", answered=40)) as claim:
        claim.note_examples(100, answered=10)
        holder = json.loads(claim.path.read_text())
        # 30 answers in 300 seconds; the other 60 take 600.
        claim.path.write_text(json.dumps({**holder, "since": time.time() - 300}))
        text = shown()
        assert "40/100  40 %  10 min  quest" in text
        assert "40 % of all examples answered, about 10 min left" in text
        (one,) = json.loads(shown("--json"))
        assert 595 < one["seconds_left"] < 605
        assert one["differs"] == {"attention": "quest"}
        assert {"directory", "state", "answered", "examples", "owner", "error"} <= one.keys()
        assert {"results", "vanished"} <= one.keys()


def test_json_has_the_means_that_the_table_of_results_has(make_result, tmp_path):
    means = {"density": 0.25, "resident": 0.5, "keys_read": 12.0, "answer_tokens": 3.0}
    result = make_result(recall=None, **means)
    found = FoundExperiment(state=read_state(tmp_path), result=result, described=result)
    (one,) = json.loads(status.status_json([found]))
    assert one["results"].items() >= {**means, "n": 2, "score": 0.5}.items()
    measured = {column.name for column in result_table([result]).columns if column.meaning}
    shown_only = {"score_interval", "tokens_per_second", "peak_memory_bytes"}
    assert one["results"].keys() >= measured - shown_only


def test_a_key_that_no_experiment_has_is_refused(begin, shown):
    begin("quest")
    with pytest.raises(SystemExit, match="sah status: no experiment has the key 'colour'"):
        shown("--where", "colour=red")
    with pytest.raises(SystemExit, match="2"):
        shown("--watch", "--json")


def test_watching_ends_when_nothing_runs_any_more(begin, shown, monkeypatch):
    claim = Claim(begin("quest"))
    claim.__enter__()
    waits = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            claim.__exit__()

    monkeypatch.setattr(status.time, "sleep", wait)
    text = shown("--watch")
    assert len(waits) == 2
    assert text.count("1 running") == 2
    assert text.count("1 interrupted") == 1


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(4.4, "4 s"), (61, "1 min"), (3599, "1 h 0 min"), (12000, "3 h 20 min"), (187200, "2 d 4 h")],
)
def test_a_duration_has_two_units(seconds, expected):
    assert duration(seconds) == expected
