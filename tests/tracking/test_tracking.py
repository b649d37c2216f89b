"""Trackers receive the numbers of results.json, and their failures stay harmless."""

import pytest
from omegaconf import OmegaConf

from sah.results.schema import Provenance, TaskResult
from sah.tracking import Record, track


@pytest.fixture
def result(make_result, tmp_path):
    return make_result(
        directory=tmp_path,
        score=0.75,
        n=4,
        tasks={"vt": TaskResult(score=0.75, stderr=None, n=4, contexts=4, metrics={"words": 2.0})},
        density=0.125,
        provenance=Provenance(git_commit="c0ffee", host="here", device="cpu", git_dirty=True),
        config={"seed": 3, "model": {"name": "tiny", "revision": None}, "list": [0, 1]},
    )


@pytest.fixture
def record(result) -> Record:
    return Record.from_result(result)


def test_a_record_has_every_measured_number_and_no_others(record):
    numbers = dict(record.numbers)
    timing = {name for name in numbers if name.startswith("timing/")}
    assert len(timing) == 6
    assert {name: value for name, value in numbers.items() if name not in timing} == {
        "score": 0.75,
        "n": 4.0,
        "density": 0.125,
        "truncated": 0.0,
        "unfinished_thoughts": 0.0,
        "tasks/vt/score": 0.75,
        "tasks/vt/n": 4.0,
        "tasks/vt/contexts": 4.0,
        "tasks/vt/metrics/words": 2.0,
    }


def test_settings_are_flat_and_without_null(record):
    assert record.settings == {"seed": 3, "model.name": "tiny", "list": "[0, 1]"}


def test_tensorboard_reads_back_what_was_logged(tmp_path, result):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="the extra tensorboard is not installed",
    )
    config = {
        "tracker": {
            "_target_": "sah.tracking.tensorboard.TensorBoardTracker",
            "folder": str(tmp_path),
        }
    }
    track(OmegaConf.create(config), result)
    folder = tmp_path / "tiny" / "sparse" / "ruler" / "0123abcd"
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    assert events.Scalars("score")[0].value == 0.75
    assert events.Scalars("tasks/vt/score")[0].value == 0.75


def test_mlflow_reads_back_what_was_logged_from_a_file_store(tmp_path, monkeypatch, result):
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"file:{tmp_path / 'mlruns'}"
    config = {"tracker": {"_target_": "sah.tracking.mlflow.MlflowTracker", "uri": uri}}
    track(OmegaConf.create(config), result)
    track(OmegaConf.create(config), result)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("sah")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2, "each repetition is an MLflow run"
    assert runs[0].data.metrics["score"] == 0.75
    assert runs[0].data.params["model.name"] == "tiny"
    assert runs[0].data.tags["git_commit"] == "c0ffee"
    assert runs[0].info.status == "FINISHED"


@pytest.mark.parametrize(
    "tracker",
    [
        {"_target_": "sah.tracking.wandb.WandbTracker", "package": "no_such_package"},
        {"_target_": "sah.tracking.mlflow.MlflowTracker", "uri": "nonsense://x"},
        {"_target_": "no.such.Tracker"},
    ],
)
def test_a_broken_tracker_is_a_warning_that_names_the_directory(tracker, caplog, tmp_path, result):
    track(OmegaConf.create({"tracker": tracker}), result)
    assert str(tmp_path) in caplog.text
    assert "did not accept the result" in caplog.text


def test_a_failing_tracker_does_not_fail_the_experiment(run):
    done = run(
        "model=tiny", "benchmark=mock", "attention=dense", "tracker=mlflow", "tracker.uri=no://x"
    )
    assert done.returncode == 0, done.stderr
    assert "did not accept the result" in done.stderr
