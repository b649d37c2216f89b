"""Micro metrics by layer and head, in figures and on the page."""

import numpy as np
import orjson
import pytest

from sah.report.figures.axes import style
from sah.report.figures.export import write_figures
from sah.report.figures.head_maps import head_drawings
from sah.report.html import head_data as head_data_module
from sah.report.html.head_data import head_data
from sah.report.reading.heads import HeadMap, head_maps
from sah.results.schema import DENSITY, OUTPUT_ERROR, RECALL

PER_HEAD = {"metric_logging": {"name": "default", "per_head": True}}


@pytest.fixture
def write_heads(write_result):
    """Write a result with records (metric, layer, values of heads, number of queries)."""

    def write(records, settings=PER_HEAD, **options):
        folder = write_result("sparse", settings=settings, **options)
        lines = [
            {
                "metric": metric,
                "value": 0.5,
                "heads": heads,
                "metadata": {
                    "example_id": "task-0",
                    "layer_idx": layer,
                    "step": 110,
                    "queries": queries,
                },
            }
            for metric, layer, heads, queries in records
        ]
        content = b"".join(orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in lines)
        (folder / "micro_metrics.jsonl").write_bytes(content)
        return folder

    return write


def test_a_map_weighs_records_by_their_queries(write_heads, results):
    write_heads([(RECALL, 0, [0.2, 1.0], 3), (RECALL, 0, [0.6, 0.0], 1)])
    found = head_maps(results())
    assert list(found) == [RECALL]
    assert found[RECALL].values == [[pytest.approx(0.3), pytest.approx(0.75)]]


def test_a_layer_without_records_has_no_values(write_heads, results):
    write_heads([(RECALL, 2, [0.25, None], 1), (RECALL, 0, [0.5, 0.75], 1)])
    values = head_maps(results())[RECALL].values
    assert values == [[0.5, 0.75], [None, None], [0.25, None]]
    assert HeadMap(values=values).known == [0.5, 0.75, 0.25]


def test_seeds_are_averaged(write_heads, results):
    for seed, value in ((1, 0.2), (2, 0.4)):
        write_heads([(DENSITY, 0, [value], 1)], settings={**PER_HEAD, "seed": seed})
    assert head_maps(results())[DENSITY].values == [[pytest.approx(0.3)]]


def test_without_heads_there_is_no_map(write_result, write_metrics, results, tmp_path):
    write_metrics(write_result("sparse"), [("recall", 0.5, 0, 110)])
    assert head_maps(results()) == {}
    assert list(head_data(results())) == []
    assert not [one for one in write_figures(results(), tmp_path) if "heads" in one.name]


def test_a_figure_has_a_panel_per_method_with_a_cell_per_layer_and_head(
    write_heads, results, budget
):
    for share in (0.1, 0.2):
        records = [(OUTPUT_ERROR, layer, [share, 0.0, share], 1) for layer in (0, 2)]
        write_heads(records, maskers=budget(share))
    with style():
        (drawing,) = head_drawings(results())
    assert drawing.name == "output_error_heads"
    panels = [axis for axis in drawing.figure.axes if axis.get_xlabel() == "head"]
    for axis, share in zip(panels, (0.1, 0.2), strict=True):
        assert axis.get_title() == f"sparse fraction={share}\nruler"
        (image,) = axis.images
        missing = [np.nan] * 3
        expected = [[share, 0.0, share], missing, [share, 0.0, share]]
        np.testing.assert_array_equal(image.get_array().filled(np.nan), expected)
        assert image.get_clim() == (0.0, 0.2)


def test_the_page_leaves_out_the_heads_that_make_it_too_large(
    write_heads, results, budget, monkeypatch
):
    monkeypatch.setattr(head_data_module, "_VALUES", 5)
    for share in (0.1, 0.2):
        write_heads([(OUTPUT_ERROR, 0, [0.01234, 0.0, 0.00012], 1)], maskers=budget(share))
    (_, first), (_, second) = head_data(results())
    assert second == []
    (one,) = first
    assert (one["name"], one["head"], one["digits"]) == ("output error", "head", 4)
    assert one["values"] == [[0.0123, 0.0, 0.0001]]
    assert (one["low"], one["high"]) == (0.0, 0.01234)
