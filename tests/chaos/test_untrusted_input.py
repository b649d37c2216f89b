"""Foreign data sets, models, names and configuration files cannot do harm."""

import json
import re

import orjson
import pytest

from sah.benchmarks.suites.rows import Source, text_column
from sah.cli import status
from sah.errors import DatasetError
from sah.terminal import plain
from sah.tracking.record import Record

COMMANDS = "\x1b[2J\x1b]0;title\x07\r\x9b31m\u202e"
HOSTILE = f"[/red]{COMMANDS}<script>alert(1)</script>"


def commands(text: str) -> list[str]:
    """Return the control characters of a text that a terminal would obey."""
    return re.findall("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)


@pytest.fixture
def benchmark(tmp_path):
    """Write a jsonl benchmark with hostile texts in every column; returns its overrides."""

    def write(**fields):
        path = tmp_path / "rows.jsonl"
        row = {"context": HOSTILE, "question": HOSTILE, "references": [HOSTILE], **fields}
        path.write_bytes(
            b"".join(orjson.dumps({**row, "id": f"{n}{HOSTILE}"}) + b"\n" for n in "ab")
        )
        return ("model=tiny", "benchmark=jsonl", f"benchmark.path={path}")

    return write


def test_hostile_task_names_and_texts_reach_the_terminal_escaped(
    benchmark, runs, outcome, tmp_path
):
    log = tmp_path / "log"
    assert runs.run(tmp_path, *benchmark(task=HOSTILE), log=log) == 0, log.read_text()
    assert commands(log.read_text()) == []
    assert "[/red]\\x1b[2J" in log.read_text()
    (found,) = outcome(tmp_path).values()
    # Files keep the original text, as JSON.
    assert list(found["results.json"]["tasks"]) == [HOSTILE]
    (run_log,) = tmp_path.glob("outputs/*/*/*/*/run.log")
    assert commands(run_log.read_text()) == []


def test_hostile_error_messages_reach_the_terminal_escaped(benchmark, runs, tmp_path, capsys):
    log = tmp_path / "log"
    arguments = benchmark(max_new_tokens=HOSTILE)
    assert runs.run(tmp_path, *arguments, log=log) == 1
    assert "max_new_tokens must be" in log.read_text()
    assert commands(log.read_text()) == []
    assert runs.run(tmp_path, *benchmark(), "timeout_minutes=1e-9", log=log) == 1
    (path,) = tmp_path.glob("outputs/*/*/*/*/error.json")
    path.write_text(json.dumps({"category": "unknown", "message": HOSTILE}))
    status.main([str(tmp_path / "outputs")])
    shown = capsys.readouterr().out
    assert "failed" in shown
    assert commands(shown) == []


def test_only_control_characters_are_escaped():
    assert plain(f"é\t漢\n{COMMANDS}") == ("é\t漢\n\\x1b[2J\\x1b]0;title\\x07\\r\\x9b31m\\u202e")


def test_a_subset_with_path_characters_stays_below_the_output_root(benchmark, runs, tmp_path):
    inside = tmp_path / "deep" / "er"
    inside.mkdir(parents=True)
    arguments = benchmark(task="../../../../../evil")
    before = {path for path in tmp_path.rglob("*") if inside not in path.parents}
    assert runs.run(inside, *arguments, "benchmark.subset=../../../../../evil") == 0
    assert {path for path in tmp_path.rglob("*") if inside not in path.parents} == before
    assert len(list(inside.glob("outputs/*/*/*/*/results.json"))) == 1


def test_names_with_path_characters_stay_in_the_folder_of_a_tracker(make_result):
    result = make_result(model="../../x", attention="a/b", benchmark="..", fingerprint="0")
    name = Record.from_result(result).name
    assert len(name.split("/")) == 4
    assert ".." not in name.split("/")


@pytest.mark.parametrize("source", ["file", "override"])
def test_python_tags_in_yaml_run_nothing(source, runs, tmp_path):
    trace, log = tmp_path / "code was run", tmp_path / "log"
    tag = f"!!python/object/apply:os.mkdir ['{trace}']"
    if source == "file":
        own = tmp_path / "own" / "benchmark"
        own.mkdir(parents=True)
        (own / "evil.yaml").write_text(f"_target_: sah.benchmarks.mock.Mock\nname: {tag}\n")
        arguments = ("--config-dir", "own", "benchmark=evil")
    else:
        arguments = ("benchmark=mock", f"benchmark.name={tag}")
    assert runs.run(tmp_path, *arguments, "model=tiny", log=log) == 1
    assert not trace.exists()
    assert not list(tmp_path.glob("outputs/*/*/*/*/results.json"))
    assert "object/apply:os.mkdir" in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("value", [None, 5, ["text"], {"text": "text"}, b"text"])
def test_a_published_column_that_is_not_text_is_refused_by_name(value):
    source = Source(dataset="somebody/something")
    with pytest.raises(DatasetError, match=r"somebody/something.*'context' holds"):
        text_column({"context": value}, "context", source)
