import re
import zlib
from xml.etree import ElementTree

import numpy as np
import orjson
import pytest

from sah.cli import report
from sah.report.figures.axes import side_by_side, style
from sah.report.figures.draw import drawings
from sah.report.figures.export import svg, write_figures
from sah.report.figures.series import pareto_front, points, profiles, task_points
from sah.report.figures.style import looks
from sah.report.statistics.intervals import score_interval


@pytest.fixture
def matrix(write_result, write_metrics, results, budget):
    """Two methods at two budgets with micro metrics, and dense."""
    write_result("dense", [1.0, 1.0, 0.0], fields={"prompt_tokens": 110})
    for name in ("alpha", "beta"):
        for share in (0.1, 0.2):
            folder = write_result(
                name,
                [1.0, 0.0, 0.0],
                maskers=budget(share),
                fields={
                    "density": share,
                    "rows_read": 1.5 * share,
                    "prompt_tokens": 110,
                    "cache_bytes_per_token": 64,
                },
            )
            write_metrics(
                folder,
                [
                    (metric, share * (layer + 1), layer, step)
                    for metric in ("output_error", "recall", "density")
                    for layer in range(3)
                    for step in (100, 110, 111, 112)
                ],
            )
    return results()


def pdf_text(content):
    """The texts of a PDF file of one page; the codes of its glyphs are those of UTF-16."""
    starts = [match.end() for match in re.finditer(rb"[^d]stream\r?\n", content)]
    streams = [zlib.decompressobj().decompress(content[start:]) for start in starts]
    page = next(one for one in streams if b"TJ\nET" in one)
    shown = re.findall(rb"(?s)\[(.*?)\]\s+TJ", page)
    parts = [b"".join(re.findall(rb"\(((?:\\.|[^\\)])*)\)", one)) for one in shown]
    return [re.sub(rb"\\(.)", rb"\1", part).decode("utf-16-be") for part in parts]


def test_every_figure_is_drawn_as_svg_pdf_and_png(matrix, tmp_path):
    written = write_figures(matrix, tmp_path / "figures")
    names = {path.stem for path in written}
    assert names == {
        *("score_density", "score_rows_read", "score_seconds", "score_bytes", "tasks"),
        *("output_error_layers", "recall_layers", "density_layers", "output_error_position"),
        "answer_lengths",
    }
    assert len(written) == 3 * len(names)
    for path in written:
        content, title = path.read_bytes(), "task" if path.stem == "tasks" else "ruler"
        if path.suffix == ".png":
            assert content.startswith(b"\x89PNG")
        elif path.suffix == ".pdf":
            assert title in pdf_text(content), "text stays text"
            assert b"/FontFile2" in content, "TrueType fonts are embedded"
            assert b"/URI" not in content, "links work in the HTML page only"
        else:
            text = " ".join(ElementTree.parse(path).getroot().itertext())
            assert "#/experiment" not in path.read_text(), "links work in the HTML page only"
            assert title in text, "text stays text"


def test_figures_without_data_are_left_out(write_result, results, tmp_path):
    write_result("dense", [1.0, 0.0])
    names = {path.stem for path in write_figures(results(), tmp_path)}
    assert names == {"tasks", "answer_lengths"}


def test_a_benchmark_with_dense_alone_has_no_panel(matrix, write_result, results):
    write_result("dense", [1.0], benchmark="lonely")
    (axis,) = drawn_figures(results())["score_density"].figure.axes
    assert axis.get_title() == "ruler"


def test_the_same_results_make_the_same_files(matrix, tmp_path):
    first = write_figures(matrix, tmp_path / "one")
    again = write_figures(matrix, tmp_path / "two")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]


def test_seeds_are_one_point(write_result, results, budget):
    for seed in (1, 2):
        write_result("dense", [1.0, 0.0], settings={"seed": seed})
        write_result("sparse", [1.0, 1.0 - seed % 2], settings={"seed": seed}, maskers=budget(0.1))
    found = points(results())
    assert [(point.name, len(point.results)) for point in found] == [("dense", 2), ("sparse", 2)]
    assert found[1].estimate.score == pytest.approx(0.75)


def test_seeds_are_pooled_in_the_figure_of_each_task(write_result, results):
    """The figure used to show the first seed alone: 100.0."""
    for seed, right in ((1, 1.0), (2, 1.0), (3, 0.0)):
        answers = {"scores": [right, 0.0], "tasks": ["one", "two"], "subset": ["one", "two"]}
        write_result("sparse", **answers, settings={"seed": seed})
    of_results = points(results())
    found = task_points(of_results)
    assert [(point.panel, point.score) for point in found] == [
        ("one", pytest.approx(2 / 3)),
        ("two", 0.0),
    ]
    assert [point.estimate.n for point in found] == [3, 3]
    # Three seeds are three contexts of a binary score.
    low, high = found[0].estimate.interval.low, found[0].estimate.interval.high
    expected = score_interval(2 / 3, np.std([1, 1, 0], ddof=1) / 3**0.5, 3)
    assert (low, high) == (pytest.approx(expected.low), pytest.approx(expected.high))
    with style():
        (drawn,) = [one for one in drawings(results()) if one.name == "tasks"]
        assert "<title>sparse: 66.7, density 0.125, rows read 0.25</title>" in svg(drawn.figure)


