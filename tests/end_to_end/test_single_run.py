"""One experiment, run as a user runs it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TINY = ("model=tiny", "benchmark=mock")

# Long enough to be stopped in the middle.
LONG = (
    "model=tiny",
    "benchmark=ruler",
    "benchmark.subset=[niah_single_1,niah_single_2]",
    "benchmark.samples=6",
    "benchmark.context_tokens=800",
    "metric_logging=full",
    "generation.batch_rows=1",
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the long experiment, run without interruption."""
    folder = tmp_path_factory.mktemp("undisturbed")
    subprocess.run([sys.executable, str(ROOT / "run.py"), *LONG], cwd=folder, check=True)
    (results,) = folder.glob("outputs/*/*/*/*/results.json")
    return results.parent


def test_run_writes_every_file_and_shows_the_result(run, result_folders):
    done = run(*TINY)
    assert done.returncode == 0, done.stderr
    (folder,) = result_folders()
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml",
        "overrides.yaml",
        "predictions.jsonl",
        "micro_metrics.jsonl",
        "starts.jsonl",
        "scores.jsonl",
        "examples.jsonl",
        "results.json",
        "run.log",
    }
    for expected in ("mock", "density", "output error", "tokens/s", folder.name):
        assert expected in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()[:-1]) <= 80


def test_questions_on_a_generated_context_share_its_prefill(run, result_folders):
    generated = ("benchmark=key_value", "benchmark.samples=2", "benchmark.questions=3")
    short = ("benchmark.context_tokens=700", "generation.max_new_tokens=8")
    done = run("model=tiny", *generated, *short, "sparse_attention=dense")
    assert done.returncode == 0, done.stderr
    (folder,) = result_folders()
    answers = map(json.loads, (folder / "predictions.jsonl").read_text().splitlines())
    shared = [answer["prefill_seconds"] is None for answer in answers]
    assert shared == [False, True, True, False, True, True]


def test_finished_experiment_is_not_computed_again(run, result_folders):
    run(*TINY)
    (folder,) = result_folders()
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = run("benchmark=mock", "model=tiny", "attention=sparse")
    assert again.returncode == 0
    assert folder.name in again.stdout
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_repeats_are_resumed_in_the_middle_of_a_question(run, result_folders):
    command = (*TINY, "benchmark.repeats=4", "metric_logging=off")
    refused = run(*command)
    assert refused.returncode == 1
    assert "generation.temperature=0 is greedy: all of them would be equal" in refused.stderr
    command = (*command, "generation.temperature=0.8")
    assert run(*command).returncode == 0
    (folder,) = result_folders()
    whole, answers = json.loads((folder / "results.json").read_text()), folder / "predictions.jsonl"
    assert (whole["n"], whole["tasks"]["mock"]["contexts"]) == (20, 2)
    assert list(whole["tasks"]["mock"]["metrics"]) == ["pass@1", "pass@2", "pass@4"]
    before = [json.loads(line) for line in answers.read_text().splitlines()]
    assert sum(one["prefill_seconds"] is not None for one in before) == 2
    # As if it had been killed at the second answer to the second question.
    (folder / "results.json").unlink()
    answers.write_bytes(b"".join(answers.read_bytes().splitlines(keepends=True)[:6]))
    done = run(*command)
    assert "6 of 20 examples already answered, 14 to go" in done.stderr
    after = [json.loads(line) for line in answers.read_text().splitlines()]
    assert [(one["example_id"], one["text"]) for one in after] == [
        (one["example_id"], one["text"]) for one in before
    ]
    assert json.loads((folder / "results.json").read_text())["tasks"] == whole["tasks"]


