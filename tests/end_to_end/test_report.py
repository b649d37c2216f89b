"""From a sweep to tables, figures and a page, on the command line."""

import csv
import io
import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """A small matrix: three attentions on two seeds."""
    folder = tmp_path_factory.mktemp("report")
    call(
        folder,
        *("-m", "model=tiny", "benchmark=mock", "attention=dense,sparse,streaming_llm"),
        *("seed=1,2", "metric_logging=full", "hydra/launcher=basic"),
    )
    return folder


def call(folder, *arguments, status=0):
    done = subprocess.run(
        [sys.executable, "-c", "from sah.cli.main import main; main()", *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def test_report_fits_80_columns(outputs):
    text = call(outputs, "report")
    assert max(map(len, text.splitlines())) <= 80
    assert "streaming_llm" in text
    assert "\x1b" not in text, "no colours in a log file"


def test_report_chooses_and_groups(outputs):
    text = call(outputs, "report", "--where", "attention=dense,sparse", "--by", "attention")
    assert "streaming_llm" not in text
    rows = [line.split() for line in text.splitlines()]
    assert ["sparse", "2"] in [row[:2] for row in rows]


def test_csv_has_one_line_per_result_and_measured_values(outputs):
    rows = list(csv.DictReader(io.StringIO(call(outputs, "report", "--format", "csv"))))
    assert len(rows) == 6
    assert {row["seed"] for row in rows} == {"1", "2"}
    by_name = {row["attention"]: row for row in rows}
    assert by_name["dense"]["output_error"] == ""
    assert float(by_name["streaming_llm"]["output_error"]) > 0


def test_compare_pairs_and_pools(outputs):
    rows = list(csv.DictReader(io.StringIO(call(outputs, "compare", "--format", "csv"))))
    assert len(rows) == 4
    assert {row["pairs"] for row in rows} == {"5"}
    pooled = call(outputs, "compare", "--pool", "seed", "--format", "csv")
    assert [row["pairs"] for row in csv.DictReader(io.StringIO(pooled))] == ["10", "10"]


def test_figures_and_page_are_written(outputs):
    call(outputs, "report", "--format", "html", "-o", "page.html", "--figures", "figures")
    assert (outputs / "page.html").read_text().startswith("<!doctype html>")
    assert (outputs / "figures" / "score_density.svg").is_file()
    assert (outputs / "figures" / "score_bytes.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("report", "nowhere"), "no complete experiment below 'nowhere'"),
        (("report", "--where", "attention=dense,colour=red"), "no experiment has the key"),
        (("report", "--where", "attention=none"), "no result matches --where attention=none"),
        (("compare", "--baseline", "attention=quest"), "no result matches the baseline"),
        (("compare", "--margin", "0"), "--margin=0 must be above 0 and below 100 points"),
        (("compare", "--where", "attention=dense"), "nothing to compare"),
    ],
)
def test_mistakes_are_reported_in_one_message(outputs, arguments, message):
    text = call(outputs, *arguments, status=1)
    assert message in text
    assert "Traceback" not in text
