"""Results of schema 1: a real output root of an earlier version is still reported."""

import csv
import io
import shutil
from pathlib import Path

import orjson
import pytest

from sah.cli import compare, report, rescore, status
from sah.errors import ConfigurationError, DamagedResults
from sah.execution.rescoring import rescore as rescore_one
from sah.report.reading.answers import read_scored
from sah.report.reading.collect import collect
from sah.results.store import ResultStore, read_result

OUTPUTS = Path(__file__).parent / "schema_1"
DENSE, SPARSE = "dense/mock_all/806d2f2cdf7d", "sparse/mock_all/d498de5390a5"


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_old_fields_have_their_new_names_and_values():
    result = read_result(OUTPUTS / "tiny" / SPARSE)
    written = orjson.loads((result.directory / "results.json").read_bytes())
    assert (result.schema, result.protocol) == (1, "forced")
    assert result.dense_agreement.kl == written["forced"]["kl"] == pytest.approx(0.00347925)
    assert result.dense_agreement.tokens == 40
    assert result.timing.prefill_seconds == written["timing"]["prefill_seconds"]
    assert result.provenance.peak_memory_bytes == 431853568
    assert result.tasks["mock"].contexts == 2
    assert result.settings["sparse_attention.maskers.oracle_top_k.fraction"] == 0.1
    free = read_result(OUTPUTS / "tiny/sparse/mock_all/279cee43de76")
    assert free.dense_agreement is None
    assert (free.answer_tokens, free.keys_read) == (free.timing.new_tokens / 5, None)


def test_fields_that_came_later_are_null_and_the_configuration_is_read_from_yaml(tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(OUTPUTS / "tiny" / SPARSE, folder)
    document = orjson.loads((folder / "results.json").read_bytes())
    for name in (
        *("config", "cache_bytes_per_token", "prompt_tokens", "index_bytes", "forced"),
        *("protocol", "truncated"),
    ):
        del document[name]
    del document["timing"]["prefill_seconds_saved"]
    del document["tasks"]["mock"]["contexts"]
    (folder / "results.json").write_bytes(orjson.dumps(document))
    result = read_result(folder)
    assert (result.cache_bytes_per_token, result.prompt_tokens) == (None, None)
    assert (result.protocol, result.truncated, result.index_bytes) == ("default", 0, {})
    assert result.timing.prefill_seconds_saved == 0
    assert result.tasks["mock"].contexts == 5
    assert result.settings["seed"] == 0
    # Not part of the experiment.
    assert "output_root" not in result.settings


def test_report_shows_them(capsys):
    report.main([str(OUTPUTS), "--format", "csv"])
    by_name = {(row["attention"], row["protocol"]): row for row in rows(capsys.readouterr().out)}
    assert len(by_name) == 4
    sparse = by_name["sparse", "forced"]
    assert (sparse["n"], sparse["score"], sparse["top_agreement"]) == ("5", "0.0", "0.875")
    assert float(sparse["density"]) == pytest.approx(0.6235, abs=1e-4)
    assert float(sparse["output_error"]) == pytest.approx(0.01477, abs=1e-5)
    assert by_name["dense", "default"]["kl"] == ""


def test_compare_pairs_their_answers(capsys):
    compare.main([str(OUTPUTS), "--format", "csv"])
    found = rows(capsys.readouterr().out)
    assert {row["protocol"] for row in found} == {"default", "forced"}
    assert {(row["pairs"], row["difference"], row["different_inputs"]) for row in found} == {
        ("5", "0.0", "0")
    }


def test_status_shows_them_as_done(capsys):
    status.main([str(OUTPUTS), "--json"])
    found = orjson.loads(capsys.readouterr().out)
    assert [(one["state"], one["results"]["n"]) for one in found] == [("done", 5)] * 4


def test_the_page_and_its_figures_show_them(tmp_path, capsys):
    target = tmp_path / "report.html"
    figures = tmp_path / "figures"
    report.main([str(OUTPUTS), "--format", "html", "-o", str(target), "--figures", str(figures)])
    page = target.read_text()
    assert "Output error by layer" in page
    assert "d498de5390a5" in page
    assert (figures / "recall_layers.svg").is_file()


def test_a_forced_finish_reason_is_given(tmp_path):
    root = tmp_path / "outputs"
    shutil.copytree(OUTPUTS, root)
    path = root / "tiny" / DENSE / "predictions.jsonl"
    path.write_text(
        path.read_text().replace('"finish_reason":"length"', '"finish_reason":"forced"')
    )
    reasons = read_scored(collect(root))["finish_reason"].to_list()
    assert (reasons.count("given"), reasons.count("forced")) == (5, 0)


def test_they_are_not_rescored(tmp_path, caplog):
    folder = tmp_path / "806d2f2cdf7d"
    shutil.copytree(OUTPUTS / "tiny" / DENSE, folder)
    before = (folder / "results.json").read_bytes()
    with pytest.raises(ConfigurationError, match="has schema 1, which this version reports"):
        rescore_one(folder)
    with pytest.raises(SystemExit, match="1 of 1 experiments could not be rescored"):
        rescore.main([str(folder)])
    assert (folder / "results.json").read_bytes() == before


def test_unfinished_answers_are_not_resumed(tmp_path, claimed):
    folder = tmp_path / "806d2f2cdf7d"
    shutil.copytree(OUTPUTS / "tiny" / DENSE, folder)
    (folder / "results.json").unlink()
    with (
        pytest.raises(DamagedResults, match="another version wrote it"),
        claimed(ResultStore(folder, folder.name)),
    ):
        pass
