"""The studies in experiments/ compose, and the search finds the best objective."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
STUDIES = sorted((ROOT / "experiments").glob("*.yaml"))


@pytest.mark.parametrize("study", STUDIES, ids=lambda path: path.stem)
def test_study_composes(run, study):
    options = ("--config-dir", str(ROOT / "experiments"), "--config-name", study.stem)
    done = run(*options, "--cfg", "job")
    assert done.returncode == 0, done.stderr


def test_search_finds_the_best_objective_with_optuna(run, tmp_path):
    pytest.importorskip("optuna", reason="the extra optuna is not installed")
    options = ("--config-dir", str(ROOT / "experiments"), "--config-name", "density_search")
    done = run(
        *options,
        "model=tiny",
        "benchmark.context_tokens=400",
        "benchmark.samples=1",
        "generation.max_new_tokens=4",
        "hydra/launcher=basic",
        "hydra.sweeper.n_trials=4",
        "hydra.sweeper.n_jobs=2",
        "objective=-density",
    )
    assert done.returncode == 0, done.stderr
    best = yaml.safe_load((tmp_path / "outputs" / "optimization_results.yaml").read_text())
    assert -1 <= best["best_value"] < 0
    assert len(best["best_params"]) == 2
