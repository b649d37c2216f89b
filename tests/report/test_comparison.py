import csv
import io

import orjson
import pytest
from rich.console import Console

from sah.errors import ConfigurationError
from sah.report.statistics.comparison import Settings, compare
from sah.report.statistics.pairing import match, read_pairs
from sah.report.tables.comparison_table import compare_table
from sah.report.tables.layout import show
from sah.report.tables.markup import render
from sah.results.stored_lines import digest

DENSE = {"attention": ["dense"]}
DEFAULT = Settings()


def shown(table, width=100):
    file = io.StringIO()
    show(table, Console(file=file, width=width))
    return file.getvalue()


def one(results, **options):
    matches, _ = match(results, DENSE)
    comparisons, refused = compare(matches, DEFAULT, **options)
    assert refused == []
    (comparison,) = comparisons
    return comparison


# -- matching results with baselines ---------------------------------------------------


def test_a_baseline_differs_in_nothing_but_the_attention(write_result, results, budget):
    for seed in (1, 2):
        write_result("dense", settings={"seed": seed})
        write_result("sparse", settings={"seed": seed}, maskers=budget(0.1))
    matches, unmatched = match(results(), DENSE)
    assert unmatched == []
    pairs = [
        (one.results[0].settings["seed"], one.baselines[0].settings["seed"]) for one in matches
    ]
    assert sorted(pairs) == [(1, 1), (2, 2)]


def test_metric_logging_makes_no_difference(write_result, results):
    write_result("dense", settings={"metric_logging": {"name": "off"}})
    write_result("sparse", settings={"metric_logging": {"name": "full", "sampling_factor": 1.0}})
    matches, _ = match(results(), DENSE)
    assert len(matches) == 1


def test_a_result_without_a_baseline_names_the_difference(write_result, results):
    write_result("dense", settings={"seed": 1})
    write_result("sparse", settings={"seed": 2})
    matches, unmatched = match(results(), DENSE)
    assert matches == []
    assert "seed=2, not 1" in unmatched[0][1]


def test_protocols_are_never_mixed(write_result, results):
    write_result("dense")
    write_result("sparse", settings={"protocol": {"name": "question_dense", "question": "dense"}})
    _, unmatched = match(results(), DENSE)
    assert "protocol" in unmatched[0][1]


def test_two_baselines_of_one_result_are_an_error(write_result, results, budget):
    write_result("sparse", maskers=budget(0.1))
    write_result("sparse", maskers=budget(0.2))
    write_result("other")
    with pytest.raises(ConfigurationError, match=r"fraction=0\.2"):
        match(results(), {"attention": ["sparse"]})
    matches, _ = match(results(), {"attention": ["sparse"], "fraction": ["0.2"]})
    assert len(matches) == 2


def test_no_baseline_at_all_is_an_error(write_result, results):
    write_result("sparse")
    with pytest.raises(ConfigurationError, match="attention=dense"):
        match(results(), DENSE)


def test_pooled_seeds_are_one_comparison(write_result, results):
    for seed in (1, 2, 3):
        write_result("dense", [1.0, 1.0], settings={"seed": seed})
        write_result("sparse", [1.0, 0.0], settings={"seed": seed})
    matches, _ = match(results(), DENSE, pool=["seed"])
    assert len(matches) == 1
    (comparison,), _ = compare(matches, DEFAULT)
    assert (comparison.pairs, comparison.lost, comparison.difference) == (6, 3, -0.5)


# -- pairing answers ------------------------------------------------------------------


def test_only_identical_inputs_are_paired(write_result, results):
    write_result("dense", [1.0, 1.0, 1.0])
    write_result("sparse", [0.0, 1.0, 1.0], prompts=["", "", "another template"])
    matches, _ = match(results(), DENSE)
    (pairs,) = read_pairs(matches)
    assert pairs.frame["example_id"].to_list() == ["task-0", "task-1"]
    assert (pairs.different_inputs, pairs.unanswered) == (1, 0)
    assert "answers not compared: 1 whose input tokens differ" in shown(
        compare_table(*compare(matches, DEFAULT), DEFAULT, baseline="attention=dense")
    )


def test_other_prompts_are_refused_with_the_reason(write_result, results):
    write_result("dense", [1.0, 1.0])
    write_result("sparse", [1.0, 1.0], prompts=["another template"] * 2)
    matches, _ = match(results(), DENSE)
    comparisons, refused = compare(matches, DEFAULT)
    assert comparisons == []
    assert "same input tokens" in refused[0][1]


