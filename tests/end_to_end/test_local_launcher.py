"""hydra/launcher=local: one job per (fake) GPU, failures as rows, no process left behind."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sah.results.claim import read_claim

ROOT = Path(__file__).resolve().parents[2]
TINY = ("model=tiny", "benchmark=mock")
# Long enough to be interrupted.
LONG = (
    "model=tiny",
    "benchmark=ruler",
    "benchmark.samples=40",
    "benchmark.context_tokens=800",
    "metric_logging=off",
    "generation.batch_rows=1",
)


def provenance(root: Path) -> list[dict[str, Any]]:
    return [
        json.loads(path.read_text())["provenance"]
        for path in sorted(root.glob("outputs/*/*/*/*/results.json"))
    ]


def intervals(root: Path) -> dict[str, list[tuple[datetime, datetime]]]:
    """Return the start and end of every job by device."""
    found = defaultdict(list)
    for item in provenance(root):
        found[item["cuda_visible_devices"]].append(
            (datetime.fromisoformat(item["started"]), datetime.fromisoformat(item["finished"]))
        )
    return {device: sorted(times) for device, times in found.items()}


def summary(root: Path) -> dict[str, Any]:
    (path,) = root.glob("outputs/.sweeps/*/summary.json")
    return json.loads(path.read_text())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """Start a sweep as a process of its own, and kill it if the test fails."""
    started: list[subprocess.Popen[str]] = []

    def call(*arguments: str, environment: dict[str, str] | None = None) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), "-m", *arguments],
            cwd=tmp_path,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Where the tests run under nohup it is ignored, and run.py would inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield call
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_without_bundles_every_cell_has_a_job_and_every_gpu_one_job_at_a_time(
    run, tmp_path, fake_gpus
):
    matrix = ("-m", *TINY, "attention=dense,sparse,streaming_llm", "bundle=none")
    done = run(*matrix, "hydra.launcher.gpus=[1,3]", environment=fake_gpus)
    assert done.returncode == 0, done.stderr
    assert "3 jobs, 2 at a time" in done.stderr
    assert "separate runs" not in done.stderr
    work = intervals(tmp_path)
    assert set(work) == {"1", "3"}
    assert sum(len(times) for times in work.values()) == 3
    for times in work.values():
        assert all(before[1] <= after[0] for before, after in pairwise(times))
    assert summary(tmp_path)["counts"] == {"done": 3}
    assert "3 done" in done.stderr


def test_arms_share_jobs_once_every_gpu_has_one(run, tmp_path, fake_gpus):
    matrix = ("-m", *TINY, "attention=dense,sparse,streaming_llm", "hydra.launcher.gpus=[1,3]")
    done = run(*matrix, environment=fake_gpus)
    assert done.returncode == 0, done.stderr
    assert "2 jobs for 3 experiments, which share prefills" in done.stderr
    assert "separately it would have taken" in done.stderr
    assert summary(tmp_path)["counts"] == {"done": 3}
    devices = [item["cuda_visible_devices"] for item in provenance(tmp_path)]
    assert sorted(devices) == ["1", "1", "3"]
    for path in tmp_path.glob("outputs/*/*/*/*/results.json"):
        assert f"attention={path.parents[2].name}" in (path.parent / "overrides.yaml").read_text()


def test_a_failed_arm_is_one_row_and_the_others_finish(run, tmp_path, result_folders):
    # The tiny model has no layer 9, which is noticed once the model is loaded.
    matrix = ("-m", *TINY, "attention=sparse,streaming_llm", "sparse_attention.dense_layers=[],[9]")
    done = run(*matrix)
    assert done.returncode == 1
    assert "1 job for 4 experiments" in done.stderr
    assert "2 of 4 experiments failed" in done.stderr
    assert summary(tmp_path)["counts"] == {"done": 2, "failed": 2}
    rows = {tuple(row["overrides"][2:]): row for row in summary(tmp_path)["cells"]}
    for attention in ("sparse", "streaming_llm"):
        row = rows[f"attention={attention}", "sparse_attention.dense_layers=[9]"]
        assert row["outcome"] == "failed"
        assert row["reason"].startswith("configuration: ")
        assert "names the layers [9]" in row["reason"]
        assert rows[f"attention={attention}", "sparse_attention.dense_layers=[]"]["reason"] is None
    assert len(result_folders()) == 2

    again = run(*matrix)
    assert "2 finished already, 0 duplicates, 2 to run" in again.stderr


def test_a_killed_bundle_is_one_row_for_each_arm_and_goes_on(start, run, tmp_path, result_folders):
    matrix = (*LONG, "attention=sparse,streaming_llm")
    process = start(*matrix)
    folder = _wait_for_answers(process, tmp_path, experiments=2)
    during = _status(tmp_path)
    assert [row["state"] for row in during] == ["running", "running"]
    os.kill(read_claim(folder).pid, signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode == 1, errors
    assert summary(tmp_path)["counts"] == {"failed": 2}
    for path in tmp_path.glob("outputs/*/*/*/*/error.json"):
        assert json.loads(path.read_text())["category"] == "memory"

    again = run("-m", *matrix)
    assert again.returncode == 0, again.stderr
    assert len(result_folders()) == 2
    for done in result_folders():
        assert "already answered" in (done / "run.log").read_text()


def test_a_job_sees_only_the_devices_of_its_slot(run, tmp_path, fake_gpus):
    done = run(
        "-m",
        *TINY,
        "hydra.launcher.gpus=[2,MIG-42]",
        "hydra.launcher.gpus_per_job=2",
        environment=fake_gpus,
    )
    assert done.returncode == 0, done.stderr
    assert [item["cuda_visible_devices"] for item in provenance(tmp_path)] == ["2,MIG-42"]


def test_an_unknown_gpu_is_refused_before_anything_runs(run, tmp_path, fake_gpus):
    done = run("-m", *TINY, "hydra.launcher.gpus=[7]", environment=fake_gpus)
    assert done.returncode == 1
    assert "no GPU '7'" in done.stderr
    assert "0: Fake GPU (GPU-0abc, 78.1 GiB free)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not provenance(tmp_path)
    # Only which directory the cell has is remembered.
    left = [path.name for path in (tmp_path / "outputs").rglob("*")]
    assert sorted(left) == [".sweeps", "composed.json"]


def test_a_sweep_refused_by_its_launcher_leaves_no_empty_folder(run, tmp_path, fake_gpus):
    arguments = ("resume=false", "hydra.launcher.gpus=[7]")
    done = run("-m", *TINY, *arguments, environment=fake_gpus)
    assert "no GPU '7'" in done.stderr
    assert list((tmp_path / "outputs").rglob("*")) == []


def test_a_killed_cell_is_one_row_of_status_and_summary_and_the_others_finish(
    start, run, tmp_path, result_folders
):
    process = start(*LONG, "seed=1,2", "hydra.launcher.cpu_workers=1")
    folder = _wait_for_answers(process, tmp_path)
    during = _status(tmp_path)
    assert [row["state"] for row in during] == ["running", "waiting"]
    assert during[0]["examples"] == 40
    os.kill(read_claim(folder).pid, signal.SIGKILL)
    shown, errors = process.communicate()
    assert process.returncode == 1, errors
    killed, other = [row["state"] for row in _status(tmp_path)]
    # Its claim may outlive it.
    assert killed in ("dead", "failed")
    assert other == "done"
    assert len(result_folders()) == 1
    error = json.loads((folder / "error.json").read_text())
    assert error["category"] == "memory"
    assert "SIGKILL" in error["message"]
    assert "1 of 2 experiments failed" in errors
    assert shown.splitlines()[-1].endswith("# only what has no result")
    assert summary(tmp_path)["counts"] == {"failed": 1, "done": 1}

    again = run("-m", *LONG, "seed=1,2")
    assert again.returncode == 0, again.stderr
    assert "1 finished already" in again.stderr
    assert len(result_folders()) == 2
    assert not (folder / "error.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_stopped_sweep_leaves_no_process(number, start, tmp_path):
    mark = f"SAH_TEST_{uuid.uuid4().hex}"
    process = start(*LONG, "seed=1,2", environment={mark: "1"})
    _wait_for_answers(process, tmp_path)
    assert len(list(_processes_with(mark))) == 4, "sweep, fork server, supervisor, job"
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    if number != signal.SIGKILL:
        assert "0 of 2 experiments done; run the same command again to resume" in errors
        assert summary(tmp_path)["counts"] == {"interrupted": 1, "not started": 1}
        assert [row["state"] for row in _status(tmp_path)] == ["interrupted", "waiting"]
    while list(_processes_with(mark)):
        time.sleep(0.1)


def test_a_queued_cell_runs_as_it_was_composed(start, tmp_path, result_folders):
    group = tmp_path / "own" / "benchmark"
    group.mkdir(parents=True)
    slow = "_target_: sah.benchmarks.ruler.Ruler\nname: slow\nsamples: 20\ncontext_tokens: 600\n"
    (group / "slow.yaml").write_text(slow + "subset: niah_single_1\n")
    process = start("--config-dir", "own", "model=tiny", "benchmark=slow", "seed=1,2")
    _wait_for_answers(process, tmp_path)
    (group / "slow.yaml").write_text(slow + "subset: niah_single_2\n")
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert len(result_folders()) == 2
    for folder in result_folders():
        assert json.loads((folder / "results.json").read_text())["subset"] == "niah_single_1"


# The sweep's clock jumps an hour once an example has been answered.
CLOCK_THAT_JUMPS = """
import time
from pathlib import Path
from types import SimpleNamespace

