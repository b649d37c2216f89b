"""hydra/launcher=local: one job per GPU (fake ones), failures as rows, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sah.results.claim import read_claim

ROOT = Path(__file__).resolve().parents[2]
TINY = ("model=tiny", "benchmark=mock")
# Long enough to be caught at work.
LONG = (
    "model=tiny",
    "benchmark=ruler",
    "benchmark.samples=40",
    "benchmark.context_tokens=800",
    "metric_logging=off",
)


def provenance(root: Path) -> list[dict[str, Any]]:
    return [
        json.loads(path.read_text())["provenance"]
        for path in sorted(root.glob("outputs/*/*/*/*/results.json"))
    ]


def intervals(root: Path) -> dict[str, list[tuple[datetime, datetime]]]:
    """When each device was at work."""
    found = defaultdict(list)
    for item in provenance(root):
        found[item["cuda_visible_devices"]].append(
            (datetime.fromisoformat(item["started"]), datetime.fromisoformat(item["finished"]))
        )
    return {device: sorted(times) for device, times in found.items()}


def summary(root: Path) -> dict[str, Any]:
    (path,) = root.glob("outputs/.sweeps/*/summary.json")
    return json.loads(path.read_text())


def test_every_gpu_has_one_job_at_a_time(run, tmp_path, fake_gpus):
    done = run("-m", *TINY, "seed=range(4)", "hydra.launcher.gpus=[1,3]", environment=fake_gpus)
    assert done.returncode == 0, done.stderr
    work = intervals(tmp_path)
    assert set(work) == {"1", "3"}
    assert sum(len(times) for times in work.values()) == 4
    for times in work.values():
        assert all(before[1] <= after[0] for before, after in pairwise(times))
    assert summary(tmp_path)["counts"] == {"done": 4}
    assert "4 done" in done.stderr


def test_arms_share_a_job_as_long_as_every_gpu_has_one(run, tmp_path, fake_gpus):
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


def test_an_arm_that_fails_is_a_row_of_its_own(run, tmp_path, result_folders):
    # The tiny model has no layer 9, which is known once the model is there.
    matrix = ("-m", *TINY, "attention=sparse,streaming_llm", "sparse_attention.dense_layers=[],[9]")
    done = run(*matrix)
    assert done.returncode == 1
    assert "1 jobs for 4 experiments" in done.stderr
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
    assert "2 finished already, 0 the same as another, 2 to run" in again.stderr


def test_without_bundles_every_cell_has_a_job(run):
    done = run("-m", *TINY, "attention=dense,sparse", "bundle=none")
    assert done.returncode == 0, done.stderr
    assert "2 jobs, 1 at a time" in done.stderr
    assert "separately" not in done.stderr


def _answered(folder):
    predictions = folder / "predictions.jsonl"
    return predictions.exists() and predictions.stat().st_size > 0


def test_killed_bundle_is_one_row_for_each_arm_and_goes_on(run, tmp_path, result_folders):
    matrix = (*LONG, "attention=sparse,streaming_llm")
    process = _start(tmp_path, *matrix)
    folder = _first_running(tmp_path)
    during = _status(tmp_path)
    assert [row["state"] for row in during] == ["running", "running"]
    end = time.monotonic() + 60
    while not all(_answered(path) for path in tmp_path.glob("outputs/tiny/*/*/*")):
        assert time.monotonic() < end
        time.sleep(0.01)
    os.kill(read_claim(folder).pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 1, errors
    assert summary(tmp_path)["counts"] == {"failed": 2}
    for path in tmp_path.glob("outputs/*/*/*/*/error.json"):
        assert json.loads(path.read_text())["category"] == "memory"

    again = run("-m", *matrix)
    assert again.returncode == 0, again.stderr
    assert len(result_folders()) == 2
    for done in result_folders():
        assert "already answered" in (done / "run.log").read_text()


def test_job_sees_the_devices_of_its_slot(run, tmp_path, fake_gpus):
    done = run(
        "-m",
        *TINY,
        "hydra.launcher.gpus=[2,MIG-42]",
        "hydra.launcher.gpus_per_job=2",
        environment=fake_gpus,
    )
    assert done.returncode == 0, done.stderr
    assert [item["cuda_visible_devices"] for item in provenance(tmp_path)] == ["2,MIG-42"]


def test_gpu_that_cannot_be_used_is_refused_before_anything_runs(run, tmp_path, fake_gpus):
    done = run("-m", *TINY, "hydra.launcher.gpus=[7]", environment=fake_gpus)
    assert done.returncode == 1
    assert "no GPU '7'" in done.stderr
    assert "0: Fake GPU (GPU-0abc, 78.1 GiB free)" in done.stderr
    assert "Traceback" not in done.stderr
    assert not provenance(tmp_path)


def test_killed_cell_becomes_a_row_and_the_others_finish(run, tmp_path, result_folders):
    process = _start(tmp_path, *LONG, "seed=1,2", "hydra.launcher.cpu_workers=2")
    folder = _first_running(tmp_path)
    os.kill(read_claim(folder).pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 1, errors
    assert len(result_folders()) == 1
    error = json.loads((folder / "error.json").read_text())
    assert error["category"] == "memory"
    assert "SIGKILL" in error["message"]
    assert "1 of 2 experiments failed" in errors
    assert "rerun only those" in errors
    assert summary(tmp_path)["counts"] == {"failed": 1, "done": 1}

    again = run("-m", *LONG, "seed=1,2")
    assert again.returncode == 0, again.stderr
    assert "1 finished already" in again.stderr
    assert len(result_folders()) == 2
    assert not (folder / "error.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_stopped_sweep_leaves_no_process(number, tmp_path):
    mark = f"SAH_TEST_{uuid.uuid4().hex}"
    process = _start(tmp_path, *LONG, "seed=1,2", environment={mark: "1"})
    _first_running(tmp_path)
    assert len(list(_processes_with(mark))) == 3, "the sweep, a supervisor, its job"
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    end = time.monotonic() + 30
    while list(_processes_with(mark)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not list(_processes_with(mark))


def test_queued_cell_runs_as_it_was_composed(tmp_path, result_folders):
    group = tmp_path / "own" / "benchmark"
    group.mkdir(parents=True)
    slow = "_target_: sah.benchmarks.ruler.Ruler\nname: slow\nsamples: 20\ncontext_tokens: 600\n"
    (group / "slow.yaml").write_text(slow + "subset: niah_single_1\n")
    process = _start(tmp_path, "--config-dir", "own", "model=tiny", "benchmark=slow", "seed=1,2")
    _first_running(tmp_path)
    (group / "slow.yaml").write_text(slow + "subset: niah_single_2\n")
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert len(result_folders()) == 2
    for folder in result_folders():
        assert json.loads((folder / "results.json").read_text())["subset"] == "niah_single_1"


def test_time_limit_of_the_launcher_keeps_what_was_answered(run, tmp_path):
    done = run("-m", *LONG, "benchmark.samples=400", "hydra.launcher.timeout_min=0.25")
    assert done.returncode == 1
    (path,) = tmp_path.glob("outputs/*/*/*/*/error.json")
    assert json.loads(path.read_text())["category"] == "timeout"
    assert (path.parent / "predictions.jsonl").read_text().count("\n") > 0


def test_status_tells_running_failed_and_done_from_the_files(tmp_path):
    process = _start(tmp_path, *LONG, "seed=1,2", "hydra.launcher.cpu_workers=1")
    folder = _first_running(tmp_path)
    during = _status(tmp_path)
    assert [row["state"] for row in during] == ["running", "waiting"]
    assert during[0]["examples"] == 40
    os.kill(read_claim(folder).pid, signal.SIGKILL)
    process.communicate(timeout=200)
    after = [row["state"] for row in _status(tmp_path)]
    assert after in (["dead", "done"], ["failed", "done"])


def _start(
    folder: Path, *arguments: str, environment: dict[str, str] | None = None
) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), "-m", *arguments],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _first_running(root: Path) -> Path:
    """The first experiment that has answered something."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        for path in root.glob("outputs/*/*/*/*/predictions.jsonl"):
            if read_claim(path.parent) is not None and path.stat().st_size:
                return path.parent
        time.sleep(0.02)
    raise TimeoutError("no experiment started")


def _status(root: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", "from sah.cli.main import main; main()", "status", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _processes_with(mark: str) -> Iterator[int]:
    """Living processes that have a variable in their environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if mark.encode() in environment and state != "Z":
            yield int(folder.name)
