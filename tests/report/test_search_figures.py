"""History and importance of a search, drawn from its record."""

from dataclasses import replace

import pytest

from sah.report.figures.axes import style
from sah.report.figures.draw import drawings
from sah.report.figures.export import svg
from sah.results.search_record import Search, Trial, record_trials

KEY = "sparse_attention.maskers.quest.page_size"
SEARCH = Search(name="density_search", objective="score - density", direction="maximize")


@pytest.fixture
def record(root, write_result):
    """Record a search: a trial for each value of the objective, None for a failed one."""
    folder = write_result("quest").relative_to(root).as_posix()

    def write(*values, direction="maximize"):
        trials = [
            Trial(
                parameters={KEY: 4 if value else 8},
                value=value,
                directory=folder if number == 0 else f"{folder[:-1]}{number}",
            )
            for number, value in enumerate(values)
        ]
        search = replace(SEARCH, direction=direction, trials=trials)
        record_trials(root, "search", search)

    return write


def drawn(results):
    with style():
        return {one.name: one.figure for one in drawings(results)}


@pytest.mark.parametrize(
    ("direction", "best"), [("maximize", [0.2, 0.2, 0.6, 0.6]), ("minimize", [0.2, 0.1, 0.1, 0.1])]
)
def test_the_history_shows_every_trial_and_the_best_so_far(record, results, direction, best):
    record(0.2, 0.1, None, 0.6, direction=direction)
    figure = drawn(results())["search_history"]
    (axis,) = figure.axes
    assert axis.get_title() == f"density_search\n{direction} score - density"
    lines = [one.get_xydata().tolist() for one in axis.lines]
    assert lines[:3] == [[[0, 0.2]], [[1, 0.1]], [[3, 0.6]]]
    assert [value for _, value in lines[3]] == best
    assert [number for number, _ in lines[4]] == [2], "the failed trial"
    with style():
        assert "<title>0.6: page_size=4</title>" in svg(figure)


def test_the_importance_of_each_parameter_is_a_bar(record, results):
    record(0.5, 0.5, 0.0, 0.0)
    (axis,) = drawn(results())["search_importance"].axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["page_size"]
    assert [bar.get_width() for bar in axis.patches] == [pytest.approx(1)]


def test_a_search_too_small_for_importance_says_so(record, results, caplog):
    record(0.5)
    found = drawn(results())
    assert found["search_history"] is not None
    assert found["search_importance"] is None
    assert "no importance of the parameters of density_search: its 1 different" in caplog.text


def test_results_without_a_search_have_no_such_figures(write_result, results):
    write_result("quest")
    found = drawn(results())
    assert (found["search_history"], found["search_importance"]) == (None, None)
