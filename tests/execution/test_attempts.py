"""Retryable errors are retried, others are not; both leave error.json."""

import errno
import json

import pytest

from sah.errors import Busy, ConfigurationError, DamagedResults
from sah.execution import attempts as attempts_module
from sah.execution.attempts import compute, compute_arms
from sah.results import directory


@pytest.fixture
def config(compose, tmp_path):
    return compose("model=tiny", "benchmark=mock", f"output_root={tmp_path}", "retries=2")


@pytest.fixture
def fail(monkeypatch, make_result):
    """Let each attempt raise the next of these errors, and count the attempts."""

    def install(*errors: BaseException) -> list[int]:
        attempts: list[int] = []
        waiting = list(errors)

        def run(arms):
            (arm,) = arms
            attempts.append(len(attempts))
            with arm.alone():
                if waiting:
                    raise waiting.pop(0)
                result = make_result(
                    directory=arm.store.directory, fingerprint=arm.store.fingerprint, score=1.0
                )
                arm.store.complete(result, [])
                arm.finish(result)

        monkeypatch.setattr("sah.execution.attempts.run", run)
        return attempts

    return install


def test_an_error_of_the_file_system_is_retried(config, fail):
    attempts = fail(OSError(errno.EIO, "flaky"), OSError(errno.EIO, "flaky"))
    assert compute(config, []).score == 1.0
    assert len(attempts) == 3
    assert not (directory(config) / "error.json").exists()


def test_after_the_last_retry_the_error_has_the_number_of_attempts(config, fail):
    attempts = fail(*[OSError(errno.EIO, "broken")] * 5)
    with pytest.raises(OSError, match="broken"):
        compute(config, [])
    assert len(attempts) == 3
    error = json.loads((directory(config) / "error.json").read_text())
    assert (error["category"], error["attempt"]) == ("filesystem", 3)


def test_answers_damaged_before_a_retry_end_their_own_arm_only(compose, tmp_path, monkeypatch):
    configs = [
        compose("model=tiny", "benchmark=mock", f"attention={name}", f"output_root={tmp_path}")
        for name in ("dense", "sparse")
    ]
    attempted = []

    def run(arms):
        attempted.append([arm.experiment.sparse_attention.name for arm in arms])
        if len(attempted) > 1:
            real_run(arms)
            return
        for arm in arms:
            with arm.alone():
                raise OSError(errno.EIO, "flaky")
        (directory(configs[1]) / "predictions.jsonl").write_text("damaged\n{}\n")

    real_run = attempts_module.run
    monkeypatch.setattr(attempts_module, "run", run)
    dense, sparse = compute_arms([(config, []) for config in configs])
    assert attempted == [["dense", "sparse"], ["dense"]]
    assert dense.result is not None
    assert dense.result.n == 5
    assert isinstance(sparse.error, DamagedResults)
    assert "DamagedResults" in (directory(configs[1]) / "error.json").read_text()


@pytest.mark.parametrize("error", [ConfigurationError("no"), RuntimeError("bug"), MemoryError()])
def test_other_errors_are_not_retried(config, fail, error):
    attempts = fail(error)
    with pytest.raises(type(error)):
        compute(config, [])
    assert len(attempts) == 1


def test_no_error_is_written_to_a_directory_that_was_taken_over(config, fail):
    fail(Busy("somebody else has it"))
    with pytest.raises(Busy):
        compute(config, [])
    assert not (directory(config) / "error.json").exists()


def test_a_requeued_job_keeps_its_answers_despite_resume_false(compose, tmp_path, monkeypatch):
    afresh = compose("model=tiny", "benchmark=mock", f"output_root={tmp_path}", "resume=false")
    compute(afresh, [])
    predictions = directory(afresh) / "predictions.jsonl"
    answered = predictions.read_bytes()
    (directory(afresh) / "results.json").unlink()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    compute(afresh, [])
    assert predictions.read_bytes() == answered, "seconds included: nothing was computed again"
