"""Results of schema 2, without digests, checksums and rows read: reported, but not resumed."""

import csv
import io
import shutil
from pathlib import Path

import orjson
import pytest

from sah.cli import compare, report, status
from sah.errors import ConfigurationError
from sah.execution.rescoring import rescore
from sah.results.store import read_result

OUTPUTS = Path(__file__).parent / "schema_2"
SPARSE = OUTPUTS / "tiny/sparse/mock_all/7ca0b6ec14e8"


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_what_was_not_written_yet_is_null():
    result = read_result(SPARSE, SPARSE.name)
    assert (result.schema, result.rows_read, result.sampled) == (2, None, None)
    assert result.density == pytest.approx(0.6235, abs=1e-4)
    assert result.provenance.content == {}


def test_the_answer_length_is_known_where_all_tasks_have_equally_many_answers(tmp_path):
    folder = tmp_path / SPARSE.name
    shutil.copytree(SPARSE, folder)
    written = orjson.loads((folder / "results.json").read_bytes())
    assert "answer_tokens" not in written
    tokens = written["timing"]["new_tokens"]
    assert read_result(folder).answer_tokens == tokens / 5
    written["tasks"] = {
        name: written["tasks"]["mock"] | {"n": n} for name, n in (("a", 2), ("b", 3))
    }
    (folder / "results.json").write_bytes(orjson.dumps(written))
    assert read_result(folder).answer_tokens is None


def test_report_shows_them_with_a_warning_about_their_means(capsys):
    report.main([str(OUTPUTS)])
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "4 of 4 results are of an earlier version: output error and recall are means over" in text
    )
    report.main([str(OUTPUTS), "--format", "csv"])
    by_name = {(row["attention"], row["protocol"]): row for row in rows(capsys.readouterr().out)}
    assert float(by_name["sparse", "forced"]["output_error"]) == pytest.approx(0.01258, abs=1e-5)
    assert by_name["sparse", "forced"]["rows_read"] == ""


def test_compare_pairs_their_answers(capsys):
    compare.main([str(OUTPUTS), "--format", "csv"])
    found = rows(capsys.readouterr().out)
    assert {(row["pairs"], row["different_references"]) for row in found} == {("5", "0")}


def test_status_counts_them_as_done(capsys):
    status.main([str(OUTPUTS)])
    assert "4 done" in capsys.readouterr().out


def test_rescore_refuses_them():
    with pytest.raises(ConfigurationError, match=r"has schema 2, which this version reports but"):
        rescore(SPARSE)
