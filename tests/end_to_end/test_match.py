"""Budgets that `sah match` saved are options of a sweep, whose results measure as asked."""

import json

import pytest

EXPERIMENT = (
    *("model=tiny", "benchmark=ruler", "benchmark.context_tokens=500", "benchmark.samples=1"),
    "generation.max_new_tokens=2",
)


def test_matched_budgets_run_as_a_sweep(run, result_folders):
    asked = ("--target", "resident=0.3", "--save", "studies")
    command = ("match", *asked, "attention=knorm,think,adakv", *EXPERIMENT)
    done = run(*command)
    assert done.returncode == 1
    assert "think cannot measure resident=0.3" in done.stderr
    assert result_folders() == []
    rows = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.strip()}
    assert [rows[name][-1] for name in ("knorm", "think", "adakv")] == ["yes", "no", "yes"]

    choice = "sparse_attention=knorm@resident-0.3,adakv@resident-0.3"
    swept = run("--config-dir", "studies", "-m", choice, *EXPERIMENT, "hydra/launcher=basic")
    assert swept.returncode == 0, swept.stderr
    results = [json.loads((folder / "results.json").read_text()) for folder in result_folders()]
    assert len(results) == 2
    for result in results:
        assert result["resident"] == pytest.approx(0.3, rel=0.03)
        assert result["config"]["sparse_attention"]["matched"]["target"] == 0.3