def test_scores_of_other_references_are_not_paired(write_result, results):
    """References were corrected between two arms: dense answered for the wrong one."""
    write_result("dense", [0.0, 1.0, 1.0], references=["wrong", "right", "right"])
    write_result("sparse", [1.0, 1.0, 1.0])
    matches, _ = match(results(), DENSE)
    (pairs,) = read_pairs(matches)
    assert pairs.frame["example_id"].to_list() == ["task-1", "task-2"]
    assert (pairs.different_references, pairs.different_inputs, pairs.unanswered) == (1, 0, 0)
    comparisons, refused = compare(matches, DEFAULT)
    assert comparisons[0].difference == 0
    assert "1 whose references differ; compared: 2" in shown(
        compare_table(comparisons, refused, DEFAULT, baseline="attention=dense")
    )


def test_other_references_alone_are_refused_with_the_reason(write_result, results):
    write_result("dense", [0.0, 0.0], references=["wrong", "wrong"])
    write_result("sparse", [1.0, 1.0])
    comparisons, refused = compare(match(results(), DENSE)[0], DEFAULT)
    assert comparisons == []
    assert "2 have other references" in refused[0][1]


def test_the_references_that_a_score_was_computed_with_count(write_result, results):
    """After rescoring, the answer still names the references at its own time."""
    write_result("dense", [1.0, 1.0])
    folder = write_result("sparse", [1.0, 1.0])
    path = folder / "scores.jsonl"
    content = path.read_bytes().replace(b'"references_hash":"right"', b'"references_hash":"new"')
    path.write_bytes(content)
    document = orjson.loads((folder / "results.json").read_bytes())
    document["scores_digest"] = digest(content)
    (folder / "results.json").write_bytes(orjson.dumps(document))
    (pairs,) = read_pairs(match(results(), DENSE)[0])
    assert (pairs.paired, pairs.different_references) == (0, 2)


def test_answers_of_another_limit_are_not_paired(write_result, results):
    write_result("dense", [1.0, 1.0], token_limits=[10, 20])
    write_result("sparse", [1.0, 0.0], token_limits=[10, 10])
    matches, _ = match(results(), DENSE)
    (pairs,) = read_pairs(matches)
    assert (pairs.paired, pairs.different_limits) == (1, 1)
    assert "1 whose token limit differs; compared: 1" in shown(
        compare_table(*compare(matches, DEFAULT), DEFAULT, baseline="attention=dense")
    )


def test_limits_that_are_what_is_compared_are_paired(write_result, results):
    for limit in (10, 20):
        settings = {"generation": {"max_new_tokens": limit}}
        write_result("dense", [1.0, 1.0], token_limits=[limit, limit], settings=settings)
    matches, _ = match(results(), {"generation.max_new_tokens": ["10"]})
    (pairs,) = read_pairs(matches)
    assert (pairs.paired, pairs.different_limits) == (2, 0)


def test_examples_that_one_side_lacks_are_counted(write_result, results):
    write_result("dense", [1.0, 1.0, 0.0])
    write_result("sparse", [1.0, 1.0])
    matches, _ = match(results(), DENSE)
    (pairs,) = read_pairs(matches)
    assert (len(pairs.frame), pairs.unanswered) == (2, 1)


# -- verdicts -------------------------------------------------------------------------


def test_a_comparison_has_both_scores_their_difference_and_the_flips(write_result, results):
    write_result("dense", [1.0, 1.0, 0.0, 0.5])
    write_result("sparse", [1.0, 0.0, 1.0, 0.25])
    comparison = one(results())
    assert comparison.baseline_score == pytest.approx(0.625)
    assert comparison.score == pytest.approx(0.5625)
    assert comparison.difference == pytest.approx(-0.0625)
    assert (comparison.gained, comparison.lost) == (1, 2)


def test_tasks_have_equal_weight_and_can_be_compared_alone(write_result, results):
    tasks = ["a", "a", "a", "b"]
    write_result("dense", [1.0, 1.0, 1.0, 1.0], tasks=tasks)
    write_result("sparse", [1.0, 1.0, 1.0, 0.0], tasks=tasks)
    assert one(results()).difference == pytest.approx(-0.5)
    matches, _ = match(results(), DENSE)
    per_task, _ = compare(matches, DEFAULT, per_task=True)
    assert {item.task: item.difference for item in per_task} == {"a": 0.0, "b": -1.0}


