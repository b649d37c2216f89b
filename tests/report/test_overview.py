import csv
import io

import pytest
from rich.console import Console

from sah.errors import ConfigurationError
from sah.report.figures.axes import style
from sah.report.figures.draw import rows_of_methods
from sah.report.figures.series import points, scored_points
from sah.report.figures.style import looks
from sah.report.html.page_data import page_data
from sah.report.reading.caveats import caveats
from sah.report.tables.layout import show
from sah.report.tables.markup import render
from sah.report.tables.overview import group_table, result_table
from sah.report.tables.table import Cell, Column, Table, number, only_columns
from sah.results.schema import Sampled


def shown(table, width=80):
    """Return the table as in a log file."""
    file = io.StringIO()
    show(table, Console(file=file, width=width))
    return file.getvalue()


def headers(table):
    return [column.header for column in table.columns]


def test_only_settings_that_differ_become_columns(write_result, results, budget):
    for share in (0.05, 0.1):
        for seed in (1, 2):
            write_result("sparse", maskers=budget(share), settings={"seed": seed})
    table = result_table(results())
    assert headers(table)[:3] == ["seed", "attention", "fraction"]
    assert "context_tokens" not in headers(table)


def test_settings_that_the_name_of_a_method_implies_do_not_differ(write_result, results, budget):
    write_result("sparse", maskers=budget(0.05))
    write_result("other", maskers={"top": {"_target_": "x.Other", "tokens": 3}})
    assert headers(result_table(results()))[:2] == ["attention", "score"]


def test_settings_of_several_methods_share_a_column_except_in_csv(write_result, results, budget):
    for share in (0.05, 0.1):
        write_result("sparse", maskers=budget(share))
        write_result("other", maskers={"p": {"_target_": "x.TopP", "p": share}})
    table = result_table(results())
    assert "settings" in headers(table)
    assert "p=0.05" in shown(table)
    rows = list(csv.DictReader(io.StringIO(render(result_table(results(), wide=True), "csv"))))
    assert {row["sparse_attention.maskers.p.p"] for row in rows} == {"", "0.05", "0.1"}
    assert all(row["fingerprint"] for row in rows)


def test_numbers_are_sorted_by_size_and_dense_comes_first(write_result, results, budget):
    for share in (0.1, 0.02, 0.2):
        write_result("alpha", maskers=budget(share))
    write_result("dense")
    rows = result_table(results()).rows
    assert [row[0].value for row in rows] == ["dense", "alpha", "alpha", "alpha"]
    assert [row[1].value for row in rows] == [None, 0.02, 0.1, 0.2]


def test_unmeasured_values_are_a_dash_or_an_empty_field(write_result, results):
    write_result("dense", fields={"recall": None})
    table = result_table(results(), wide=True)
    (row,) = csv.DictReader(io.StringIO(render(table, "csv")))
    assert row["recall"] == ""
    recall = headers(table).index("recall")
    assert table.rows[0][recall].text == "–"