def test_resume_false_computes_again_in_the_same_directory(run, result_folders, answers):
    run(*TINY)
    (folder,) = result_folders()
    first, stamp = answers(folder), (folder / "results.json").stat().st_mtime_ns
    again = run(*TINY, "resume=false")
    assert again.returncode == 0, again.stderr
    assert result_folders() == [folder]
    assert (folder / "results.json").stat().st_mtime_ns != stamp
    assert answers(folder) == first
    assert not (folder / ".previous").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_run_goes_on_to_the_results_of_an_undisturbed_one(
    number: signal.Signals,
    run: Callable[..., subprocess.CompletedProcess[str]],
    tmp_path: Path,
    answers: Callable[[Path], list[dict[str, Any]]],
    undisturbed: Path,
) -> None:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *LONG],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait_for_answers(process, tmp_path, 3)
    process.send_signal(number)
    _, errors = process.communicate()
    assert (
        process.returncode
        == {
            signal.SIGINT: 130,
            signal.SIGTERM: 143,
            signal.SIGKILL: -9,
        }[number]
    ), errors
    assert "Traceback" not in errors
    (predictions,) = tmp_path.glob("outputs/*/*/*/*/predictions.jsonl")
    folder = predictions.parent
    assert 3 <= len(predictions.read_text().splitlines()) < 12
    if number != signal.SIGKILL:
        error = json.loads((folder / "error.json").read_text())
        assert error["category"] == "interrupt"
        answered = len(predictions.read_text().splitlines())
        message = f"interrupted, {answered} of 12 answered; run the same command again to resume"
        assert message in errors
        assert not (folder / ".claim").exists()

    resumed = run(*LONG)
    assert resumed.returncode == 0, resumed.stderr
    assert "already answered" in resumed.stderr
    assert answers(folder) == answers(undisturbed)
    assert _metrics(folder) == _metrics(undisturbed)
    assert (folder / "scores.jsonl").read_bytes() == (undisturbed / "scores.jsonl").read_bytes()
    assert not (folder / "error.json").exists()


def test_a_timeout_is_one_message_and_the_experiment_can_go_on(run, tmp_path):
    done = run(*TINY, "timeout_minutes=1e-9")
    assert done.returncode == 1
    assert done.stderr.startswith("timeout: ") or "\ntimeout: " in done.stderr
    assert "Traceback" not in done.stderr
    (error,) = tmp_path.glob("outputs/*/*/*/*/error.json")
    assert json.loads(error.read_text())["category"] == "timeout"
    finished = run(*TINY)
    assert finished.returncode == 0, finished.stderr


def test_a_second_process_leaves_a_running_experiment_alone(run, tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *LONG],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _wait_for_answers(process, tmp_path, 1)
    process.send_signal(signal.SIGSTOP)
    try:
        second = run(*LONG)
    finally:
        process.send_signal(signal.SIGCONT)
    assert second.returncode == 1
    assert f"process {process.pid}" in second.stderr
    assert process.wait() == 0
    (predictions,) = tmp_path.glob("outputs/*/*/*/*/predictions.jsonl")
    assert len(predictions.read_text().splitlines()) == 12


def test_damaged_results_are_refused_and_left_as_they_are(run, result_folders):
    run(*TINY)
    (folder,) = result_folders()
    (folder / "results.json").write_text('{"schema": 1, "fing')
    done = run(*TINY)
    assert done.returncode == 1
    assert "results.json is damaged" in done.stderr
    assert "resume=false" in done.stderr
    assert (folder / "results.json").read_text() == '{"schema": 1, "fing'


def _wait_for_answers(process: "subprocess.Popen[str]", root: Path, count: int) -> None:
    while not any(
        path.read_text().count("\n") >= count
        for path in root.glob("outputs/*/*/*/*/predictions.jsonl")
    ):
        assert process.poll() is None, "it ended before it was stopped"
        time.sleep(0.005)


def _metrics(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "micro_metrics.jsonl").read_text().splitlines()
    return [
        {key: value for key, value in json.loads(line).items() if key != "timestamp"}
        for line in lines
    ]


def test_an_edited_file_is_computed_anew_and_a_copy_of_it_is_complete(
    run, result_folders, tmp_path
):
    row = '{"context": "c", "question": "q", "references": "r", "max_new_tokens": 2}\n'
    data, options = tmp_path / "my.jsonl", ("model=tiny", "benchmark=jsonl", "attention=dense")
    data.write_text(row)
    run(*options, "benchmark.path=my.jsonl")
    (first,) = result_folders()
    data.write_text(2 * row)
    again = run(*options, "benchmark.path=my.jsonl")
    assert f"benchmark.path has changed: {first.relative_to(tmp_path)} has answers" in again.stderr
    (second,) = set(result_folders()) - {first}
    assert json.loads((second / "results.json").read_text())["n"] == 2
    (tmp_path / "copy.jsonl").write_text(row)
    copy = run(*options, "benchmark.path=./copy.jsonl")
    assert first.name in copy.stdout
    assert len(result_folders()) == 2
