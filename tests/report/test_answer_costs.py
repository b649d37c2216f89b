"""Answer length and keys read: means, columns, and the flag of longer answers."""

import csv
import io

import polars as pl
import pytest
from rich.console import Console

from sah.report.html.page_data import page_data
from sah.report.statistics.answer_costs import answer_costs
from sah.report.statistics.comparison import Settings, compare
from sah.report.statistics.pairing import match
from sah.report.tables.comparison_table import compare_table
from sah.report.tables.layout import show
from sah.report.tables.markup import render
from sah.report.tables.overview import group_table, result_table
from sah.report.tables.table import compact


def shown(table, width=80):
    file = io.StringIO()
    show(table, Console(file=file, width=width))
    return file.getvalue()


def headers(text):
    """Return the header line of a table that has a caption."""
    return text.splitlines()[1].split()


def compared(results, **options):
    settings = Settings()
    comparisons, refused = compare(match(results, {"attention": ["dense"]})[0], settings)
    return compare_table(comparisons, refused, settings, baseline="attention=dense", **options)


def rows(table):
    return list(csv.DictReader(io.StringIO(render(table, "csv"))))


def costs(lengths, base_lengths, **columns):
    """Compare answers of these lengths; by default each has its own context, in one task."""
    count = len(lengths)
    frame = pl.DataFrame(
        {
            "new_tokens": lengths,
            "new_tokens_baseline": base_lengths,
            "task": ["a"] * count,
            "context": [f"c{number}" for number in range(count)],
            "keys_read": [100.0] * count,
            "keys_read_baseline": [100.0] * count,
            "density": [0.5] * count,
            "density_baseline": [1.0] * count,
            "finish_reason": ["eos"] * count,
            "finish_reason_baseline": ["eos"] * count,
        }
        | columns
    )
    return answer_costs(frame)


# -- means and the flag ----------------------------------------------------------------


def test_means_are_over_tasks_of_means_over_answers():
    found = costs(
        *([20, 40, 20], [10, 10, 20]),
        task=["a", "a", "b"],
        keys_read=[600.0, 400.0, 100.0],
        keys_read_baseline=[1000.0, 1000.0, 3000.0],
    )
    assert (found.tokens, found.baseline_tokens) == ((30 + 20) / 2, (10 + 20) / 2)
    assert found.length_ratio == 25 / 15
    assert (found.keys_read, found.baseline_keys_read) == ((500 + 100) / 2, (1000 + 3000) / 2)
    assert found.keys_ratio == 300 / 2000
    assert (found.density, found.baseline_density) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("lengths", "is_longer"),
    [
        ([100 + number for number in range(30)], False),
        # A quarter longer, or less than that.
        ([1.25 * (100 + number) for number in range(30)], True),
        ([1.24 * (100 + number) for number in range(30)], False),
        ([50] * 30, False),
        # Long enough on average, but because of two answers.
        ([100 + number for number in range(28)] + [900, 900], False),
        # Half of the answers are twice as long.
        ([(1 + number % 2) * (100 + number) for number in range(30)], True),
    ],
)
def test_answers_are_longer_by_a_quarter_and_more_than_chance(lengths, is_longer):
    base = [100.0 + number for number in range(30)]
    assert costs([float(one) for one in lengths], base).is_longer == is_longer


def test_questions_about_one_context_count_as_one_observation():
    lengths = [300.0, 100.0, 100.0, 100.0] * 10
    own = costs(lengths, [100.0] * 40)
    shared = costs(lengths, [100.0] * 40, context=[f"c{number % 4}" for number in range(40)])
    assert own.length_ratio == shared.length_ratio == 1.5
    assert own.is_longer
    assert not shared.is_longer


def test_a_single_context_flags_nothing():
    found = costs([90, 80], [9, 8], context=["c", "c"])
    assert (found.p_value, found.is_longer) == (None, False)


def test_a_pair_of_an_early_version_has_no_means_of_what_it_lacks():
    found = costs([9, 8], [9, 8], keys_read=[1.0, None], new_tokens_baseline=[None, 8])
    assert (found.keys_read, found.keys_ratio) == (None, None)
    assert (found.length_ratio, found.p_value, found.is_longer) == (None, None, False)


def test_continuations_have_no_length_to_compare():
    found = costs([0, 0], [0, 0], finish_reason=["given"] * 2)
    assert (found.tokens, found.length_ratio, found.is_longer) == (0, None, False)


@pytest.mark.parametrize(("count", "is_cut"), [(0, False), (1, False), (2, True)])
@pytest.mark.parametrize("side", ["finish_reason", "finish_reason_baseline"])
def test_lengths_are_cut_if_more_than_a_tenth_end_at_the_limit(side, count, is_cut):
    reasons = ["length"] * count + ["eos"] * (10 - count)
    assert costs([9] * 10, [9] * 10, **{side: reasons}).is_cut == is_cut


# -- sah compare -----------------------------------------------------------------------


