"""`sah.results` and `sah.examples`: the rows and columns of the report as data frames."""

import polars as pl
import pytest

import sah
from sah.errors import ConfigurationError, DamagedResults

KEY = "sparse_attention.maskers.top.fraction"


@pytest.fixture
def root(tmp_path, write_below):
    """Dense, and one attention with two budgets; the second has another seed, too."""
    folder = tmp_path / "outputs"
    write_below(folder, "dense", [1.0, 1.0])
    for fraction, seed in ((0.1, 0), (1, 1)):
        maskers = {"top": {"_target_": "a.Top", "fraction": fraction}}
        write_below(
            folder,
            "top",
            [1.0, None],
            maskers=maskers,
            settings={"seed": seed},
            fields={"density": fraction},
            texts=["yes", "no"],
        )
    return folder


def test_a_row_is_an_experiment_with_typed_columns_of_what_differs(root):
    frame = sah.results(root)
    assert frame["attention"].to_list() == ["dense", "top", "top"]
    assert frame["seed"].to_list() == [0, 0, 1]
    assert frame["seed"].dtype == frame["n"].dtype == pl.Int64
    assert frame[KEY].to_list() == [None, 0.1, 1.0]
    assert frame[KEY].dtype == frame["score"].dtype == frame["density"].dtype == pl.Float64
    assert frame["density"].to_list() == [1.0, 0.1, 1.0]
    assert frame["score"].to_list() == [1.0, None, None]
    assert frame["directory"].str.starts_with(str(root)).all()
    assert "benchmark.context_tokens" not in frame.columns
    assert "fingerprint" not in frame.columns


def test_a_condition_chooses_rows_in_each_spelling(root):
    for where in (
        {"attention": "top", "fraction": 1.0},
        {"attention": ["top", "other"], "seed": 1},
        "attention=t*,seed=1",
        ["attention=top", "seed=1"],
    ):
        assert sah.results(str(root), where=where)["density"].to_list() == [1.0]
    with pytest.raises(ConfigurationError, match="none of 3 results"):
        sah.results(root, where={"attention": "quest"})
    with pytest.raises(ConfigurationError, match="did you mean attention"):
        sah.results(root, where={"atention": "top"})


def test_digests_are_columns_only_if_asked_for(tmp_path, write_below):
    folders = []
    for name, digest in (("a", "3f2a"), ("b", "77aa")):
        content = {"path": "my.jsonl", "content": {"path": digest}}
        settings = {"benchmark": {"name": "mine", "subset": None, **content}}
        write_below(tmp_path / name, "dense", settings=settings, benchmark="mine")
        folders.append(tmp_path / name)
    assert "benchmark.path" not in sah.results(folders).columns
    frame = sah.results(folders, hashes=True)
    assert frame["benchmark.path"].to_list() == ["3f2a", "77aa"]
    assert frame["fingerprint"].n_unique() == 2


def test_a_row_is_an_answer_with_what_was_asked(root):
    frame = sah.examples(root, where={"attention": "top"})
    assert frame["text"].to_list() == ["yes", "no"] * 2
    assert frame["score"].to_list() == [1.0, None] * 2
    assert frame["question"].to_list() == ["What?"] * 4
    assert frame["context"].to_list() == ["A short context."] * 4
    assert frame["context_hash"].n_unique() == 4
    assert frame[KEY].to_list() == [0.1, 0.1, 1.0, 1.0]
    assert frame["references"].dtype == pl.List(pl.String)
    assert frame["new_tokens"].dtype == pl.Int64
    assert frame["density"].dtype == pl.Float64


def test_damaged_results_are_left_out_by_name_or_refused(root, caplog):
    damaged = next(root.glob("tiny/dense/*/*"))
    (damaged / "predictions.jsonl").write_text("{}\n")
    assert set(sah.examples(root)["attention"]) == {"top"}
    assert str(damaged) in caplog.text
    with pytest.raises(DamagedResults, match=r"predictions\.jsonl"):
        sah.examples(damaged)
    (damaged / "results.json").write_text("{")
    assert set(sah.results(root)["attention"]) == {"top"}
    with pytest.raises(ConfigurationError, match="is not a folder"):
        sah.results(root / "missing")