@pytest.mark.parametrize("width", [80, 60, 200])
def test_no_line_is_wider_than_the_terminal(write_result, results, budget, width):
    for share in (0.05, 0.1):
        write_result("a_method_with_a_rather_long_name", maskers=budget(share))
        write_result("other", maskers={"q": {"_target_": "x.TopP", "p": share}}, model="big")
    text = shown(result_table(results()), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert ("Too narrow for: " in text) == (width < 100)


def test_on_a_narrow_terminal_the_benchmark_stands_above_its_rows(write_result, results):
    for subset in ("niah_single_1", "niah_multikey_1"):
        for name in ("dense", "sparse"):
            write_result(name, subset=[subset, "vt"])
    table = result_table(results())
    assert "niah_multikey_1+vt  dense" in shown(table, 150)
    lines = shown(table, 60).splitlines()
    for subset in ("niah_multikey_1+vt", "niah_single_1+vt"):
        place = lines.index(subset)
        assert [line.split()[0] for line in lines[place + 1 : place + 3]] == ["dense", "sparse"]


def test_a_benchmark_with_one_row_stays_in_its_row(write_result, results):
    for subset in ("niah_single_1", "niah_multikey_1"):
        write_result("dense", subset=[subset, "vt"])
    assert "niah_single_1+vt" not in shown(result_table(results()), 60).splitlines()


def test_a_long_name_is_truncated_before_a_number_is_dropped(write_result, results):
    for length in (512, 1024):
        benchmark = {"name": "ruler", "a_setting_with_a_very_long_name": length}
        write_result("dense", settings={"benchmark": benchmark})
    head = shown(result_table(results()), 75).splitlines()[1]
    assert "a_sett…" in head
    assert "recall" in head


def test_a_header_is_whole_where_a_dropped_column_makes_room_for_it():
    columns = [
        Column(name="benchmark", header="benchmark", numeric=False),
        *(Column(name=name, header=name, importance=1) for name in ("seconds", "bytes")),
    ]
    row = [Cell(text=text) for text in ("mock", "1234567", "12345")]
    narrow = shown(Table(columns=columns, rows=[row]), 19).splitlines()
    assert narrow[0] == "benchmark  seconds"
    assert "bytes" not in narrow[0]


def test_dropped_columns_are_named(write_result, results):
    write_result("dense", [1.0, 0.0], model="m" * 30)
    write_result("dense", [1.0, 0.0], model="k" * 30)
    assert "GB" in shown(result_table(results()), 60).rpartition("Too narrow for: ")[2]


MATCHED = {"metric": "rows_read", "target": 0.2, "measured": 0.2}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"provenance": {"git_commit": "b" * 40}}, "2 versions of the code"),
        ({"provenance": {"versions": {"torch": "3"}}}, "2 sets of libraries"),
        ({"provenance": {"git_dirty": True}}, "1 of 2 results are of uncommitted code"),
        (
            {"provenance": {"answered_by": [{}, {}]}},
            "1 of 2 results were answered in part by different",
        ),
        ({"fields": {"truncated": 3}}, "in 1 of 2 results contexts were cut"),
        (
            {"fields": {"own_indexer": "off"}},
            "WARNING: in 1 of 2 results the model's own indexer is off",
        ),
        (
            {"fields": {"unfinished_thoughts": 1}},
            "WARNING: 1 of 4 answers are empty because their thought did not end",
        ),
        ({"settings": {"protocol": {"name": "question_dense"}}}, "2 protocols"),
        (
            {"fields": {"sampled": Sampled(examples=3, of_examples=5, queries=9, of_queries=90)}},
            "output error and recall leave out 2 of 5 answers in 1 of 2 results",
        ),
        (
            {"settings": {"sparse_attention": {"matched": MATCHED}}},
            "WARNING: 1 of 2 results are more than 5 % off what their budget was matched to, such "
            "as sparse with rows_read=0.25",
        ),
        (
            {"fields": {"rows_read": None}},
            "WARNING: 1 of 2 results are of an earlier version: output error and recall are means",
        ),
        (
            {"fields": {"keys_read": None}},
            "WARNING: 1 of 2 results have answers of an earlier version that did not count",
        ),
    ],
)
def test_results_that_are_hard_to_compare_are_flagged(write_result, results, given, expected):
    write_result("dense")
    assert caveats(results()) == []
    write_result("sparse", **given)
    assert expected in shown(result_table(results()), 200)


def test_csv_has_standard_errors_and_what_they_are_of(write_result, results):
    fields = {
        "density_stderr": 0.5,
        "output_error_stderr": None,
        "sampled": Sampled(examples=2, of_examples=2, queries=12, of_queries=120),
    }
    write_result("sparse", fields=fields)
    (row,) = csv.DictReader(io.StringIO(render(result_table(results(), wide=True), "csv")))
    assert (row["density"], row["density_stderr"]) == ("0.125", "0.5")
    assert (row["rows_read"], row["rows_read_stderr"]) == ("0.25", "0.0")
    assert (row["output_error"], row["output_error_stderr"]) == ("0.05", "")
    assert (row["sampled_examples"], row["sampled_of_queries"]) == ("2", "120")


def test_the_table_of_a_terminal_has_rows_read_beside_density(write_result, results):
    write_result("dense")
    write_result("sparse")
    head, _, dense, sparse = shown(result_table(results())).splitlines()[1:5]
    place = head.split().index("density")
    assert head.split()[place : place + 2] == ["density", "rows"]
    for line, values in ((dense, ["1.000", "1.000"]), (sparse, ["0.125", "0.250"])):
        assert [one for one in line.split() if one in values][:2] == values


def test_the_legend_is_of_the_columns_that_are_shown(write_result, results):
    write_result("sparse")
    wide, narrow = (shown(result_table(results()), width=width) for width in (140, 50))
    for text in (wide, narrow):
        assert all(line == line.rstrip() for line in text.splitlines())
    legend = "peak memory; n: answers; –: not measured."
    assert legend in " ".join(wide.split())
    assert "score: × 100" in narrow
    assert "peak memory" not in narrow
    assert "GB" in narrow.partition("Too narrow for")[2]


def test_what_is_held_is_a_column_where_a_method_holds_less_than_dense(write_result, results):
    write_result("dense", fields={"resident": 1.0})
    assert "resident" not in headers(result_table(results()))
    assert "resident" in headers(result_table(results(), wide=True))
    write_result("snapkv", fields={"resident": 0.25})
    text = shown(result_table(results()), width=120)
    assert "0.250" in text
    assert "resident: bytes held of a context" in " ".join(text.split())
    assert "resident" in headers(group_table(results(), ["attention"]))