def test_a_method_that_saves_no_keys_because_its_answers_are_longer_is_flagged(
    write_result, results
):
    """A sparse answer reads an eighth per token in these results; it is eight times as long."""
    scores = [1.0, 0.0] * 10
    write_result("dense", scores, lengths=[10] * 20)
    write_result("sparse", scores, lengths=[80] * 20)
    write_result("equal", scores, lengths=[10] * 20)
    table = compared(results())
    text = " ".join(shown(table).split())
    assert "† sparse: reads 1.00 of the baseline's keys in total, at density 0.12: its" in text
    assert "its answers are 8.00 times as long." in text
    assert "† Longer answers: on average at least 1.25 times as long" in text
    equal, sparse = table.rows
    assert [cell.text for cell in sparse][-4:-1] == ["8.00", "1.00", "20"]
    assert [cell.text for cell in equal][-4:-1] == ["1.00", "0.12", "20"]
    assert (sparse[-1].text[-2:], "†" in equal[-1].text) == (" †", False)
    assert r"\dag{}" in render(table, "latex")
    on_page = page_data(results()).overview["results"]
    assert [one.get("longer") for one in on_page] == [None, False, True]


def test_without_longer_answers_nothing_is_flagged(write_result, results):
    for name in ("dense", "sparse"):
        write_result(name, [1.0, 0.0] * 10, lengths=[10, 12] * 10)
    table = compared(results())
    assert "†" not in shown(table)
    assert "length, keys: tokens and keys read per answer" in " ".join(shown(table).split())


def test_answers_at_the_token_limit_are_said_to_be_cut(write_result, results):
    write_result("dense", [1.0, 0.0] * 10, lengths=[10] * 20, finish_reasons=["length"] * 20)
    write_result("sparse", [1.0, 0.0] * 10, lengths=[10] * 20)
    assert "Lengths are cut in 1 of 1 rows: more than 10 % of the" in shown(
        compared(results()), 200
    )


def test_a_narrow_table_keeps_the_columns_of_longer_answers(write_result, results, budget):
    for subset in ("niah_single_1", "niah_multikey_1"):
        write_result("dense", [1.0, 0.0] * 10, subset=subset, lengths=[100] * 20)
        for share in (0.05, 0.1):
            write_result(
                *("oracle_top_k", [1.0, 0.0] * 10),
                subset=subset,
                maskers=budget(share),
                lengths=[200 if share == 0.05 else 100] * 20,
            )
    text = shown(compared(results()))
    assert max(map(len, text.splitlines())) <= 80
    assert {"length", "keys"} <= set(headers(text))
    assert text.count("2.00") >= 2
    assert "† niah_single_1 oracle_top_k fraction=0.05: reads" in " ".join(text.split())


def test_csv_has_both_sides(write_result, results):
    write_result("dense", [1.0, 0.0], lengths=[10, 20])
    write_result("sparse", [1.0, 0.0], lengths=[10, 40], finish_reasons=["length", "eos"])
    (row,) = rows(compared(results(), wide=True))
    assert (row["baseline_answer_tokens"], row["answer_tokens"]) == ("15.0", "25.0")
    assert (row["baseline_keys_read"], row["keys_read"]) == ("3000.0", "625.0")
    assert (row["baseline_density"], row["density"]) == ("1.0", "0.125")
    assert (row["ended_at_limit"], row["longer_answers"]) == ("0.5", "")
    assert 0 < float(row["answer_length_p_value"]) < 1


# -- sah report ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0, "0"), (5, "5"), (87.54, "87.5"), (412.4, "412"), (999.6, "1k"), (1234, "1.23k")),
        *((12_345, "12.3k"), (999_600, "1M"), (3.4e6, "3.4M"), (5.678e9, "5.68G"), (2e12, "2T")),
        (None, "–"),
    ],
)
def test_numbers_of_any_size_have_three_digits(value, text):
    assert compact(value).text == text


def test_the_table_has_answer_length_and_keys_read(write_result, results):
    write_result("dense", lengths=[8, 12])
    write_result("sparse", lengths=[900, 1500])
    for table in (result_table(results()), group_table(results(), ["attention"])):
        text = shown(table, 200)
        assert {"tokens", "keys"} <= set(text.replace("─", "").split())
        lines = [line.split() for line in text.splitlines()]
        (dense,) = [line for line in lines if line[:1] == ["dense"]]
        (sparse,) = [line for line in lines if line[:1] == ["sparse"]]
        place = dense.index("2k")
        assert (dense[place - 1], sparse[place - 1 : place + 1]) == ("10", ["1.2k", "30k"])
    by_name = {row["attention"]: row for row in rows(result_table(results(), wide=True))}
    sparse = by_name["sparse"]
    assert (sparse["answer_tokens"], sparse["answer_tokens_stderr"]) == ("1200.0", "300.0")
    assert (sparse["keys_read"], float(sparse["keys_read_stderr"])) == (
        "30000.0",
        pytest.approx(7500),
    )
    on_page = page_data(results()).overview["results"]
    assert [(one["tokens"], one["keysRead"]) for one in on_page] == [(10, 2000), (1200, 30_000)]


@pytest.mark.parametrize(("tokens", "is_shown"), [(10, False), (63, False), (64, True)])
def test_a_narrow_table_has_them_where_answers_are_long(write_result, results, tokens, is_shown):
    for name in ("dense", "a_method_with_a_rather_long_name"):
        write_result(name, lengths=[tokens, tokens])
    text = shown(result_table(results()))
    assert max(map(len, text.splitlines())) <= 80
    assert ("tokens" in headers(text)) == is_shown
