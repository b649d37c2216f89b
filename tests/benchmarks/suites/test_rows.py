"""Reading the rows of a data set: file layouts, missing and damaged files."""

import re

import orjson
import pytest

from sah.benchmarks.suites.rows import Source, load_rows
from sah.errors import DatasetError


@pytest.mark.parametrize(
    "files",
    [
        ["qasper/test-00000-of-00002.jsonl", "qasper/test-00001-of-00002.jsonl"],
        ["qasper.jsonl"],
        ["data/qasper/test.jsonl"],
        ["qasper/test-00000-of-00001.jsonl", "qasper/train-00000-of-00001.jsonl"],
        ["qasper/test.jsonl", "qasper_e/test.jsonl", "hotpotqa.jsonl"],
    ],
)
def test_files_are_found_in_any_of_the_usual_layouts(files, tmp_path):
    for number, name in enumerate(files):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps({"file": name, "number": number}) + b"\n\n")
    source = Source(dataset="x/y", config="qasper")
    rows = load_rows(source, path=str(tmp_path), revision="main").rows
    expected = [name for name in files if re.search(r"qasper[./]", name) and "train" not in name]
    assert [row["file"] for row in rows] == expected


def test_missing_files_are_an_error_that_lists_the_existing_ones(tmp_path):
    (tmp_path / "hotpotqa.jsonl").write_text("{}\n")
    source = Source(dataset="x/y", config="qasper")
    with pytest.raises(DatasetError, match=r"x/y \(qasper, test\); it contains hotpotqa\.jsonl"):
        load_rows(source, path=str(tmp_path), revision="main")
    with pytest.raises(DatasetError, match="is not a folder"):
        load_rows(source, path=str(tmp_path / "none"), revision="main")


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("qasper.jsonl", b"{}\n{", "line 2 begins an object that does not end"),
        ("qasper.jsonl", b"{}\n{},", "line 2 is not JSON"),
        ("qasper.jsonl", b"{}\n5\n", "line 2 is not a JSON object"),
        ("qasper.jsonl", b"[1]\n", "line 1 begins a JSON array"),
        ("qasper.jsonl", b"", "has no rows"),
        ("qasper.parquet", b"PAR1 or not", "not a readable parquet"),
    ],
)
def test_damaged_files_are_errors_that_name_them(name, content, match, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=match):
        load_rows(Source(dataset="x/y", config="qasper"), path=str(tmp_path), revision="main")


def test_a_missing_column_is_an_error_that_names_it(suite, tmp_path, tiny):
    (tmp_path / "qasper.jsonl").write_text('{"question": "q", "answers": ["a"]}\n')
    with pytest.raises(DatasetError, match=r"no column 'context', only answers, question"):
        suite("longbench", subset="qasper", path=str(tmp_path)).examples(tiny.prompts, seed=0)


def test_a_missing_subset_fails_the_experiment(suite, tmp_path, tiny):
    """An average over fewer tasks would be a wrong number."""
    (tmp_path / "qasper.jsonl").write_text(
        '{"context": "c", "question": "q", "answers": ["a"], "max_new_tokens": 3}\n'
    )
    with pytest.raises(DatasetError, match="narrativeqa"):
        suite("longbench", path=str(tmp_path)).examples(tiny.prompts, seed=0)


def test_an_uncached_data_set_without_a_network_is_one_clear_error(
    suite, tiny, tmp_path, monkeypatch
):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    with pytest.raises(DatasetError, match=r"Xnhyacinth/LongBench .*sah fetch.*benchmark\.path"):
        suite("longbench", subset="qasper", path=None).examples(tiny.prompts, seed=0)


def test_a_data_set_is_read_by_name_with_the_datasets_library(published, tmp_path, monkeypatch):
    """A folder replaces the name of the data set; its card lists the configurations."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("qasper", "trec"):
        (folder / name).symlink_to(published("longbench") / name)
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: test\n    path: {name}/test-*\n"
        for name in ("qasper", "trec")
    )
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    source = Source(dataset=str(folder), config="trec")
    rows = load_rows(source, path=None, revision="main").rows
    assert [row["task"] for row in rows] == ["trec"] * 3
    assert rows[0]["all_classes"] == ["Plant", "Animal", "Wild Animal"]