def test_an_answer_without_a_score_is_left_out_of_the_pooled_task(write_result, results):
    for seed in (1, 2):
        write_result("sparse", [1.0, None], settings={"seed": seed})
    (point,) = task_points(points(results()))
    assert (point.score, point.estimate.n) == (1.0, 2)


def test_bytes_read_are_rows_times_prompt_times_size(matrix):
    (point, *_) = [point for point in points(matrix) if point.attention == "alpha"]
    assert point.bytes_per_step == pytest.approx(0.15 * 110 * 64)
    (dense,) = [point for point in points(matrix) if point.attention == "dense"]
    assert dense.bytes_per_step is None, "its cache size was not measured"


def drawn_figures(results, **options):
    with style():
        return {one.name: one for one in drawings(results, **options)}


def places(figure):
    """Return the x coordinates of the points in a figure's only panel, and which are hollow."""
    (axis,) = figure.axes
    points = [container.lines[0] for container in axis.containers]
    return {
        round(float(point.get_xdata()[0]), 6): point.get_markerfacecolor() == "white"
        for point in points
    }


@pytest.mark.parametrize(("axis", "label"), [("density", "density"), ("rows_read", "rows read")])
def test_the_score_is_drawn_against_either_share(matrix, axis, label):
    found = drawn_figures(matrix, axis=axis)
    figure = found[f"score_{axis}"].figure
    assert found[f"score_{axis}"].title == f"Score against {label}"
    assert label in figure.axes[0].get_xlabel()
    assert label in found["tasks"].figure.axes[0].get_xlabel()
    factor = {"density": 1, "rows_read": 1.5}[axis]
    shifted = sorted(places(figure))
    assert shifted == pytest.approx(sorted(factor * x for x in (0.1, 0.1, 0.2, 0.2)), rel=0.06)


@pytest.mark.parametrize(
    ("axis", "value", "title", "label"),
    [
        ("keys_read", 1000, "Score against keys read", "keys read per answer"),
        ("answer_tokens", 5, "Score against answer length", "tokens per answer"),
    ],
)
def test_the_score_is_drawn_against_what_answers_cost(matrix, axis, value, title, label):
    found = drawn_figures(matrix, axis=axis)
    drawn = found[f"score_{axis}"]
    assert (drawn.title, drawn.figure.axes[0].get_xlabel()) == (title, label)
    sparse = value if axis == "answer_tokens" else value / 8
    assert set(places(drawn.figure)) == {value, sparse}, "dense has a point too"
    assert found["tasks"].figure.axes[0].get_xlabel() == label


def test_the_axis_is_chosen_on_the_command_line(matrix, root, tmp_path):
    report.main([str(root), "--axis", "rows_read", "--figures", str(tmp_path / "figures")])
    assert (tmp_path / "figures/score_rows_read.svg").exists()
    assert not (tmp_path / "figures/score_density.svg").exists()
    report.main(
        [str(root), "--axis", "rows_read", "--format", "html", "-o", str(tmp_path / "page.html")]
    )
    assert "Score against rows read" in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize("axis", ["rows_read", "keys_read", "answer_tokens"])
def test_an_axis_that_nothing_would_be_drawn_on_is_refused(write_result, root, tmp_path, axis):
    write_result("dense")
    with pytest.raises(SystemExit, match=f"--axis {axis} is about figures; add --figures FOLDER"):
        report.main([str(root), "--axis", axis])
    folder = write_result("sparse", fields={axis: None})
    figures = ["--figures", str(tmp_path / "figures")]
    with pytest.raises(SystemExit, match="1 of 2 results do not have it") as refused:
        report.main([str(root), "--axis", axis, *figures])
    assert str(folder) in str(refused.value)
    assert not (tmp_path / "figures").exists()
    report.main([str(root), "--axis", "density", *figures])


