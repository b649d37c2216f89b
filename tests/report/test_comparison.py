import csv
import io

import pytest
from rich.console import Console

from sah.errors import ConfigurationError
from sah.report.statistics.comparison import Settings, compare
from sah.report.statistics.pairing import match, read_pairs
from sah.report.tables.comparison_table import compare_table
from sah.report.tables.table import render, show

DENSE = {"attention": ["dense"]}
FAST = Settings(resamples=500)


def shown(table, width=100):
    file = io.StringIO()
    show(table, Console(file=file, width=width))
    return file.getvalue()


def one(runs, **options):
    matches, _ = match(runs, DENSE)
    comparisons, refused = compare(matches, FAST, **options)
    assert refused == []
    (comparison,) = comparisons
    return comparison


# -- which runs belong together --------------------------------------------------------


def test_a_baseline_differs_in_nothing_but_the_attention(write_run, runs, budget):
    for seed in (1, 2):
        write_run("dense", settings={"seed": seed})
        write_run("sparse", settings={"seed": seed}, maskers=budget(0.1))
    matches, unmatched = match(runs(), DENSE)
    assert unmatched == []
    pairs = [(one.arms[0].config["seed"], one.baselines[0].config["seed"]) for one in matches]
    assert sorted(pairs) == [(1, 1), (2, 2)]


def test_metric_logging_makes_no_difference(write_run, runs):
    write_run("dense", settings={"metric_logging": {"name": "off"}})
    write_run("sparse", settings={"metric_logging": {"name": "full", "sampling_factor": 1.0}})
    matches, _ = match(runs(), DENSE)
    assert len(matches) == 1


def test_a_run_without_baseline_is_told_what_differs(write_run, runs):
    write_run("dense", settings={"seed": 1})
    write_run("sparse", settings={"seed": 2})
    matches, unmatched = match(runs(), DENSE)
    assert matches == []
    assert "seed=2, not 1" in unmatched[0][1]


def test_protocols_are_never_mixed(write_run, runs):
    write_run("dense")
    write_run("sparse", settings={"protocol": {"name": "question_dense", "question": "dense"}})
    _, unmatched = match(runs(), DENSE)
    assert "protocol" in unmatched[0][1]


def test_two_baselines_of_one_run_are_an_error(write_run, runs, budget):
    write_run("sparse", maskers=budget(0.1))
    write_run("sparse", maskers=budget(0.2))
    write_run("other")
    with pytest.raises(ConfigurationError, match=r"fraction=0\.2"):
        match(runs(), {"attention": ["sparse"]})
    matches, _ = match(runs(), {"attention": ["sparse"], "fraction": ["0.2"]})
    assert len(matches) == 2


def test_no_baseline_at_all_is_an_error(write_run, runs):
    write_run("sparse")
    with pytest.raises(ConfigurationError, match="attention=dense"):
        match(runs(), DENSE)


def test_pooled_seeds_are_one_comparison(write_run, runs):
    for seed in (1, 2, 3):
        write_run("dense", [1.0, 1.0], settings={"seed": seed})
        write_run("sparse", [1.0, 0.0], settings={"seed": seed})
    matches, _ = match(runs(), DENSE, pool=["seed"])
    assert len(matches) == 1
    (comparison,), _ = compare(matches, FAST)
    assert (comparison.pairs, comparison.lost, comparison.difference) == (6, 3, -0.5)


# -- which answers are paired ----------------------------------------------------------


def test_only_identical_inputs_are_paired(write_run, runs):
    write_run("dense", [1.0, 1.0, 1.0])
    folder = write_run("sparse", [0.0, 1.0, 1.0])
    path = folder / "predictions.jsonl"
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace('"input_hash":"', '"input_hash":"0')
    path.write_text("\n".join(lines[:3]) + "\n")
    matches, _ = match(runs(), DENSE)
    (pairs,) = read_pairs(matches)
    assert pairs.frame["example_id"].to_list() == ["task-0", "task-1"]
    assert (pairs.different_inputs, pairs.unanswered) == (1, 0)
    assert "1 answers to other input tokens" in shown(
        compare_table(*compare(matches, FAST), FAST, baseline="attention=dense")
    )


def test_other_prompts_are_refused_with_the_reason(write_run, runs):
    write_run("dense", [1.0, 1.0])
    write_run("sparse", [1.0, 1.0], prompts="another template")
    matches, _ = match(runs(), DENSE)
    comparisons, refused = compare(matches, FAST)
    assert comparisons == []
    assert "same input tokens" in refused[0][1]


def test_examples_that_one_side_lacks_are_counted(write_run, runs):
    write_run("dense", [1.0, 1.0, 0.0])
    write_run("sparse", [1.0, 1.0])
    matches, _ = match(runs(), DENSE)
    (pairs,) = read_pairs(matches)
    assert (len(pairs.frame), pairs.unanswered) == (2, 1)


# -- what is said about them -----------------------------------------------------------


def test_a_comparison_has_both_scores_their_difference_and_the_flips(write_run, runs):
    write_run("dense", [1.0, 1.0, 0.0, 0.5])
    write_run("sparse", [1.0, 0.0, 1.0, 0.25])
    comparison = one(runs())
    assert comparison.baseline_score == pytest.approx(0.625)
    assert comparison.score == pytest.approx(0.5625)
    assert comparison.difference == pytest.approx(-0.0625)
    assert (comparison.gained, comparison.lost) == (1, 2)


