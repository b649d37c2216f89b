"""Scores by the depth of the expected answer and the length of the context."""

import orjson
import pytest

from sah.report.figures.export import write_figures
from sah.report.figures.maps import needles
from sah.report.figures.needles import depth_of, needle_maps
from sah.results.excerpts import excerpt


@pytest.mark.parametrize("before", [0, 100, 5_000, 9_990])
def test_the_depth_in_an_excerpt_is_that_in_the_whole_context(before):
    context = "." * before + "needle" + "." * (10_000 - before)
    short = excerpt(context, ("needle",))
    assert len(short) < len(context)
    assert depth_of(short, "needle") == pytest.approx(before / len(context), abs=1e-9)


def test_a_text_that_is_not_mentioned_has_no_depth():
    assert depth_of("a context", "needle") is None
    assert depth_of("a context", "") is None


@pytest.fixture
def write_needle(write_result):
    """Write a result whose contexts hold the answer at one depth."""

    def write(attention, scores, *, depth, tokens=512, seed=0, **options):
        text = "." * int(100 * depth) + "right" + "." * int(100 * (1 - depth))
        benchmark = {"name": "ruler", "subset": None, "context_tokens": tokens}
        settings = {"seed": seed, "benchmark": benchmark}
        return write_result(attention, scores, context_text=text, settings=settings, **options)

    return write


def test_scores_are_means_by_depth_and_length_over_all_seeds(write_needle, results):
    for seed, depth, scores in ((1, 0.1, [1.0, 0.0]), (2, 0.1, [1.0, 1.0]), (3, 0.9, [0.0])):
        write_needle("quest", scores, depth=depth, seed=seed)
    write_needle("quest", [0.5], depth=0.1, tokens=4096)
    (found,) = needle_maps(results())
    assert found.title == "quest\nruler"
    assert (found.depths, found.lengths) == (["0–20 %", "80–100 %"], ["512", "4096"])
    assert found.scores == {
        ("0–20 %", "512"): 0.75,
        ("80–100 %", "512"): 0.0,
        ("0–20 %", "4096"): 0.5,
    }


def test_a_method_has_a_panel_whose_missing_cells_are_empty(write_needle, results):
    for name in ("dense", "quest"):
        write_needle(name, [1.0], depth=0.1, tokens=512)
        write_needle(name, [0.0], depth=0.9, tokens=1024)
    figure = needles(needle_maps(results()))
    panels = [axis for axis in figure.axes if axis.get_title()]
    assert [axis.get_title() for axis in panels] == ["dense\nruler", "quest\nruler"]
    shown = panels[0].images[0].get_array()
    assert shown.mask.tolist() == [[False, True], [True, False]]
    assert shown.compressed().tolist() == [100, 0]


def test_a_task_has_a_map_although_another_task_has_none(write_result, results):
    for depth in (0.1, 0.9):
        text = "." * int(100 * depth) + "right" + "." * int(100 * (1 - depth))
        benchmark = {"name": "ruler", "subset": None, "context_tokens": int(1000 * depth)}
        folder = write_result(
            "quest",
            [1.0, 0.0],
            tasks=["one", "two"],
            context_text=text,
            settings={"benchmark": benchmark},
        )
        path = folder / "examples.jsonl"
        lines = path.read_bytes().splitlines()
        # Of two references, no depth is that of the answer.
        two = {**orjson.loads(lines[1]), "references": ["right", "also right"]}
        path.write_bytes(b"\n".join([lines[0], orjson.dumps(two)]) + b"\n")
    (found,) = needle_maps(results())
    assert found.title == "quest\nruler one"
    assert set(found.scores.values()) == {1.0}


def test_the_map_is_one_of_the_figures(write_needle, results, tmp_path):
    for depth, score in ((0.1, 1.0), (0.9, 0.0)):
        write_needle("quest", [score], depth=depth, tokens=int(1000 * depth))
    assert "needles" in {path.stem for path in write_figures(results(), tmp_path)}


def test_without_the_answer_in_every_context_there_is_no_map(write_result, results):
    write_result("quest", context_text="nothing of the kind")
    assert needle_maps(results()) == []
    assert needles([]) is None


def test_one_depth_alone_is_not_a_map(write_needle, results):
    write_needle("quest", [1.0, 0.0], depth=0.5)
    assert needle_maps(results()) == []
