"""The importance of the parameters of a search."""

from itertools import product

import numpy as np
import pytest

from sah.report.statistics.importance import importances


def test_a_balanced_design_has_the_shares_of_analysis_of_variance():
    cells = [*product((4, 8, 16), (0.1, 0.2), range(3))]
    noise = np.random.default_rng(0).normal(size=len(cells))
    values = [pages + 20 * share + one for (pages, share, _), one in zip(cells, noise, strict=True)]
    found = importances(
        {"pages": [cell[0] for cell in cells], "share": [cell[1] for cell in cells]}, values
    )

    def squares(position):
        levels = [cell[position] for cell in cells]
        means = [
            np.mean([one for one, other in zip(values, levels, strict=True) if other == level])
            for level in levels
        ]
        return float(np.square(np.subtract(means, np.mean(values))).sum())

    total, n = float(np.square(np.subtract(values, np.mean(values))).sum()), len(cells)

    def adjusted(explained, levels):
        return 1 - (total - explained) / (n - levels) / (total / (n - 1))

    whole = adjusted(squares(0) + squares(1), 4)
    assert found == {
        "pages": pytest.approx(whole - max(0, adjusted(squares(1), 2))),
        "share": pytest.approx(whole - adjusted(squares(0), 3)),
    }


def test_a_parameter_that_only_goes_with_another_has_no_importance():
    pages = [4] * 6 + [8] * 6
    followed = ["low"] * 5 + ["high"] + ["low"] + ["high"] * 5
    found = importances({"pages": pages, "followed": followed}, pages)
    assert found["followed"] == pytest.approx(0, abs=1e-9)
    assert found["pages"] > 0.5


def test_many_numbers_are_divided_into_quarters():
    shares = np.linspace(0, 1, 20)
    found = importances({"share": shares.tolist()}, shares.tolist())
    # Within a quarter of a uniform variable a sixteenth of its variance is left.
    assert found["share"] == pytest.approx(1 - 1 / 16, abs=0.03)


@pytest.mark.parametrize(
    ("parameters", "values"),
    [
        ({"pages": []}, []),
        ({"pages": [4]}, [1.0]),
        ({"pages": [4, 8, 16]}, [1.0, 2.0, 3.0]),
        ({"pages": [4, 4, 8, 8]}, [1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_too_few_trials_or_equal_objectives_have_no_importance(parameters, values):
    assert importances(parameters, values) is None
