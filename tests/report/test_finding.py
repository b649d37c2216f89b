"""Which directories count as experiments: each once, under its fingerprint, at any depth."""

import csv
import io
import os
import shutil

import orjson
import pytest

from sah.cli import compare, report, status
from sah.errors import ConfigurationError, DamagedResults
from sah.report.reading.collect import collect
from sah.results.sweep_folders import PlannedCell, write_planned


@pytest.fixture
def two(write_result, root):
    """A dense and a sparse result; the configuration files are there as well."""
    folders = [write_result("dense", [1.0, 0.0]), write_result("sparse", [0.0, 0.0])]
    for folder in folders:
        for name in ("config.yaml", "overrides.yaml"):
            (folder / name).write_text("{}")
    return folders


def scores(capsys, *arguments):
    """The score and n of each attention, as `sah report` shows them."""
    report.main([*map(str, arguments), "--by", "attention", "--format", "csv"])
    rows = csv.DictReader(io.StringIO(capsys.readouterr().out))
    return {row["attention"]: (float(row["score"]), int(row["n"])) for row in rows}


RIGHT = {"dense": (0.5, 2), "sparse": (0.0, 2)}


def beside(name):
    return lambda folder: folder.with_name(name.format(folder.name))


@pytest.mark.parametrize(
    "place",
    [
        beside("{} (copy)"),
        beside("{}.bak"),
        beside("{}-2"),
        beside("0123456789ab"),
        beside("copy of {}"),
        lambda folder: folder.parents[1] / "backup" / folder.name,
        lambda folder: folder.parents[3] / "a-backup" / "tiny" / "dense" / folder.name,
        lambda folder: folder / folder.name,
    ],
)
def test_a_copy_counts_nowhere_and_is_named_in_one_warning(place, two, root, capsys, caplog):
    original, _ = two
    copy = place(original)
    shutil.copytree(original, copy)
    # Another score, so that the copy would be seen.
    document = orjson.loads((copy / "results.json").read_bytes())
    assert document["score"] == 0.5
    assert scores(capsys, root) == RIGHT
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("left out as copies:")
    assert str(copy) in warning
    caplog.clear()
    compare.main([str(root), "--format", "csv"])
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert (row["pairs"], row["baseline_score"], row["score"]) == ("2", "0.5", "0.0")
    assert caplog.text.count(str(copy)) == 1
    caplog.clear()
    status.main([str(root), "--json"])
    shown = [one["directory"] for one in orjson.loads(capsys.readouterr().out)]
    assert shown == sorted(map(str, two))
    assert caplog.text.count(str(copy)) == 1


@pytest.mark.parametrize("name", [".ipynb_checkpoints", ".previous", ".trash"])
def test_hidden_folders_are_not_read(name, two, root, capsys, caplog):
    shutil.copytree(two[0], two[0].parent / name / two[0].name)
    (two[1] / name).mkdir()
    shutil.copy(two[1] / "results.json", two[1] / name)
    assert scores(capsys, root) == RIGHT
    assert caplog.text == ""


def test_a_hidden_folder_that_is_given_is_read(two, root, tmp_path, capsys):
    shutil.move(root, tmp_path / ".hidden")
    assert scores(capsys, tmp_path / ".hidden") == RIGHT


def test_of_two_directories_the_one_in_its_place_counts(two, root, caplog):
    """Though the other one comes first in the alphabet, and at the same depth."""
    shutil.copytree(root / "tiny", root / "a-copy")
    assert [result.directory for result in collect(root)] == two
    assert str(root / "a-copy") in caplog.text


def test_a_copied_root_counts_once(two, root, tmp_path, capsys, caplog):
    copied = tmp_path / "outputs copy"
    shutil.copytree(root, copied)
    assert scores(capsys, root, copied) == RIGHT
    assert caplog.text.count(str(copied)) == 2


def test_results_are_found_at_any_depth(two, root, capsys, monkeypatch, caplog):
    dense, sparse = two
    for folder in (root, root / "tiny", root.parent):
        assert scores(capsys, folder) == RIGHT
    assert scores(capsys, dense.parent) == {"dense": RIGHT["dense"]}
    assert scores(capsys, dense) == {"dense": RIGHT["dense"]}
    assert scores(capsys, dense, sparse) == RIGHT
    assert scores(capsys, root, root / "tiny", dense) == RIGHT
    monkeypatch.chdir(dense)
    assert scores(capsys, ".") == {"dense": RIGHT["dense"]}
    monkeypatch.chdir(root)
    assert scores(capsys, ".") == RIGHT
    assert scores(capsys, "tiny") == RIGHT
    assert caplog.text == ""
    compare.main([str(dense), str(sparse)])
    assert "sparse" in capsys.readouterr().out


