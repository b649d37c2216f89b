"""What is refused before a search, and what is recorded of it."""

import orjson
import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from hydra_plugins.sah.search import SearchRecorder, check_search
from sah.errors import ConfigurationError


@pytest.fixture
def config(tmp_path):
    sweeper = {
        "_target_": "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper",
        "sampler": {"_target_": "optuna.samplers.TPESampler", "seed": 0},
        "direction": "maximize",
        "storage": None,
        "study_name": None,
        "n_trials": 4,
        "n_jobs": 2,
        "params": {"a.pages": "choice(4,8)", "a.kind": "choice(one,two)"},
    }
    return OmegaConf.create(
        {
            "output_root": str(tmp_path / "outputs"),
            "objective": "score",
            "hydra": {
                "sweeper": sweeper,
                "job": {"config_name": "density_search"},
                "overrides": {"task": ["model=tiny", "a.kind=one"]},
            },
        }
    )


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("storage", "sqlite:///x.db", "storage=sqlite:///x.db: a search takes no database"),
        ("direction", "up", "direction=up must be maximize or minimize"),
        ("direction", ["maximize", "minimize"], "objective='score' is one number"),
        ("n_trials", 0, "n_trials must be an integer of at least 1, got 0"),
        ("n_jobs", -1, "n_jobs must be an integer of at least 1, got -1"),
    ],
)
def test_settings_that_optuna_cannot_use_are_refused(config, setting, value, message):
    check_search(config)
    config.hydra.sweeper[setting] = value
    with pytest.raises(ConfigurationError, match=message):
        check_search(config)


def job(root, pages, value):
    return JobReturn(
        overrides=[f"a.pages={pages}", "model=tiny", "a.kind=one"],
        working_dir=str(root / f"tiny/a/b/{pages}"),
        status=JobStatus.COMPLETED if value else JobStatus.FAILED,
        _return_value=value or RuntimeError("failed"),
    )


def recorded(root):
    return [orjson.loads(path.read_bytes()) for path in sorted(root.glob(".searches/*"))]


def test_parameters_and_objectives_of_all_batches_are_recorded(config, tmp_path):
    root = tmp_path / "outputs"
    recorder = SearchRecorder(config)
    recorder.add([job(root, 4, 0.5)])
    recorder.add([job(root, 8, None)])
    assert recorded(root) == [
        {
            "name": "density_search a.kind=one model=tiny",
            "objective": "score",
            "direction": "maximize",
            "trials": [
                {"parameters": {"a.pages": 4}, "value": 0.5, "directory": "tiny/a/b/4"},
                {"parameters": {"a.pages": 8}, "value": None, "directory": "tiny/a/b/8"},
            ],
        }
    ]


@pytest.mark.parametrize(
    ("changed", "count"),
    [
        ({}, 1),
        ({"hydra.sweeper.n_trials": 9}, 1),
        ({"objective": "-density"}, 2),
        ({"hydra.sweeper.sampler.seed": 1}, 2),
        ({"hydra.overrides.task": ["model=smollm2"]}, 2),
    ],
)
def test_another_search_has_a_record_of_its_own(config, tmp_path, changed, count):
    SearchRecorder(config).add([job(tmp_path / "outputs", 4, 0.5)])
    for key, value in changed.items():
        OmegaConf.update(config, key, value)
    SearchRecorder(config).add([job(tmp_path / "outputs", 4, 0.5)])
    assert len(recorded(tmp_path / "outputs")) == count