def test_tasks_weigh_the_same_and_can_be_looked_at_alone(write_run, runs):
    tasks = ["a", "a", "a", "b"]
    write_run("dense", [1.0, 1.0, 1.0, 1.0], tasks=tasks)
    write_run("sparse", [1.0, 1.0, 1.0, 0.0], tasks=tasks)
    assert one(runs()).difference == pytest.approx(-0.5)
    matches, _ = match(runs(), DENSE)
    per_task, _ = compare(matches, FAST, per_task=True)
    assert {item.task: item.difference for item in per_task} == {"a": 0.0, "b": -1.0}


def test_many_equal_answers_are_within_the_margin(write_run, runs):
    scores = [1.0, 0.0] * 1000
    write_run("dense", scores)
    write_run("sparse", scores)
    assert one(runs()).verdict == "within"


def test_few_equal_answers_are_too_few_and_the_number_needed_is_named(write_run, runs):
    write_run("dense", [1.0, 0.0] * 10)
    write_run("sparse", [1.0, 0.0] * 10)
    comparison = one(runs())
    assert comparison.verdict == "undecided"
    assert 2000 < comparison.needed < 10_000
    table = compare_table([comparison], [], FAST, baseline="attention=dense")
    assert "? n≈" in shown(table)


def test_many_losses_are_worse(write_run, runs):
    write_run("dense", [1.0, 0.0] * 20)
    write_run("sparse", [0.0] * 40)
    comparison = one(runs())
    assert comparison.verdict == "worse"
    assert comparison.significant
    assert not comparison.suspicious


def test_a_difference_that_may_be_smaller_than_the_margin_is_said_to_be_one(write_run, runs):
    write_run("dense", [1.0, 0.0] * 20)
    write_run("sparse", [0.0] * 12 + [1.0, 0.0] * 14)
    wide = Settings(resamples=500, margin=0.15)
    (comparison,), _ = compare(match(runs(), DENSE)[0], wide)
    assert comparison.verdict == "undecided"
    assert comparison.p_value < 0.05
    table = compare_table([comparison], [], FAST, baseline="attention=dense")
    assert "? worse" in shown(table)


def test_significantly_better_than_dense_is_an_alarm(write_run, runs):
    write_run("dense", [1.0, 0.0] * 20)
    write_run("sparse", [1.0] * 40)
    comparison = one(runs())
    assert comparison.suspicious
    table = compare_table([comparison], [], FAST, baseline="attention=dense")
    assert "ALARM" in shown(table)
    assert {cell.style for cell in table.rows[0]} == {"alarm"}


@pytest.mark.parametrize(("score", "name"), [(0.0, "floor"), (1.0, "ceiling")])
def test_a_benchmark_at_floor_or_ceiling_is_grey(write_run, runs, score, name):
    write_run("dense", [score] * 20)
    write_run("sparse", [score] * 20)
    comparison = one(runs())
    assert comparison.uninformative == name
    table = compare_table([comparison], [], FAST, baseline="attention=dense")
    assert {cell.style for cell in table.rows[0]} == {"dim"}
    assert f"at {name}" in shown(table)


def test_a_clear_loss_from_the_ceiling_is_not_grey(write_run, runs):
    write_run("dense", [1.0] * 20)
    write_run("sparse", [0.0] * 20)
    table = compare_table([one(runs())], [], FAST, baseline="attention=dense")
    assert {cell.style for cell in table.rows[0]} == {"bold"}


def test_p_values_are_corrected_for_the_whole_matrix(write_run, runs):
    dense = [1.0, 0.0] * 10
    write_run("dense", dense)
    write_run("lossy", [0.0 if n < 12 else score for n, score in enumerate(dense)])
    alone = one(runs()).adjusted_p_value
    write_run("same", [*dense[:-1], 1.0])
    matches, _ = match(runs(), DENSE)
    together, _ = compare(matches, FAST)
    (lossy,) = [item for item in together if item.match.arms[0].attention == "lossy"]
    assert lossy.adjusted_p_value == pytest.approx(2 * alone)


def test_csv_has_every_number_and_both_fingerprints(write_run, runs):
    write_run("dense", [1.0, 1.0, 0.0])
    write_run("sparse", [1.0, 0.0, 0.0])
    comparison = one(runs())
    table = compare_table([comparison], [], FAST, baseline="attention=dense", wide=True)
    (row,) = csv.DictReader(io.StringIO(render(table, "csv")))
    assert float(row["difference"]) == pytest.approx(-1 / 3)
    assert row["fingerprint"] != row["baseline_fingerprint"]
    assert row["verdict"] == "undecided"


def test_the_table_fits_80_columns(write_run, runs, budget):
    for subset in ("niah_single_1", "niah_multikey_1"):
        write_run("dense", [1.0, 0.0] * 10, subset=subset)
        for share in (0.05, 0.1):
            write_run("oracle_top_k", [1.0, 0.0] * 10, subset=subset, maskers=budget(share))
    matches, _ = match(runs(), DENSE)
    comparisons, refused = compare(matches, FAST)
    text = shown(compare_table(comparisons, refused, FAST, baseline="attention=dense"), 80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "95 % CI" in text
