"""One damaged result of eight never hides the others, and is never shown with wrong numbers."""

import csv
import io
import shutil

import orjson
import pytest
from damage import DAMAGES, UNREAD

from sah.cli import compare, report, status
from sah.report.html.page_data import page_data

# The outputs that need a file, and leave out a result where it is damaged.
TABLES = ("report", "by", "compare")
NEEDED = {
    "results.json": {*TABLES, "status", "html", "figures"},
    "scores.jsonl": {*TABLES, "status", "html", "figures"},
    "predictions.jsonl": {"by", "compare", "html", "figures"},
    "micro_metrics.jsonl": {"html", "figures"},
    "examples.jsonl": {"html", "figures"},
    **{name: set() for name in UNREAD},
}
KINDS = [(name, kind) for name, kinds in DAMAGES.items() for kind in kinds]
# They draw: once for each file and way to read it is enough.
DRAWN = [
    *((name, "torn") for name in NEEDED if name not in UNREAD),
    *(("predictions.jsonl", "text null"), ("config.yaml", "NUL bytes")),
]


@pytest.fixture
def build(write_below, write_metrics, tmp_path_factory):
    """Write dense and sparse results of four seeds; return the root and the one to damage."""

    def write():
        root = tmp_path_factory.mktemp("eight") / "outputs"
        for seed in range(4):
            settings = {"seed": seed}
            for attention, scores in (("dense", [1.0] * 3), ("sparse", [1.0, 0.0, seed / 4])):
                folder = write_below(root, attention, scores, settings=settings)
                write_metrics(folder, [("recall", 0.5, 0, 0), ("recall", 0.5, 1, 0)])
                for name in UNREAD:
                    (folder / name).write_text("")
        return root, folder

    return write


def table(command, *arguments, capsys):
    command.main([*map(str, arguments), "--format", "csv"])
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def tables(root, capsys):
    """What the commands show, without paths."""
    return {
        "report": table(report, root, capsys=capsys),
        "by": table(report, root, "--by", "attention", capsys=capsys),
        "compare": table(compare, root, capsys=capsys),
    }


def states(root, capsys):
    status.main([str(root), "--json"])
    return {
        one["directory"].rpartition("/")[2]: (one["state"], one["results"])
        for one in orjson.loads(capsys.readouterr().out)
    }


@pytest.fixture(scope="module")
def known():
    """The tables of the whole and of the seven others, once for all tests."""
    return {}


@pytest.fixture
def expected(known, build, capsys):
    if not known:
        root, folder = build()
        known["whole"] = tables(root, capsys)
        known["states"] = states(root, capsys)
        shutil.rmtree(folder)
        known["others"] = tables(root, capsys)
        for name in TABLES:
            assert known["whole"][name] != known["others"][name]
    return known


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_the_others_have_the_right_numbers_and_the_damage_is_named_once(
    name, kind, build, expected, capsys, caplog
):
    root, folder = build()
    DAMAGES[name][kind](folder / name)
    for output, command, arguments in (
        ("report", report, [root]),
        ("by", report, [root, "--by", "attention"]),
        ("compare", compare, [root]),
    ):
        caplog.clear()
        found = table(command, *arguments, capsys=capsys)
        is_left_out = output in NEEDED[name]
        assert found == expected["others" if is_left_out else "whole"][output], output
        told = [record.getMessage() for record in caplog.records]
        assert len(told) == is_left_out, output
        if is_left_out:
            assert "left out" in told[0]
            assert str(folder) in told[0]
            assert name in told[0] or "results.json" in told[0]
    caplog.clear()
    found = states(root, capsys)
    if name in ("results.json", "scores.jsonl"):
        assert found.pop(folder.name) == ("done", None)
        assert str(folder) in caplog.text
        assert found.items() <= expected["states"].items()
        assert len(found) == 7
    else:
        assert found == expected["states"]
        assert caplog.text == ""


@pytest.mark.parametrize("kind", DAMAGES["predictions.jsonl"])
def test_a_damaged_answer_is_named_by_its_line(kind, build, caplog, capsys):
    root, folder = build()
    DAMAGES["predictions.jsonl"][kind](folder / "predictions.jsonl")
    table(compare, root, capsys=capsys)
    lines = {"a line twice": 4, "a blank line": 2, "not UTF-8": 1}
    is_in_line = "text" in kind or kind in (*lines, "hash null", "another arm", "no checksum")
    if is_in_line:
        assert f"line {lines.get(kind, 2)} " in caplog.text


@pytest.mark.parametrize(("name", "kind"), DRAWN)
def test_page_and_figures_show_the_others(name, kind, build, tmp_path, monkeypatch, caplog):
    root, folder = build()
    DAMAGES[name][kind](folder / name)
    shown = []
    monkeypatch.setattr("sah.report.html.page.page_data", lambda found: _noted(shown, found))
    for output, arguments in (
        ("html", ["--format", "html", "-o", str(tmp_path / "page.html")]),
        ("figures", ["--figures", str(tmp_path / "figures")]),
    ):
        caplog.clear()
        report.main([str(root), *arguments])
        is_left_out = output in NEEDED[name]
        assert caplog.text.count(str(folder / name)) == is_left_out, output
    (page,) = shown
    fingerprints = [one["fingerprint"] for one in page.overview["results"]]
    assert len(fingerprints) == (7 if "html" in NEEDED[name] else 8)
    assert (folder.name in fingerprints) is ("html" not in NEEDED[name])
    assert (tmp_path / "figures" / "score_density.svg").is_file()


def _noted(shown, found):
    shown.append(page_data(found))
    return shown[-1]


@pytest.mark.parametrize("command", [report, compare, status])
def test_a_damaged_directory_that_is_named_itself_is_an_error(command, build, capsys, caplog):
    _, folder = build()
    DAMAGES["results.json"]["torn"](folder / "results.json")
    with pytest.raises(SystemExit) as caught:
        command.main([str(folder)])
    assert caught.value.code not in (0, None)
    assert str(folder / "results.json") in f"{caught.value.code} {caplog.text}"


def test_a_damaged_list_of_planned_cells_hides_nothing(build, expected, capsys, caplog):
    root, _ = build()
    path = root / ".sweeps" / "20260101-000000" / "cells.json"
    path.parent.mkdir(parents=True)
    for content in (b"", b"\xff", b"[1]", b'{"tiny": 1}', b'["tiny'):
        path.write_bytes(content)
        caplog.clear()
        assert states(root, capsys) == expected["states"]
        assert str(path) in caplog.text
