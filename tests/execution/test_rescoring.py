"""Rescoring answers without the model."""

import os
import re
import sys

import orjson
import pytest
from omegaconf import OmegaConf

from sah.benchmarks.mock import Mock
from sah.cli import rescore as rescore_command
from sah.errors import ConfigurationError, DamagedResults
from sah.execution import rescoring
from sah.execution.attempts import compute
from sah.models.tiny import TinyModel
from sah.results import directory, fingerprint
from sah.results.identity import experiment_of
from sah.results.stored_lines import prediction_line
from sah.types import Prediction


@pytest.fixture
def finished(compose, tmp_path):
    config = compose("model=tiny", "benchmark=mock", "attention=dense", f"output_root={tmp_path}")
    compute(config, ["benchmark=mock"])
    return directory(config)


def results(folder):
    return orjson.loads((folder / "results.json").read_bytes())


def test_a_changed_scorer_changes_only_the_scores(finished, monkeypatch):
    before = results(finished)
    answers = (finished / "predictions.jsonl").read_bytes()
    original = Mock.score

    def generous(self, examples, predictions):
        from dataclasses import replace

        return [replace(score, score=1.0) for score in original(self, examples, predictions)]

    monkeypatch.setattr(Mock, "score", generous)
    monkeypatch.setattr(TinyModel, "load", lambda self: pytest.fail("the model was loaded"))
    rescore_command.main([str(finished.parents[3])])
    after = results(finished)
    assert (before["score"], after["score"]) == (0.0, 1.0)
    assert before["provenance"].pop("rescored") is None
    assert after["provenance"].pop("rescored")["finished"] > before["provenance"]["finished"]
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"score", "tasks", "scores_digest"}
    lines = (finished / "scores.jsonl").read_bytes().splitlines()
    assert [orjson.loads(line)["score"] for line in lines] == [1.0] * 5
    assert (finished / "predictions.jsonl").read_bytes() == answers


def test_an_unchanged_scorer_changes_nothing(finished):
    before = results(finished)
    assert rescoring.rescore(finished) == (before["score"], before["score"])
    after = results(finished)
    assert after["provenance"].pop("rescored")["finished"]
    del before["provenance"]["rescored"]
    assert after == before


def test_an_unfinished_experiment_is_refused(finished):
    (finished / "results.json").unlink()
    with pytest.raises(ConfigurationError, match="not complete"):
        rescoring.rescore(finished)
    with pytest.raises(SystemExit, match="no complete experiment"):
        rescore_command.main([str(finished)])


def test_missing_answers_are_an_error_and_a_nonzero_exit_status(finished):
    path = finished / "predictions.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    with pytest.raises(DamagedResults, match="no answer to 'mock-3' and 1 others"):
        rescoring.rescore(finished)
    with pytest.raises(SystemExit, match="1 of 1 experiments could not be rescored"):
        rescore_command.main([str(finished)])


def edited(folder, *changes):
    """Change a stored configuration, and give directory and results the name that would fit."""
    config = OmegaConf.load(folder / "config.yaml")
    for key, value in changes:
        OmegaConf.update(config, key, value, force_add=True)
    OmegaConf.save(config, folder / "config.yaml")
    return renamed(folder, fingerprint(config))


def renamed(folder, name):
    config = experiment_of(OmegaConf.load(folder / "config.yaml"))
    content = results(folder) | {"fingerprint": name, "config": config}
    (folder / "results.json").write_bytes(orjson.dumps(content))
    path, own = folder / "predictions.jsonl", ("fingerprint", "checksum")
    answers = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    path.write_bytes(
        b"".join(
            prediction_line(
                Prediction(**{key: value for key, value in one.items() if key not in own}), name
            )
            for one in answers
        )
    )
    return folder.rename(folder.with_name(name))


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A module whose import is noticed; its class is a benchmark like any other."""
    (tmp_path / "hostile.py").write_text(
        "import os\n"
        "from sah.benchmarks.mock import Mock\n"
        "os.environ['HOSTILE_RAN'] = '1'\n"
        "class Benchmark(Mock): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("HOSTILE_RAN", raising=False)
    yield "hostile.Benchmark"
    sys.modules.pop("hostile", None)


@pytest.mark.parametrize(
    "key", ["benchmark._target_", "tracker._target_", "model.model_kwargs.config._target_"]
)
def test_a_class_outside_the_configuration_is_not_even_imported(key, finished, hostile):
    folder = edited(finished, (key, hostile))
    with pytest.raises(
        ConfigurationError, match=rf"{re.escape(key)}='hostile\.Benchmark'.*--allow"
    ):
        rescoring.rescore(folder)
    assert "HOSTILE_RAN" not in os.environ


def test_the_press_of_an_attention_is_not_imported(finished, hostile):
    press = {
        "_target_": "sah.evictors.presses.kvpress_scorer.KVPressScorer",
        "press": hostile,
        "tokens": 1,
    }
    attention = {"_target_": "sah.attention.SparseAttention", "name": "x", "evict": {"x": press}}
    folder = edited(finished, ("sparse_attention", attention))
    rescoring.rescore(folder)
    assert "HOSTILE_RAN" not in os.environ


def test_a_class_that_is_allowed_is_used(finished, hostile):
    folder = edited(finished, ("benchmark._target_", hostile))
    rescore_command.main(["--allow", hostile, str(folder)])
    assert os.environ.pop("HOSTILE_RAN") == "1"


def test_the_code_of_a_model_needs_a_flag(finished):
    folder = edited(finished, ("model.trust_remote_code", True))
    with pytest.raises(ConfigurationError, match=r"trust_remote_code=True.*--trust-remote-code"):
        rescoring.rescore(folder)


def test_an_interpolation_is_refused_before_it_is_resolved(finished, monkeypatch):
    monkeypatch.setenv("SECRET", "7")
    path = finished / "config.yaml"
    path.write_text(path.read_text().replace("\nseed: 0", "\nseed: ${oc.decode:${oc.env:SECRET}}"))
    with pytest.raises(ConfigurationError, match="an interpolation in seed"):
        rescoring.rescore(finished)


@pytest.mark.parametrize("change", ["edited", "copied"])
def test_a_configuration_of_another_fingerprint_is_refused(change, finished):
    if change == "copied":
        folder = renamed(finished, "0123456789ab")
    else:
        folder = finished
        path = folder / "config.yaml"
        path.write_text(path.read_text().replace("\nseed: 0", "\nseed: 5"))
    with pytest.raises(
        (ConfigurationError, DamagedResults),
        match=r"has the fingerprint .* was edited, copied|its config is not that of experiment",
    ):
        rescoring.rescore(folder)