def test_status_works_at_any_depth(two, root, capsys):
    dense, _ = two
    for folders, expected in (([root], two), ([root / "tiny"], two), ([dense], [dense])):
        status.main([*map(str, folders), "--json"])
        shown = [one["directory"] for one in orjson.loads(capsys.readouterr().out)]
        assert shown == sorted(map(str, expected))
        status.main([*map(str, folders)])
        assert f"{len(expected)} done" in capsys.readouterr().out
    status.main([*map(str, two)])
    assert "2 done" in capsys.readouterr().out


def test_status_of_a_root_that_is_not_there_yet_is_empty(tmp_path, capsys):
    status.main([str(tmp_path / "outputs")])
    assert "no experiments below" in capsys.readouterr().out


def test_planned_cells_wait_in_every_folder_that_contains_them(two, root, capsys):
    sweep = root / ".sweeps" / "20260101-000000"
    sweep.mkdir(parents=True)
    planned = [root / "tiny/dense/ruler_all/0123456789ab", root / "other/dense/x_all/ab0123456789"]
    write_planned(sweep, dict.fromkeys([*two, *planned], PlannedCell()), root)
    for folder, waiting in ((root, planned), (root / "tiny", planned[:1]), (root / "other", [])):
        folder.mkdir(exist_ok=True)
        status.main([str(folder), "--json"])
        found = orjson.loads(capsys.readouterr().out)
        shown = [one["directory"] for one in found if one["state"] == "waiting"]
        expected = planned[1:] if folder.name == "other" else waiting
        assert shown == sorted(map(str, expected))


def test_links_are_followed_and_circles_end(two, root, tmp_path, capsys, caplog):
    elsewhere = tmp_path / "disk"
    shutil.move(root / "tiny", elsewhere)
    (root / "tiny").symlink_to(elsewhere)
    (elsewhere / "circle").symlink_to(root)
    (elsewhere / "itself").symlink_to("itself")
    (root / "latest").symlink_to(root / "tiny" / two[0].relative_to(root / "tiny"))
    assert scores(capsys, root) == RIGHT
    assert caplog.text == ""
    assert scores(capsys, root / "latest") == {"dense": RIGHT["dense"]}
    (root / "tiny").unlink()
    shutil.move(elsewhere, root / "tiny")
    assert [result.directory for result in collect(root)] == two


def test_the_configuration_of_another_program_is_not_an_experiment(two, root, capsys, caplog):
    (root / "config.yaml").write_text("a: 1")
    (root / "tiny" / "config.yaml").write_text("a: 1")
    status.main([str(root), "--json"])
    assert len(orjson.loads(capsys.readouterr().out)) == 2
    assert caplog.text == ""


def test_an_unfinished_copy_is_left_out(two, root, capsys, caplog):
    (two[0] / "results.json").unlink()
    shutil.copytree(two[0], two[0].with_name(f"{two[0].name} (copy)"))
    status.main([str(root), "--json"])
    found = {one["directory"]: one["state"] for one in orjson.loads(capsys.readouterr().out)}
    assert found == {str(two[0]): "interrupted", str(two[1]): "done"}
    assert "(copy)" in caplog.text


def test_each_folder_that_is_given_must_have_results(two, root, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "missing", root / "tiny" / "nowhere"):
        with pytest.raises(ConfigurationError, match=f"no complete experiment.*{folder.name}"):
            collect(root, folder)
    (two[0] / "results.json").write_text("{")
    with pytest.raises(DamagedResults, match="is damaged"):
        collect(root, two[0])


def test_a_result_of_an_edited_configuration_does_not_count(two, root, capsys, caplog):
    """Seed 5 under the fingerprint of seed 0."""
    path = two[0] / "results.json"
    document = orjson.loads(path.read_bytes())
    document["config"]["seed"] = 5
    path.write_bytes(orjson.dumps(document))
    assert scores(capsys, root) == {"sparse": RIGHT["sparse"]}
    assert f"its config is not that of experiment '{two[0].name}'" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_hides_no_other(two, root, capsys, caplog):
    two[0].parent.chmod(0)
    try:
        assert scores(capsys, root) == {"sparse": RIGHT["sparse"]}
    finally:
        two[0].parent.chmod(0o755)
    assert "cannot be read" in caplog.text