def test_settings_of_an_evictor_are_named_without_their_stage(write_result, results):
    for share in (0.1, 0.2):
        evict = {"snapkv": {"_target_": "x.SnapKV", "fraction": share}}
        write_result("snapkv", settings={"sparse_attention": {"name": "snapkv", "evict": evict}})
    assert headers(result_table(results()))[:2] == ["attention", "fraction"]


def test_a_disturbed_speed_is_marked_and_the_mark_explained(write_result, results):
    write_result("dense")
    assert "*" not in shown(result_table(results()))
    write_result("sparse", provenance={"starts": 2})
    write_result("other", provenance={"load_per_core": 2.0})
    for table in (result_table(results()), group_table(results(), ["attention"])):
        text = shown(table)
        assert max(map(len, text.splitlines())) <= 80
        speeds = [word for word in text.split() if word.startswith("20.0")]
        assert speeds == ["20.0", "20.0*", "20.0*"]
        assert "*: speed of a run that was crowded or interrupted" in " ".join(text.split())
    rows = csv.DictReader(io.StringIO(render(result_table(results(), wide=True), "csv")))
    assert [(row["tokens_per_second"], row["speed_disturbed"]) for row in rows] == [
        ("20.0", ""),
        ("20.0", "crowded"),
        ("20.0", "interrupted"),
    ]
    on_page = page_data(results()).overview["results"]
    assert [one["disturbed"] for one in on_page] == ["", "crowded", "interrupted"]


def test_groups_average_results_and_cluster_by_context(write_result, results):
    """Two methods on the same twenty contexts are twenty observations, not forty."""
    scores = [1.0, 0.0] * 10
    write_result("a", scores)
    write_result("b", scores)
    by_model = group_table(results(), ["model"], wide=True)
    by_method = group_table(results(), ["attention"], wide=True)
    names = [column.name for column in by_model.columns]
    low = names.index("score_low")
    assert by_model.rows[0][names.index("score")].value == pytest.approx(0.5)
    assert by_model.rows[0][names.index("n")].value == 40
    assert by_model.rows[0][low].value == pytest.approx(by_method.rows[0][low].value, abs=1e-3)


def test_an_interval_of_zeros_begins_at_zero_everywhere(write_result, results):
    """Two tasks with 29 wrong answers each: the lower limit used to be -1e-17, shown as -0.0."""
    write_result("dense", [0.0] * 58, tasks=["one", "two"] * 29)
    low, high = 0.0, pytest.approx(0.0844, abs=1e-4)
    assert "0.0–8.4" in shown(result_table(results()), 200)
    assert "-0" not in render(result_table(results()), "md")
    (row,) = csv.DictReader(io.StringIO(render(result_table(results(), wide=True), "csv")))
    assert (row["score_low"], float(row["score_high"])) == ("0.0", high)
    (on_page,) = page_data(results()).overview["results"]
    assert (on_page["low"], on_page["high"]) == (low, high)
    (point,) = points(results())
    assert (point.estimate.interval.low, point.estimate.interval.high) == (low, high)
    with style():
        figure = rows_of_methods(scored_points(results()), looks(["dense"]))
    assert figure.axes[0].lines[0].get_xdata()[0] == 0


def test_an_interval_of_right_answers_ends_at_a_hundred(write_result, results):
    write_result("dense", [1.0] * 58, tasks=["one", "two"] * 29)
    assert "91.6–100.0" in shown(result_table(results()), 200)
    (on_page,) = page_data(results()).overview["results"]
    assert on_page["high"] == 1.0


@pytest.mark.parametrize("value", [-0.0, -1e-17, -0.0004])
def test_a_number_that_rounds_to_zero_has_no_sign(value):
    assert number(value, 1, 100).text == "0.0"


def test_markdown_and_latex_escape_names(write_result, results):
    write_result("a_b|<script>&%$", model="tiny")
    table = result_table(results())
    assert "| a_b\\|\\<script\\>&%$ |" in render(table, "md")
    assert r"a\_b\textbar{}\textless{}script\textgreater{}\&\%\$" in render(table, "latex")


def test_chosen_columns_are_found_by_name_or_header_and_keep_the_given_order():
    columns = [
        Column(name="score", header="score"),
        Column(name="score_interval", header="95 % CI"),
    ]
    rows = [[number(0.5), Cell(text="0–1")], [number(0.25), Cell(text="–")]]
    table = only_columns(Table(columns=columns, rows=rows, notes=["n"]), ["95 % CI", "score"])
    assert headers(table) == ["95 % CI", "score"]
    assert [[cell.text for cell in row] for row in table.rows] == [["0–1", "0.500"], ["–", "0.250"]]
    assert table.notes == ["n"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["scores"], "'scores' is not a column of this table; take score"),
        (["score", "score"], "'score' is given twice"),
    ],
)
def test_a_column_that_cannot_be_chosen_is_refused(names, message):
    table = Table(columns=[Column(name="score", header="score")], rows=[])
    with pytest.raises(ConfigurationError, match=message):
        only_columns(table, names)