from sah.cli.main import main
from sah.launching import pool


def monotonic():
    written = Path().glob("outputs/*/*/*/*/predictions.jsonl")
    return time.monotonic() + 3600 * any(path.stat().st_size for path in written)


pool.time = SimpleNamespace(monotonic=monotonic, sleep=time.sleep)
main()
"""


def test_time_limit_of_the_launcher_keeps_the_answers(tmp_path):
    arguments = ("-m", *LONG, "benchmark.samples=400", "hydra.launcher.timeout_min=60")
    done = subprocess.run(
        [sys.executable, "-c", CLOCK_THAT_JUMPS, *arguments], cwd=tmp_path, capture_output=True
    )
    assert done.returncode == 1, done.stderr
    (path,) = tmp_path.glob("outputs/*/*/*/*/error.json")
    assert json.loads(path.read_text())["category"] == "timeout"
    assert (path.parent / "predictions.jsonl").read_text().count("\n") > 0


def _wait_for_answers(process: "subprocess.Popen[str]", root: Path, experiments: int = 1) -> Path:
    """Wait until that many experiments have answered something; return the directory of one."""
    while True:
        ended = process.poll() is not None
        answered = [
            path.parent
            for path in root.glob("outputs/*/*/*/*/predictions.jsonl")
            if read_claim(path.parent) is not None and path.stat().st_size
        ]
        if len(answered) >= experiments:
            return answered[0]
        assert not ended, process.stderr and process.stderr.read()
        time.sleep(0.02)


def _status(root: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", "from sah.cli.main import main; main()", "status", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _processes_with(mark: str) -> Iterator[int]:
    """Yield the living processes with a variable in their environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if mark.encode() in environment and state != "Z":
            yield int(folder.name)
