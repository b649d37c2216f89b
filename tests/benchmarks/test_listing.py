"""sah benchmarks, and docs/benchmarks.md."""

from pathlib import Path

import pytest

from sah.benchmarks.listing import listed_benchmarks, markdown_table, show_benchmarks

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf" / "benchmark"


def test_every_benchmark_is_described():
    listed = {item.name: item for item in listed_benchmarks(CONF)}
    assert set(listed) == {path.stem for path in CONF.glob("*.yaml")}
    for item in listed.values():
        assert item.title
        assert item.source != "-", f"{item.name} does not say where its data come from"
        assert item.licence != "-"
        assert "-" not in item.scores.values()
    assert listed["longbench"].answer_tokens["gov_report"] == 532
    assert listed["longbench"].scores["trec"] == "classification"
    assert not listed["longbench"].offline
    assert listed["ruler"].offline


def test_what_is_not_on_this_machine_is_told_with_the_way_to_get_it(capsys, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    show_benchmarks(CONF)
    assert "sah fetch benchmark=loogle" in capsys.readouterr().out
    snapshot = tmp_path / "datasets--simonjegou--loogle" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot / "test.parquet").touch()
    show_benchmarks(CONF)
    shown = capsys.readouterr().out
    assert "sah fetch benchmark=loogle" not in shown
    assert "sah fetch benchmark=longbench" in shown


@pytest.mark.parametrize("name", ["niah_single_1", "repobench-p", "532 tokens", "rouge_l"])
def test_the_list_has_subsets_answer_lengths_and_scores(capsys, name):
    show_benchmarks(CONF)
    assert name in capsys.readouterr().out


def test_the_table_in_the_documentation_is_the_code_s():
    """If this fails: put the output of markdown_table into docs/benchmarks.md."""
    assert markdown_table(CONF) in (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
