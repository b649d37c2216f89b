"""Rescoring answers without the model."""

import orjson
import pytest

from sah.benchmarks.mock import Mock
from sah.cli import rescore as rescore_command
from sah.errors import ConfigurationError, DamagedResults
from sah.execution import rescoring
from sah.execution.attempts import compute
from sah.models.tiny import TinyModel
from sah.results import directory


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
    assert changed == {"score", "tasks"}
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
