"""Retryable errors are retried, others are not; both leave error.json."""

import errno
import json

import pytest

from sah.errors import Busy, ConfigurationError, DamagedResults
from sah.execution import attempts as attempts_module
from sah.execution.attempts import compute, compute_arms
from sah.results import ResultStore, directory


@pytest.fixture
def config(compose, tmp_path):
    return compose("model=tiny", "benchmark=mock", f"output_root={tmp_path}", "retries=2")


@pytest.fixture
def fail(monkeypatch, make_result):
    """Let each attempt raise the next of these errors, and count the attempts."""

    def install(*errors: BaseException) -> list[int]:
        attempts: list[int] = []
        waiting = list(errors)

        def run(arms, models):
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

    def run(arms, models):
        attempted.append([arm.experiment.sparse_attention.name for arm in arms])
        if len(attempted) > 1:
            real_run(arms, models)
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


@pytest.fixture
def job(monkeypatch):
    """Become a start of a SLURM job."""

    def start(number, *, restart):
        monkeypatch.setenv("SLURM_JOB_ID", str(number))
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))

    return start


@pytest.fixture
def afresh(compose, tmp_path):
    """Compute arms with resume=false; return the answers of each, seconds included."""

    def compute_again(*names):
        configs = [
            compose(
                *("model=tiny", "benchmark=mock", f"attention={name}"),
                *(f"output_root={tmp_path}", "resume=false"),
            )
            for name in names
        ]
        compute_arms([(config, []) for config in configs])
        return [(directory(config) / "predictions.jsonl").read_bytes() for config in configs]

    return compute_again


def test_a_requeued_job_keeps_its_answers_despite_resume_false(afresh, job, calls, monkeypatch):
    (old,) = afresh("dense")
    job(7, restart=0)
    with monkeypatch.context():
        calls(ResultStore, "append", raise_at=4, error=KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            afresh("dense")
    for restart in (1, 2):
        job(7, restart=restart)
        answers = calls(ResultStore, "append")
        (new,) = afresh("dense")
        assert len(answers) == (2 if restart == 1 else 0)
    assert new != old


def test_a_job_requeued_before_it_began_computes_an_old_result_again(afresh, job):
    (old,) = afresh("dense")
    job(6, restart=0)
    (of_another_job,) = afresh("dense")
    assert of_another_job != old
    job(7, restart=1)
    (new,) = afresh("dense")
    assert new != of_another_job


def test_a_requeued_bundle_computes_only_what_it_had_not_completed(afresh, job, calls, monkeypatch):
    afresh("dense", "sparse")
    job(7, restart=0)
    (dense,) = afresh("dense")
    job(7, restart=1)
    answers = calls(ResultStore, "append")
    again, _ = afresh("dense", "sparse")
    assert again == dense
    assert len(answers) == 5


def test_resume_false_twice_in_one_start_of_a_job_computes_twice(afresh, job):
    job(7, restart=1)
    first, second = afresh("dense"), afresh("dense")
    assert first != second