def test_many_equal_answers_are_within_the_margin(write_result, results):
    scores = [1.0, 0.0] * 1000
    write_result("dense", scores)
    write_result("sparse", scores)
    assert one(results()).verdict == "within"


def test_few_equal_answers_are_undecided_and_the_number_needed_is_named(write_result, results):
    write_result("dense", [1.0, 0.0] * 10)
    write_result("sparse", [1.0, 0.0] * 10)
    comparison = one(results())
    assert comparison.verdict == "undecided"
    low, high = comparison.needed
    assert 20 < low < 1000 < high < 20_000
    text = shown(compare_table([comparison], [], DEFAULT, baseline="attention=dense"))
    assert "? n≈410–" in text
    assert "*" in text
    assert "Too few contexts differ" in text


def test_within_is_two_one_sided_tests(write_result, results):
    """The 95 % interval reaches beyond the margin, the 90 % interval of the two tests does not."""
    write_result("dense", [1.0, 0.0] * 125)
    write_result("sparse", [1.0, 0.0] * 125)
    comparison = one(results())
    assert comparison.interval.high > 0.01
    assert comparison.equivalence_p_value < 0.05
    assert comparison.verdict == "within"


def test_two_large_gains_and_thirty_small_losses_are_neither_alarm_nor_worse(write_result, results):
    write_result("dense", [0.5] * 32)
    write_result("sparse", [1.0] * 2 + [0.49] * 30)
    comparison = one(results())
    assert comparison.difference > 0
    assert comparison.adjusted_p_value > 0.3
    assert (comparison.verdict, comparison.direction) == ("undecided", None)
    text = shown(compare_table([comparison], [], DEFAULT, baseline="attention=dense"))
    assert "ALARM" not in text.splitlines()[3]
    assert "worse" not in text.splitlines()[3]


@pytest.mark.parametrize("losses", range(0, 21, 2))
@pytest.mark.parametrize("gains", [0, 3, 12])
def test_verdict_style_and_interval_follow_from_one_test(write_result, results, losses, gains):
    write_result("dense", [1.0] * 20 + [0.0] * 20)
    write_result("sparse", [0.0] * losses + [1.0] * (20 - losses + gains) + [0.0] * (20 - gains))
    comparison = one(results())
    rejected = comparison.p_value < 0.05
    assert rejected == (comparison.direction is not None)
    (row,) = compare_table([comparison], [], DEFAULT, baseline="attention=dense").rows
    verdict, style = row[-1].text, row[-1].style
    assert style == (("alarm" if gains > losses else "bold") if rejected else "")
    assert ("better" in verdict) == (rejected and gains > losses)
    assert ("worse" in verdict) == (rejected and gains < losses)


def test_a_loss_that_does_not_survive_the_correction_is_not_a_verdict(
    write_result, results, budget
):
    write_result("dense", [1.0, 0.0] * 20)
    for share in range(1, 11):
        scores = [0.0] * 10 + [1.0, 0.0] * 15 if share == 1 else [1.0, 0.0] * 20
        write_result("sparse", scores, maskers=budget(share / 20))
    comparisons, _ = compare(match(results(), DENSE)[0], DEFAULT)
    (lossy,) = [item for item in comparisons if item.lost]
    assert lossy.p_value < 0.05 < lossy.adjusted_p_value
    assert (lossy.verdict, lossy.direction, lossy.needed) == ("undecided", "worse", None)
    table = compare_table(comparisons, [], DEFAULT, baseline="attention=dense")
    (row,) = [row for row in table.rows if "worse" in row[-1].text]
    assert (row[-1].text, row[-1].style) == ("? worse", "")


def test_many_losses_are_worse(write_result, results):
    write_result("dense", [1.0, 0.0] * 20)
    write_result("sparse", [0.0] * 40)
    comparison = one(results())
    assert comparison.verdict == "worse"
    assert comparison.significant
    assert not comparison.suspicious


