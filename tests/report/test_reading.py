import pytest

from sah.errors import ConfigurationError
from sah.report.figures.export import write_figures
from sah.report.html.page import write_page
from sah.report.html.page_data import page_data
from sah.report.reading.collect import collect
from sah.report.reading.select import parse_conditions, select
from sah.report.statistics.comparison import Settings, compare
from sah.report.statistics.pairing import match
from sah.report.tables.overview import group_table, result_table
from sah.results.schema import DenseAgreement


def test_complete_results_are_collected_and_damaged_ones_named(write_result, root, caplog):
    write_result("dense")
    broken = write_result("sparse")
    (broken / "results.json").write_text("{")
    (root / "tiny" / "sparse" / "ruler_all" / "0123456789ab").mkdir()
    found = collect(root)
    assert [one.attention for one in found] == ["dense"]
    assert str(broken) in caplog.text


def test_a_folder_without_results_is_an_error_that_names_it(root):
    with pytest.raises(ConfigurationError, match="outputs"):
        collect(root)


def test_results_without_public_references_have_no_score_anywhere(write_result, results, tmp_path):
    """Their answers are scored elsewhere: null, not 0, in table, figures and page."""
    for attention in ("dense", "sparse"):
        write_result(attention, [None, None])
    found = results()
    names = [column.name for column in result_table(found).columns]
    assert result_table(found).rows[0][names.index("score")].text == "–"
    assert group_table(found, ["attention"]).rows[0][2].text == "–"
    assert write_figures(found, tmp_path / "figures") == []
    write_page(found, tmp_path / "page.html")
    assert [one["score"] for one in page_data(found).overview["results"]] == [None, None]
    matches, _ = match(found, {"attention": ["dense"]})
    _, refused = compare(matches, Settings())
    assert "references are not public" in refused[0][1]


def test_dense_agreement_has_columns_if_any_result_has_it(write_result, results):
    write_result("dense")
    assert "KL" not in [column.header for column in result_table(results()).columns]
    agreement = DenseAgreement(
        kl=0.25,
        kl_stderr=None,
        top_agreement=0.9,
        top_agreement_stderr=None,
        tokens=10,
        output_error_by_layer={},
    )
    write_result("sparse", fields={"dense_agreement": agreement})
    table = result_table(results())
    place = [column.header for column in table.columns].index("KL")
    assert [row[place].text for row in table.rows] == ["–", "0.250"]


def test_maskers_of_the_same_name_differ_by_class(write_result, results, budget):
    write_result("custom", maskers=budget(0.1))
    (only,) = results()
    assert only.settings["sparse_attention.maskers.top"] == "TopK"
    assert only.settings["sparse_attention.maskers.top.fraction"] == 0.1


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
def test_conditions_choose_by_names_and_by_ends_of_keys(
    write_result, results, budget, condition, expected
):
    write_result("dense")
    write_result("sparse", maskers=budget(0.1))
    write_result("streaming")
    chosen = select(results(), parse_conditions([condition]))
    assert {one.attention for one in chosen} == expected


def test_an_unknown_key_names_similar_ones(write_result, results):
    write_result("dense")
    with pytest.raises(ConfigurationError, match="context_tokens"):
        select(results(), parse_conditions(["contxt_tokens=1"]))


def test_a_condition_without_a_key_is_refused_with_an_example():
    with pytest.raises(ConfigurationError, match="KEY=VALUE"):
        parse_conditions(["dense"])