def test_a_disturbed_speed_is_hollow_and_the_figure_says_so(write_result, results):
    write_result("dense")
    write_result("calm")
    figure = drawn_figures(results())["score_seconds"].figure
    assert set(places(figure).values()) == {False}
    assert "hollow" not in figure.axes[0].get_xlabel()
    write_result("crowded", provenance={"load_per_core": 3.0}, scores=[1.0, 0.0, 0.0])
    found = drawn_figures(results())
    (axis,) = found["score_seconds"].figure.axes
    drawn = [container.lines[0].get_markerfacecolor() for container in axis.containers]
    assert drawn.count("white") == 1
    assert "hollow: measured on a crowded machine" in axis.get_xlabel()
    (axis,) = found["score_density"].figure.axes
    assert "white" not in [one.lines[0].get_markerfacecolor() for one in axis.containers]


def test_profiles_weigh_records_by_their_queries(write_result, results):
    folder = write_result("sparse")
    lines = [
        {
            "metric": "research_attention_recall",
            "value": value,
            "metadata": {"example_id": "task-0", "layer_idx": 0, "step": step, **queries},
        }
        for value, step, queries in (
            (0.2, 100, {"queries": 30}),
            (0.8, 110, {"queries": 1}),
            # As an earlier version wrote it.
            (0.9, 111, {}),
        )
    ]
    content = b"".join(orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in lines)
    (folder / "micro_metrics.jsonl").write_bytes(content)
    recall = profiles(results())["research_attention_recall"]
    assert recall.by_layer == {0: pytest.approx((30 * 0.2 + 0.8 + 0.9) / 32)}


def test_profiles_are_means_by_layer_and_position(matrix):
    alpha = min(
        (result for result in matrix if result.attention == "alpha"), key=lambda one: one.density
    )
    error = profiles([alpha])["research_attention_output_error"]
    assert error.by_layer == pytest.approx({0: 0.1, 1: 0.2, 2: 0.3})
    # The prompt has 110 tokens: step 100 is the question, which is no part of the answer.
    assert error.by_position == pytest.approx({0.0: 0.2, 1.0: 0.2, 2.0: 0.2})


def test_no_other_point_dominates_the_pareto_front():
    found = [(0.5, 0.9), (0.1, 0.2), (0.2, 0.2), (0.3, 0.8), (0.4, 0.7)]
    assert pareto_front(found) == [(0.1, 0.2), (0.3, 0.8), (0.5, 0.9)]
    assert pareto_front([]) == []


def test_methods_are_distinguishable_without_colour():
    found = looks([f"method {number}" for number in range(11)])
    markers = [look.marker for name, look in found.items() if name != "dense"]
    assert len(set(markers)) == 11


def test_several_tasks_of_one_result_have_a_panel_each(write_result, results):
    two = {"scores": [1.0, 0.0, 0.0], "tasks": ["one", "one", "two"], "subset": ["one", "two"]}
    for name in ("dense", "alpha"):
        write_result(name, **two)
    found = task_points(points(results()))
    assert [(point.panel, point.name, point.score) for point in found] == [
        ("one", "alpha", 0.5),
        ("one", "dense", 0.5),
        ("two", "alpha", 0.0),
        ("two", "dense", 0.0),
    ]


def test_beside_another_benchmark_the_task_replaces_the_subset(write_result, results):
    write_result("dense", [1.0, 0.0], tasks=["one", "two"], subset=["one", "two"])
    write_result("dense", [1.0], tasks=["kind"], benchmark="book")
    panels = [point.panel for point in task_points(points(results()))]
    assert panels == ["book kind", "ruler one", "ruler two"]


def test_points_of_equal_density_are_shifted_by_at_most_six_percent():
    factors = side_by_side([f"method {number}" for number in range(13)])
    assert len(set(factors.values())) == 13
    assert max(factors.values()) == pytest.approx(1.06)
    assert min(factors.values()) == pytest.approx(1 / 1.06)
    assert side_by_side(["alone"]) == {"alone": 1.0}


def test_a_name_with_dollar_signs_is_not_mathematics(write_result, results, tmp_path):
    write_result("a$\\x$<b>", [1.0, 0.0])
    vector, *_ = write_figures(results(), tmp_path)
    assert "a$\\x$<b>" in " ".join(ElementTree.parse(vector).getroot().itertext())


def test_titles_of_neighbouring_panels_do_not_touch(write_result, results):
    """With a benchmark of many tasks and long names of methods."""
    for name in ("dense", "a_method_with_a_long_name"):
        for tokens in (1024, 2048):
            benchmark = {"name": "ruler", "subset": None, "context_tokens": tokens}
            write_result(
                name,
                benchmark="ruler",
                subset="niah_single_1+niah_single_2+niah_multikey_1+vt",
                settings={"benchmark": benchmark},
            )
    with style():
        for drawn in drawings(results()):
            figure = drawn.figure
            if figure is None or len(figure.axes) < 2:
                continue
            figure.draw_without_rendering()
            boxes = [axis.title.get_window_extent() for axis in figure.axes[:2]]
            assert not boxes[0].overlaps(boxes[1]), drawn.name
