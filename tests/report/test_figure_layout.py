"""Labels, titles and ticks of the figures: never cut, never on each other."""

from itertools import combinations

import pytest
from matplotlib.text import Text

from sah.report.figures.axes import share_ticks, style, wrap
from sah.report.figures.draw import drawings


def overlapping(figure):
    """Pairs of texts of a figure that lie on each other."""
    figure.draw_without_rendering()
    outside = {
        tick.label1
        for axis in figure.axes
        for scale in (axis.xaxis, axis.yaxis)
        for tick in scale.get_major_ticks()
        if not min(scale.get_view_interval()) <= tick.get_loc() <= max(scale.get_view_interval())
    }
    shown = [
        (text.get_text(), text.get_window_extent())
        # A legend holds its texts twice.
        for text in set(figure.findobj(Text)) - outside
        if text.get_text() and text.get_visible()
    ]
    return [
        (one, other)
        for (one, here), (other, there) in combinations(shown, 2)
        if here.x1 - there.x0 > 1 and there.x1 - here.x0 > 1
        if here.y1 - there.y0 > 1 and there.y1 - here.y0 > 1
    ]


def test_texts_of_a_figure_do_not_overlap(write_result, write_metrics, results, budget):
    long = "_of_a_method_with_a_name_that_is_longer_than_a_panel"
    for model in ("tiny", "meta-llama/Llama-3.1-8B-Instruct-finetuned-by-us"):
        settings = {"model": model, "benchmark": "longbench_v2_of_documents_without_code"}
        write_result("dense", [1.0, 0.0], **settings)
        for name in ("quest", "alpha" + long, "beta" + long):
            for share in (0.0015, 0.002, 0.0123):
                folder = write_result(
                    name,
                    [1.0, 0.0],
                    maskers=budget(share) | {"other": {"_target_": "a", "kind": f"{share}" * 9}},
                    fields={"density": share, "prompt_tokens": 110, "cache_bytes_per_token": 64},
                    **settings,
                )
                records = [
                    (metric, share, layer, step)
                    for metric in ("output_error", "density")
                    for layer in range(80)
                    for step in (110, 111)
                ]
                write_metrics(folder, records)
    with style():
        drawn = {one.name: one.figure for one in drawings(results()) if one.figure is not None}
    assert drawn.keys() >= {"score_density", "output_error_layers", "answer_lengths", "tasks"}
    found = {name: overlapping(figure) for name, figure in drawn.items()}
    assert not any(found.values()), found


@pytest.mark.parametrize("share", [0.0005, 0.0031, 0.013, 0.038, 0.05, 0.083, 0.26, 1.0])
def test_the_axis_of_a_single_share_has_a_label(share):
    assert share_ticks(0.8 * share, 1.25 * share)


def test_long_words_are_wrapped_at_their_signs():
    assert wrap("model long/name_of-it fits", 8) == "model\nlong/\nname_of-\nit fits"
    assert wrap("abcdefghij", 4) == "abcd\nefgh\nij"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.07, 0.25, [0.07, 0.1, 0.15, 0.2]),
        (0.04, 0.25, [0.05, 0.07, 0.1, 0.15, 0.2]),
        (0.008, 0.5, [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]),
        (0.001, 1.0, [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0]),
    ],
)
def test_labels_of_shares_do_not_touch(low, high, ticks):
    assert share_ticks(low, high) == pytest.approx(ticks)
