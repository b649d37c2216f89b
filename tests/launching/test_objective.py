"""objective=EXPRESSION: arithmetic over the numbers of a result."""

from dataclasses import replace

import pytest

from sah.errors import ConfigurationError
from sah.launching.objective import check_objective, objective


@pytest.fixture
def result(make_result):
    timing = replace(make_result().timing, decode_seconds=4.0)
    return make_result(score=0.9, density=0.2, timing=timing)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("score", 0.9),
        ("score - 10 * max(0, density - 0.1)", -0.1),
        ("score / decode_seconds", 0.225),
        ("-density", -0.2),
    ],
)
def test_an_objective_is_arithmetic_over_the_numbers_of_a_result(result, expression, expected):
    assert objective(expression, result) == pytest.approx(expected)


@pytest.mark.parametrize(
    "expression",
    [
        "recall",
        "model",
        "scores",
        "score +",
        "'a'",
        "score / (density - density)",
        "score > 0",
        "__import__('os').system('true')",
        "().__class__",
        "open('results.json')",
        "[score for _ in range(3)]",
    ],
)
def test_anything_else_is_refused_by_name(result, expression):
    with pytest.raises(ConfigurationError, match="objective="):
        objective(expression, result)


@pytest.mark.parametrize(
    "expression",
    ["score", "recall - dense_agreement_kl", "1 / (score - 0.5)", "log(score - 0.5)", "n * 2"],
)
def test_an_expression_over_what_a_result_may_have_is_accepted_before_there_is_one(expression):
    check_objective(expression)


@pytest.mark.parametrize("expression", ["scores", "model", "tasks", "score +", "'a'", "score > 0"])
def test_what_no_result_has_is_refused_before_anything_runs(expression):
    with pytest.raises(ConfigurationError, match="objective="):
        check_objective(expression)