def test_a_significant_difference_that_may_be_within_the_margin_is_shown_as_one(
    write_result, results
):
    write_result("dense", [1.0, 0.0] * 20)
    write_result("sparse", [0.0] * 12 + [1.0, 0.0] * 14)
    wide = Settings(margin=0.15)
    (comparison,), _ = compare(match(results(), DENSE)[0], wide)
    assert comparison.verdict == "undecided"
    assert comparison.p_value < 0.05
    table = compare_table([comparison], [], DEFAULT, baseline="attention=dense")
    assert "? worse" in shown(table)


def test_significantly_better_than_dense_is_an_alarm(write_result, results):
    write_result("dense", [1.0, 0.0] * 20)
    write_result("sparse", [1.0] * 40)
    comparison = one(results())
    assert comparison.suspicious
    table = compare_table([comparison], [], DEFAULT, baseline="attention=dense")
    assert "ALARM" in shown(table)
    assert {cell.style for cell in table.rows[0]} == {"alarm"}


@pytest.mark.parametrize(("score", "name"), [(0.0, "floor"), (1.0, "ceiling")])
def test_a_benchmark_at_floor_or_ceiling_is_grey(write_result, results, score, name):
    write_result("dense", [score] * 20)
    write_result("sparse", [score] * 20)
    comparison = one(results())
    assert comparison.uninformative == name
    table = compare_table([comparison], [], DEFAULT, baseline="attention=dense")
    assert {cell.style for cell in table.rows[0]} == {"dim"}
    assert f"at {name}" in shown(table)


@pytest.mark.parametrize(("score", "name"), [(0.0, "floor"), (1.0, "ceiling")])
def test_equal_scores_at_floor_or_ceiling_support_no_claim(write_result, results, score, name):
    write_result("dense", [score] * 500)
    write_result("sparse", [score] * 500)
    comparison = one(results())
    assert comparison.verdict == "within"
    (row,) = compare_table([comparison], [], DEFAULT, baseline="attention=dense").rows
    assert (row[-1].text, row[-1].style) == (f"at {name}", "dim")


@pytest.mark.parametrize("lost", [1, 3, 5, 9])
def test_the_ceiling_hides_no_loss(write_result, results, lost):
    write_result("dense", [1.0] * 20)
    write_result("sparse", [0.0] * lost + [1.0] * (20 - lost))
    comparison = one(results())
    assert comparison.uninformative is None
    (row,) = compare_table([comparison], [], DEFAULT, baseline="attention=dense").rows
    assert row[-1].style != "dim"


def test_a_clear_loss_from_the_ceiling_is_not_grey(write_result, results):
    write_result("dense", [1.0] * 20)
    write_result("sparse", [0.0] * 20)
    table = compare_table([one(results())], [], DEFAULT, baseline="attention=dense")
    assert {cell.style for cell in table.rows[0]} == {"bold"}


def test_p_values_are_corrected_for_the_whole_matrix(write_result, results):
    dense = [1.0, 0.0] * 10
    write_result("dense", dense)
    write_result("lossy", [0.0 if n < 12 else score for n, score in enumerate(dense)])
    alone = one(results()).adjusted_p_value
    write_result("same", [*dense[:-1], 1.0])
    matches, _ = match(results(), DENSE)
    together, _ = compare(matches, DEFAULT)
    (lossy,) = [item for item in together if item.match.results[0].attention == "lossy"]
    assert lossy.adjusted_p_value == pytest.approx(2 * alone)


def test_csv_has_every_number_and_both_fingerprints(write_result, results):
    write_result("dense", [1.0, 1.0, 0.0])
    write_result("sparse", [1.0, 0.0, 0.0])
    comparison = one(results())
    table = compare_table([comparison], [], DEFAULT, baseline="attention=dense", wide=True)
    (row,) = csv.DictReader(io.StringIO(render(table, "csv")))
    assert float(row["difference"]) == pytest.approx(-1 / 3)
    assert row["fingerprint"] != row["baseline_fingerprint"]
    assert row["verdict"] == "undecided"


def test_the_table_fits_80_columns(write_result, results, budget):
    for subset in ("niah_single_1", "niah_multikey_1"):
        write_result("dense", [1.0, 0.0] * 10, subset=subset)
        for share in (0.05, 0.1):
            write_result("oracle_top_k", [1.0, 0.0] * 10, subset=subset, maskers=budget(share))
    matches, _ = match(results(), DENSE)
    comparisons, refused = compare(matches, DEFAULT)
    text = shown(compare_table(comparisons, refused, DEFAULT, baseline="attention=dense"), 80)
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "95 % CI" in text
