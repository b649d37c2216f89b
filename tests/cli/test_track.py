"""`sah track` sends finished results once, whatever the others below the folder are like."""

import json
import shutil

import pytest
from hydra import compose as compose_config
from hydra import initialize_config_dir

from sah.cli import track
from sah.execution.attempts import compute_arms
from sah.paths import config_folder
from sah.tracking.tensorboard import TensorBoardTracker

pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """The results of two arms, computed without a tracker."""
    root = tmp_path_factory.mktemp("computed") / "outputs"
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        arms = [
            compose_config(
                "config",
                [
                    *("model=tiny", "benchmark=mock", f"attention={name}"),
                    *("metric_logging=off", f"output_root={root}"),
                ],
            )
            for name in ("dense", "streaming_llm")
        ]
    compute_arms([(arm, []) for arm in arms])
    return root


@pytest.fixture
def outputs(computed, tmp_path):
    return shutil.copytree(computed, tmp_path / "outputs")


@pytest.fixture
def send(tmp_path, capsys):
    """Call `sah track`; returns the outcome of each result by attention."""

    def call(*folders):
        folder = f"tracker.folder={tmp_path / 'events'}"
        track.main([*map(str, folders), "tracker=tensorboard", folder])
        lines = capsys.readouterr().out.splitlines()
        return {line.split("/")[-3]: line.partition(": ")[2] for line in lines}

    return call


def written(root):
    return {path: path.read_bytes() for path in root.rglob("events.out.tfevents.*")}


def test_results_are_sent_once(outputs, send, tmp_path):
    assert send(outputs) == {"dense": "sent", "streaming_llm": "sent"}
    events = written(tmp_path)
    assert len(events) >= 2
    assert send(outputs, outputs) == dict.fromkeys(("dense", "streaming_llm"), "already there")
    assert written(tmp_path) == events


def test_a_result_that_was_computed_again_is_sent_again(outputs, send):
    send(outputs)
    (path,) = outputs.glob("*/dense/*/*/results.json")
    document = json.loads(path.read_text())
    document["provenance"]["finished"] = "2030-01-01T00:00:00+00:00"
    path.write_text(json.dumps(document))
    assert send(outputs) == {"dense": "sent", "streaming_llm": "already there"}


def test_a_damaged_result_does_not_hide_the_others(outputs, send):
    (path,) = outputs.glob("*/dense/*/*/results.json")
    path.write_text("{")
    assert send(outputs) == {"streaming_llm": "sent"}


def test_a_result_that_is_not_accepted_does_not_hide_the_others(outputs, send, monkeypatch, capsys):
    real = TensorBoardTracker.log

    def log(tracker, record):
        if "/dense/" in record.name:
            raise ValueError("no\x1b[31m")
        real(tracker, record)

    monkeypatch.setattr(TensorBoardTracker, "log", log)
    with pytest.raises(SystemExit, match="1 of 2 results were not sent; run the same command"):
        send(outputs)
    shown = capsys.readouterr().out
    assert "not sent, ValueError: no" in shown
    assert "\x1b" not in shown
    monkeypatch.undo()
    assert send(outputs) == {"dense": "sent", "streaming_llm": "already there"}


def test_a_tracker_of_your_own_is_found_in_a_folder(outputs, tmp_path, capsys):
    own = tmp_path / "it's mine"
    (own / "tracker").mkdir(parents=True)
    target = "_target_: sah.tracking.tensorboard.TensorBoardTracker"
    (own / "tracker/mine.yaml").write_text(f"{target}\nfolder: {tmp_path / 'events'}\n")
    track.main([str(outputs), "--config-dir", str(own), "tracker=mine"])
    assert capsys.readouterr().out.count(": sent") == 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tracker=mlflow"], "sah track: no folder; give the output root"),
        (["outputs", "--config-dir", "none"], "--config-dir none is not a folder"),
        (["outputs", "--force"], "unrecognized arguments: --force; `sah track --help`"),
        (["outputs"], "choose a tracker with tracker=NAME"),
        (["outputs", "tracker=nope"], "Could not find 'tracker/nope'"),
        (["outputs", "tracker=mlflow", "tracker.url=x"], "did you mean tracker.uri?"),
        (["nowhere", "tracker=tensorboard", "tracker.folder=/dev/null/x"], "cannot write to"),
    ],
)
def test_a_command_that_cannot_work_is_refused_in_one_message(arguments, expected, capsys):
    with pytest.raises(SystemExit) as refused:
        track.main(arguments)
    assert expected in f"{refused.value}{capsys.readouterr().err}"
