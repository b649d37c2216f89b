import csv
import io

import pytest
from rich.console import Console

from sah.report.tables.overview import group_table, run_table, warnings
from sah.report.tables.table import render, show


def shown(table, width=80):
    """What a log file holds."""
    file = io.StringIO()
    show(table, Console(file=file, width=width))
    return file.getvalue()


def headers(table):
    return [column.header for column in table.columns]


def test_settings_that_differ_become_columns_and_others_do_not(write_run, runs, budget):
    for share in (0.05, 0.1):
        for seed in (1, 2):
            write_run("sparse", maskers=budget(share), settings={"seed": seed})
    table = run_table(runs())
    assert headers(table)[:3] == ["seed", "attention", "fraction"]
    assert "context_tokens" not in headers(table)


def test_what_the_name_of_a_method_implies_is_no_difference(write_run, runs, budget):
    write_run("sparse", maskers=budget(0.05))
    write_run("other", maskers={"top": {"_target_": "x.Other", "tokens": 3}})
    assert headers(run_table(runs()))[:2] == ["attention", "score"]


def test_settings_of_several_methods_share_a_column_and_are_apart_in_csv(write_run, runs, budget):
    for share in (0.05, 0.1):
        write_run("sparse", maskers=budget(share))
        write_run("other", maskers={"p": {"_target_": "x.TopP", "p": share}})
    table = run_table(runs())
    assert "settings" in headers(table)
    assert "p=0.05" in shown(table)
    rows = list(csv.DictReader(io.StringIO(render(run_table(runs(), wide=True), "csv"))))
    assert {row["sparse_attention.maskers.p.p"] for row in rows} == {"", "0.05", "0.1"}
    assert all(row["fingerprint"] for row in rows)


def test_numbers_are_sorted_by_size_and_dense_comes_first(write_run, runs, budget):
    for share in (0.1, 0.02, 0.2):
        write_run("alpha", maskers=budget(share))
    write_run("dense")
    rows = run_table(runs()).rows
    assert [row[0].value for row in rows] == ["dense", "alpha", "alpha", "alpha"]
    assert [row[1].value for row in rows] == [None, 0.02, 0.1, 0.2]


def test_what_was_not_measured_is_a_dash_and_an_empty_field(write_run, runs):
    write_run("dense", results={"recall": None})
    table = run_table(runs(), wide=True)
    (row,) = csv.DictReader(io.StringIO(render(table, "csv")))
    assert row["recall"] == ""
    recall = headers(table).index("recall")
    assert table.rows[0][recall].text == "–"


@pytest.mark.parametrize("width", [80, 60, 200])
def test_no_line_is_wider_than_the_terminal(write_run, runs, budget, width):
    for share in (0.05, 0.1):
        write_run("a_method_with_a_rather_long_name", maskers=budget(share))
        write_run("other", maskers={"q": {"_target_": "x.TopP", "p": share}}, model="big")
    text = shown(run_table(runs()), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert ("Left out for want of width" in text) == (width < 100)


def test_where_it_is_narrow_the_benchmark_stands_above_its_rows(write_run, runs):
    for subset in ("niah_single_1", "niah_multikey_1"):
        for name in ("dense", "sparse"):
            write_run(name, subset=[subset, "vt"])
    table = run_table(runs())
    assert "niah_multikey_1+vt  dense" in shown(table, 150)
    lines = shown(table, 60).splitlines()
    for subset in ("niah_multikey_1+vt", "niah_single_1+vt"):
        place = lines.index(subset)
        assert [line.split()[0] for line in lines[place + 1 : place + 3]] == ["dense", "sparse"]


def test_a_benchmark_of_one_row_stands_in_it(write_run, runs):
    for subset in ("niah_single_1", "niah_multikey_1"):
        write_run("dense", subset=[subset, "vt"])
    assert "niah_single_1+vt" not in shown(run_table(runs()), 60).splitlines()


def test_a_long_name_is_cut_before_a_number_is_left_out(write_run, runs):
    for length in (512, 1024):
        benchmark = {"name": "ruler", "a_setting_with_a_very_long_name": length}
        write_run("dense", settings={"benchmark": benchmark})
    head = shown(run_table(runs()), 75).splitlines()[1]
    assert "a_sett…" in head
    assert "recall" in head


def test_columns_left_out_are_named(write_run, runs):
    write_run("dense", [1.0, 0.0], model="m" * 30)
    write_run("dense", [1.0, 0.0], model="k" * 30)
    assert "GB" in shown(run_table(runs()), 60).rpartition("Left out")[2]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"provenance": {"git_commit": "b" * 40}}, "2 versions of the code"),
        ({"provenance": {"versions": {"torch": "3"}}}, "2 sets of libraries"),
        ({"provenance": {"git_dirty": True}}, "1 of 2 runs used code with uncommitted"),
        ({"provenance": {"answered_by": [{}, {}]}}, "1 of 2 runs were answered in part by another"),
        ({"results": {"truncated": 3}}, "in 1 of 2 runs contexts were cut"),
        ({"settings": {"protocol": {"name": "question_dense"}}}, "2 protocols"),
    ],
)
def test_what_cannot_be_compared_is_flagged(write_run, runs, given, expected):
    write_run("dense")
    assert warnings(runs()) == []
    write_run("sparse", **given)
    assert expected in shown(run_table(runs()), 200)


def test_groups_average_runs_and_cluster_what_shares_a_context(write_run, runs):
    """Two methods on the same twenty contexts are twenty observations, not forty."""
    scores = [1.0, 0.0] * 10
    write_run("a", scores)
    write_run("b", scores)
    by_model = group_table(runs(), ["model"], wide=True)
    by_method = group_table(runs(), ["attention"], wide=True)
    names = [column.name for column in by_model.columns]
    low = names.index("score_low")
    assert by_model.rows[0][names.index("score")].value == pytest.approx(0.5)
    assert by_model.rows[0][names.index("n")].value == 40
    assert by_model.rows[0][low].value == pytest.approx(by_method.rows[0][low].value, abs=1e-3)


def test_markdown_and_latex_escape_what_names_hold(write_run, runs):
    write_run("a_b|<script>&%$", model="tiny")
    table = run_table(runs())
    assert "| a_b\\|\\<script\\>&%$ |" in render(table, "md")
    assert r"a\_b|\textless{}script\textgreater{}\&\%\$" in render(table, "latex")
