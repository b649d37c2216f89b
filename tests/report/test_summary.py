"""The first view of the page: claims and the matrix of methods and tasks, with seeds pooled."""

import pytest

from sah.report.html.summary import summary


@pytest.fixture
def write_seeds(write_result):
    """Write dense and one method under two seeds; `scores` of the method are of both seeds."""

    def write(attention, scores, **options):
        for seed in (1, 2):
            half = scores[: len(scores) // 2] if seed == 1 else scores[len(scores) // 2 :]
            write_result("dense", [1.0] * len(half), settings={"seed": seed}, **options)
            write_result(attention, half, settings={"seed": seed}, **options)

    return write


def cells(matrix):
    return {method: [cell.text for cell in row] for method, _, row in matrix.rows}


def test_a_significant_loss_is_a_claim_with_its_evidence(write_seeds, results):
    write_seeds("quest", [0.0] * 20 + [1.0] * 20)
    (claim,) = summary(results()).claims
    assert claim.colour == "worse"
    assert claim.text.startswith(
        "quest at density 0.125 loses 50.0 points against dense attention on ruler (95 % CI −"
    )
    assert claim.text.endswith("Holm p <.001, flips +0 −20, n = 40).")


def test_equal_answers_at_the_ceiling_are_not_a_claim_of_equality(write_seeds, results):
    write_seeds("quest", [1.0] * 40)
    (claim,) = summary(results()).claims
    assert claim.colour == "uninformative"
    assert (
        "cannot be told apart from dense attention, which is at the ceiling on ruler" in claim.text
    )


def test_too_few_answers_are_said_to_be_too_few(write_result, results):
    write_result("dense", [1.0])
    write_result("quest", [0.5])
    (claim,) = summary(results()).claims
    assert claim.colour == "undecided"
    assert "has too few answers to be compared with dense attention" in claim.text
    assert "no interval with fewer than two contexts" in claim.text


def test_a_loss_that_the_correction_leaves_open_is_not_claimed(write_result, results):
    write_result("dense", [1.0] * 40)
    for number in range(8):
        write_result(f"method_{number}", [0.0] * 6 + [1.0] * 34)
    for claim in summary(results()).claims:
        assert claim.colour == "undecided"
        expected = (
            "scores 15.0 points below dense attention, but not significantly after correction,"
        )
        assert expected in claim.text


def test_an_alarm_comes_first(write_result, results):
    write_result("dense", [1.0] * 20 + [0.0] * 20)
    write_result("a_loser", [0.0] * 40)
    write_result("z_winner", [1.0] * 40)
    first, second = summary(results()).claims
    assert (first.colour, second.colour) == ("alarm", "worse")
    assert "z_winner at density 0.125 scores 50.0 points above dense attention" in first.text


def test_seeds_are_pooled_and_the_average_comes_last(write_result, results):
    tasks = {"tasks": ["one", "one", "two", "two"], "subset": ["one", "two"]}
    for seed, right in ((1, 1.0), (2, 0.0)):
        write_result("dense", [1.0] * 4, settings={"seed": seed}, **tasks)
        write_result("quest", [right, right, 1.0, 1.0], settings={"seed": seed}, **tasks)
    (matrix,) = summary(results()).matrices
    assert (matrix.title, matrix.tasks) == ("ruler", ["one", "two"])
    assert cells(matrix) == {"dense": ["100.0"] * 3, "quest": ["50.0", "100.0", "75.0"]}
    assert "n = 4; −50.0 against dense: " in matrix.rows[1][2][0].detail


def test_tasks_that_are_subsets_of_their_own_share_a_matrix(write_result, results):
    for subset, right, count in (("one", 0.0, 2), ("two", 1.0, 6)):
        for name, score in (("dense", 1.0), ("quest", right)):
            write_result(name, [score] * count, tasks=[subset] * count, subset=subset)
    found = summary(results())
    (matrix,) = found.matrices
    # The average is of tasks, whichever has more answers.
    assert cells(matrix)["quest"] == ["0.0", "100.0", "50.0"]
    assert found.tests == 1
    assert found.task_tests == 2


def test_a_method_without_a_task_has_no_average(write_result, results):
    for subset in ("one", "two"):
        write_result("dense", [1.0, 0.0], tasks=[subset] * 2, subset=subset)
    write_result("quest", [1.0, 0.0], tasks=["one"] * 2, subset="one")
    (matrix,) = summary(results()).matrices
    assert cells(matrix) == {"dense": ["50.0"] * 3, "quest": ["50.0", "–", "–"]}


def test_without_dense_attention_the_reason_stands_in_place_of_claims(write_result, results):
    write_result("quest")
    found = summary(results())
    assert found.claims == []
    assert found.problem.startswith("no result matches the baseline attention=dense; run it")
    assert cells(found.matrices[0]) == {"quest": ["50.0", "50.0"]}


def test_dense_attention_alone_says_what_to_add(write_result, results):
    write_result("dense")
    assert "add a method, for example attention=dense,quest" in summary(results()).problem


def test_an_experiment_without_a_baseline_is_named(write_result, results):
    write_result("dense", settings={"seed": 1})
    for seed in (1, 2):
        write_result("quest", settings={"seed": seed})
    (line,) = summary(results()).left_out
    assert line.startswith("quest on ruler ")
    assert "seed=2, not 1" in line
