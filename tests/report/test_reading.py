import pytest

from sah.errors import ConfigurationError
from sah.report.figures.draw import draw_all
from sah.report.html.page import write_page
from sah.report.html.page_data import page_data
from sah.report.reading.collect import collect, measured
from sah.report.reading.select import parse_conditions, select
from sah.report.statistics.comparison import Settings, compare
from sah.report.statistics.pairing import match
from sah.report.tables.overview import group_table, run_table


def test_collects_what_is_complete_and_names_what_is_damaged(write_run, root, caplog):
    write_run("dense")
    broken = write_run("sparse")
    (broken / "results.json").write_text("{")
    (root / "tiny" / "sparse" / "ruler_x" / "begun").mkdir()
    found = collect(root)
    assert [run.attention for run in found] == ["dense"]
    assert str(broken) in caplog.text


def test_a_folder_without_results_is_an_error_that_names_it(root):
    with pytest.raises(ConfigurationError, match="outputs"):
        collect(root)


def test_results_of_older_versions_are_read_from_the_yaml_beside_them(write_run, runs):
    folder = write_run("dense", results={"config": None})
    (folder / "config.yaml").write_text(
        "seed: 7\nbenchmark: {name: ruler, context_tokens: 64}\n"
        # What is no part of the experiment is none of its settings.
        "output_root: here\nstudy: {share: 0.1}\n"
    )
    (run,) = runs()
    assert run.config == {"seed": 7, "benchmark.name": "ruler", "benchmark.context_tokens": 64}


def test_what_was_not_measured_is_none_and_never_zero(write_run, runs):
    write_run("dense")
    (run,) = runs()
    assert measured(run, "output_error") is None
    assert measured(run, "no", "such", "field") is None
    assert measured(run, "timing", "new_tokens") == 10.0


def test_runs_without_public_references_have_no_score_anywhere(write_run, runs, tmp_path):
    """The benchmark's answers are only judged elsewhere: null, not 0, in table, figures, page."""
    unscored = {
        "score": None,
        "stderr": None,
        "tasks": {"task": {"score": None, "stderr": None, "n": 2}},
    }
    for attention in ("dense", "sparse"):
        folder = write_run(attention, [0.0, 0.0], results=unscored)
        path = folder / "scores.jsonl"
        path.write_text(path.read_text().replace('"score":0.0', '"score":null'))
    found = runs()
    names = [column.name for column in run_table(found).columns]
    assert run_table(found).rows[0][names.index("score")].text == "–"
    assert group_table(found, ["attention"]).rows[0][2].text == "–"
    assert draw_all(found, tmp_path / "figures") == []
    write_page(found, tmp_path / "page.html")
    assert [run["score"] for run in page_data(found).overview["runs"]] == [None, None]
    matches, _ = match(found, {"attention": ["dense"]})
    _, refused = compare(matches, Settings())
    assert "references are not public" in refused[0][1]


def test_forced_answers_have_columns_where_they_were_measured(write_run, runs):
    write_run("dense")
    assert "KL" not in [column.header for column in run_table(runs()).columns]
    write_run("sparse", results={"dense_agreement": {"kl": 0.25, "top_agreement": 0.9}})
    table = run_table(runs())
    place = [column.header for column in table.columns].index("KL")
    assert [row[place].text for row in table.rows] == ["–", "0.250"]


def test_maskers_of_one_name_and_other_classes_differ(write_run, runs, budget):
    write_run("custom", maskers=budget(0.1))
    (run,) = runs()
    assert run.config["sparse_attention.maskers.top"] == "TopK"
    assert run.config["sparse_attention.maskers.top.fraction"] == 0.1


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("attention=dense", {"dense"}),
        ("attention=dense,sparse", {"dense", "sparse"}),
        ("attention=s*,model=tiny", {"sparse", "streaming"}),
        ("attention=sparse,dense,benchmark=ruler", {"dense", "sparse"}),
        ("fraction=0.1", {"sparse"}),
        ("sparse_attention=dense", {"dense"}),
        ("context_tokens=512,seed=0,attention=streaming", {"streaming"}),
        ("model=other", set()),
    ],
)
def test_where_chooses_by_names_and_by_ends_of_keys(write_run, runs, budget, condition, expected):
    write_run("dense")
    write_run("sparse", maskers=budget(0.1))
    write_run("streaming")
    chosen = select(runs(), parse_conditions([condition]))
    assert {run.attention for run in chosen} == expected


def test_an_unknown_key_names_similar_ones(write_run, runs):
    write_run("dense")
    with pytest.raises(ConfigurationError, match="context_tokens"):
        select(runs(), parse_conditions(["contxt_tokens=1"]))


def test_a_condition_without_key_says_how_to_write_one():
    with pytest.raises(ConfigurationError, match="KEY=VALUE"):
        parse_conditions(["dense"])
