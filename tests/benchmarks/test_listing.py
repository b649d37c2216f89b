"""The output of `sah benchmarks`, and the table in docs/benchmarks.md."""

from pathlib import Path

import pytest

from sah.benchmarks.listing import listed_benchmarks, markdown_table, show_benchmarks
from sah.benchmarks.suites.infinite_bench import InfiniteBench

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf" / "benchmark"


def test_every_benchmark_is_described():
    listed = {item.name: item for item in listed_benchmarks(CONF)}
    aliases = {alias for item in listed.values() for alias in item.aliases}
    assert set(listed) | aliases == {path.stem for path in CONF.glob("*.yaml")}
    assert not set(listed) & aliases
    assert listed["aime24"].aliases == ("aime2024",)
    for item in listed.values():
        assert item.title
        assert item.source != "-", f"{item.name} does not say where its data come from"
        assert item.licence != "-"
        assert "-" not in item.scores.values()
    assert listed["longbench"].answer_limits["gov_report"] == 532
    assert listed["longbench"].scores["trec"] == "classification"
    assert "trec" in listed["longbench"].without_chat_template
    assert listed["ruler"].without_chat_template == ()
    assert not listed["longbench"].offline
    assert listed["ruler"].offline


def test_missing_data_are_listed_with_the_command_that_fetches_them(capsys, cache_commit):
    show_benchmarks(CONF)
    assert "sah fetch benchmark=infinite_bench" in capsys.readouterr().out
    for task in InfiniteBench.subsets():
        cache_commit("MaxJeblick/InfiniteBench", task, "a" * 40, [{"context": "c"}])
    show_benchmarks(CONF)
    shown = capsys.readouterr().out
    assert "sah fetch benchmark=infinite_bench" not in shown
    assert "sah fetch benchmark=longbench" in shown
    unpinned = "revision main is not pinned to a commit"
    assert f"{unpinned}; pin it with benchmark.revision={'a' * 40}" in shown


def test_each_data_set_on_the_hub_is_listed_as_pinned_or_not():
    listed = {item.name: item for item in listed_benchmarks(CONF)}
    for item in listed.values():
        assert bool(item.revision) == (not item.offline)
    assert listed["longbench"].revision == "pinned to a commit"
    assert listed["loft"].revision.startswith("revision main is not pinned to a commit")


@pytest.mark.parametrize(
    "name",
    [
        "niah_single_1",
        "repobench-p",
        "532 tokens",
        "rouge_l",
        "aime24 or aime2024",
        "no chat template",
    ],
)
def test_the_list_has_subsets_answer_limits_and_scores(capsys, name):
    show_benchmarks(CONF)
    assert name in capsys.readouterr().out


def test_the_table_in_the_documentation_is_up_to_date():
    """If this fails, copy the output of markdown_table to docs/benchmarks.md."""
    assert markdown_table(CONF) in (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
