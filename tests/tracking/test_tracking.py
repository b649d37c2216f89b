"""Trackers take what results.json holds, and no trouble of theirs reaches a run."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from sah.tracking import Record, track

RESULTS = {
    "schema": 1,
    "fingerprint": "0123abcd",
    "model": "tiny",
    "attention": "sparse",
    "benchmark": "ruler",
    "subset": "all",
    "score": 0.75,
    "stderr": None,
    "n": 4,
    "tasks": {"vt": {"score": 0.75, "stderr": None, "n": 4}},
    "density": 0.125,
    "timing": {"decode_seconds": 2.5},
    "provenance": {"git_commit": "c0ffee", "host": "here", "device": "cpu", "git_dirty": True},
    "config": {"seed": 3, "model": {"name": "tiny", "revision": None}, "list": [0, 1]},
}


@pytest.fixture
def record() -> Record:
    return Record.from_results(RESULTS, Path("outputs/x"))


def test_a_record_has_every_number_and_nothing_that_was_not_measured(record):
    assert record.numbers == {
        "score": 0.75,
        "n": 4.0,
        "density": 0.125,
        "timing/decode_seconds": 2.5,
        "tasks/vt/score": 0.75,
        "tasks/vt/n": 4.0,
    }


def test_settings_are_flat_and_without_null(record):
    assert record.settings == {"seed": 3, "model.name": "tiny", "list": "[0, 1]"}


def test_tensorboard_reads_back_what_was_logged(tmp_path):
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
    track(OmegaConf.create(config), RESULTS, tmp_path)
    folder = tmp_path / "tiny" / "sparse" / "ruler" / "0123abcd"
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    assert events.Scalars("score")[0].value == 0.75
    assert events.Scalars("tasks/vt/score")[0].value == 0.75


def test_mlflow_reads_back_what_was_logged_from_a_file_store(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    uri = f"file:{tmp_path / 'mlruns'}"
    config = {"tracker": {"_target_": "sah.tracking.mlflow.MlflowTracker", "uri": uri}}
    track(OmegaConf.create(config), RESULTS, tmp_path)
    track(OmegaConf.create(config), RESULTS, tmp_path)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("sah")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2, "each repetition is a run"
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
def test_a_broken_tracker_is_a_warning_that_says_where_the_results_are(tracker, caplog, tmp_path):
    track(OmegaConf.create({"tracker": tracker}), RESULTS, tmp_path)
    assert str(tmp_path) in caplog.text
    assert "did not take the results" in caplog.text


def test_a_run_ends_well_whatever_its_tracker_does(run):
    done = run(
        "model=tiny", "benchmark=mock", "attention=dense", "tracker=mlflow", "tracker.uri=no://x"
    )
    assert done.returncode == 0, done.stderr
    assert "did not take the results" in done.stderr
