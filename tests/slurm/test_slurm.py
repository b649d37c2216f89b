"""hydra/launcher=slurm on a real SLURM: placement, failures, preemption, time limits."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slurm

ROOT = Path(__file__).resolve().parents[2]
SLURM = ("-m", "hydra/launcher=slurm", "hydra.launcher.poll_seconds=1")
TINY = ("model=tiny", "benchmark=mock")
# Long enough to be interrupted in the middle.
LONG = (
    "model=tiny",
    "benchmark=ruler",
    "benchmark.samples=80",
    "benchmark.context_tokens=800",
    "metric_logging=off",
    "generation.batch_rows=1",
)


@pytest.fixture
def sweep(cluster, tmp_path) -> Callable[..., "subprocess.Popen[str]"]:
    """Start run.py on the cluster, with results below tmp_path / "outputs"."""

    def start(*arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), *SLURM, *arguments],
            cwd=tmp_path,
            env=cluster.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> list[dict[str, Any]]:
    """The answers of the long experiment, computed without SLURM."""
    folder = tmp_path_factory.mktemp("undisturbed")
    subprocess.run([sys.executable, str(ROOT / "run.py"), *LONG], cwd=folder, check=True)
    (results,) = folder.glob("outputs/*/*/*/*/results.json")
    return answers(results.parent)


def test_every_gpu_has_one_job_at_a_time_and_a_rerun_submits_nothing(sweep, cluster, tmp_path):
    matrix = (*TINY, "attention=dense,sparse,streaming_llm", "seed=1,2", "bundle=none")
    process = sweep(*matrix)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "6 done" in output
    runs = [
        json.loads(path.read_text())["provenance"]
        for path in tmp_path.glob("outputs/*/*/*/*/results.json")
    ]
    assert len(runs) == 6
    assert {run["cuda_visible_devices"] for run in runs} <= {"0", "1", "2", "3"}
    assert len({run["slurm_job"] for run in runs}) == 6
    times = [(at(run["started"]), at(run["finished"]), run) for run in runs]
    for start, _, run in times:
        beside = [other for begin, end, other in times if begin <= start < end]
        assert len(beside) <= 4
        assert len({other["cuda_visible_devices"] for other in beside}) == len(beside), run
    before = cluster.jobs()
    again = sweep(*matrix)
    output, _ = again.communicate()
    assert again.returncode == 0, output
    assert "6 finished already" in output
    assert cluster.jobs() == before


def test_arms_share_jobs_once_every_gpu_has_one(sweep, cluster, tmp_path):
    matrix = (*TINY, "attention=dense,sparse,streaming_llm,oracle_top_k", "seed=1,2")
    process = sweep(*matrix)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "8 done" in output
    assert "4 jobs submitted for 8 experiments" in output, (
        "two seeds, each halved for four free GPUs"
    )
    assert "separately it would have taken" in output
    jobs: dict[tuple[str, int], set[str]] = {}
    for path in tmp_path.glob("outputs/*/*/*/*/results.json"):
        results = json.loads(path.read_text())
        typed = (path.parent / "overrides.yaml").read_text()
        assert f"attention={results['attention']}" in typed
        job = (results["provenance"]["slurm_job"], 1 if "seed=1" in typed else 2)
        jobs.setdefault(job, set()).add(results["attention"])
    assert sorted(map(sorted, jobs.values())) == sorted(
        [["dense", "sparse"], ["oracle_top_k", "streaming_llm"]] * 2
    )


def test_a_job_runs_bundles_of_one_model_one_after_the_other(sweep, cluster, tmp_path):
    matrix = (*TINY, "attention=dense", "seed=1,2,3", "model.weight_seed=0,1")
    process = sweep(*matrix, "hydra.launcher.bundles_per_job=2")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "6 done" in output
    assert "4 jobs submitted for 6 experiments, which share models" in output
    jobs: dict[str, list[int]] = {}
    for path in tmp_path.glob("outputs/*/*/*/*/results.json"):
        result = json.loads(path.read_text())
        models = jobs.setdefault(result["provenance"]["slurm_job"], [])
        models.append(result["config"]["model"]["weight_seed"])
    assert sorted(jobs.values()) == [[0], [0, 0], [1], [1, 1]]


def test_requeued_bundle_goes_on_with_every_arm(sweep, cluster, tmp_path, undisturbed):
    process = sweep(*LONG, "attention=sparse,streaming_llm", "hydra.launcher.max_concurrent=1")
    job, _ = wait_for_work(process, cluster, tmp_path, answered=3)
    rows = status(tmp_path)
    assert [row["state"] for row in rows] == ["running", "running"]
    cluster.ask("scontrol", "requeue", job)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    (folder,) = tmp_path.glob("outputs/*/sparse/*/*")
    assert answers(folder) == undisturbed
    for log in tmp_path.glob("outputs/*/*/*/*/run.log"):
        assert "already answered" in log.read_text()


def test_cancelled_job_is_an_interrupted_row_and_the_others_finish(sweep, cluster, tmp_path):
    process = sweep(*LONG, "seed=1,2,3", "hydra.launcher.max_concurrent=3")
    job, folder = wait_for_work(process, cluster, tmp_path)
    cluster.ask("scancel", job)
    output, _ = process.communicate()
    assert process.returncode == 1, output
    assert "1 of 3 experiments interrupted" in output
    assert len(list(tmp_path.glob("outputs/*/*/*/*/results.json"))) == 2
    error = json.loads((folder / "error.json").read_text())
    assert error["category"] == "interrupt"
    assert "CANCELLED" in error["message"]


@pytest.mark.parametrize("how", ["requeue", "preemption"])
def test_requeued_job_goes_on_at_the_next_example(sweep, cluster, tmp_path, undisturbed, how):
    process = sweep(*LONG, "hydra.launcher.signal_delay_s=10", "hydra.launcher.timeout_min=60")
    job, folder = wait_for_work(process, cluster, tmp_path, answered=3)
    if how == "requeue":
        cluster.ask("scontrol", "requeue", job)
    else:
        urgent = [
            "sbatch",
            "-p",
            "high",
            "--exclusive",
            "-t",
            "1",
            "-o",
            "/dev/null",
            "--wrap",
            "sleep 3",
        ]
        assert cluster.ask(*urgent)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert answers(folder) == undisturbed
    log = (folder / "run.log").read_text()
    assert "already answered" in log


def test_time_limit_requeues_and_goes_on(sweep, cluster, tmp_path):
    process = sweep(
        *LONG,
        "benchmark.samples=1500",
        "hydra.launcher.timeout_min=1",
        "hydra.launcher.signal_delay_s=10",
    )
    _, folder = wait_for_work(process, cluster, tmp_path)
    while "already answered" not in (folder / "run.log").read_text():
        assert process.poll() is None
        time.sleep(1)
    process.terminate()
    output, _ = process.communicate()
    assert process.returncode == 143, output
    assert "1 interrupted" in output
    ids = [answer["example_id"] for answer in answers(folder)]
    assert len(ids) == len(set(ids)) > 3


def test_detached_sweep_is_followed_by_status(sweep, cluster, tmp_path):
    process = sweep(*TINY, "seed=7,8", "hydra.launcher.detach=true")
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert "sah status" in output
    states = {"waiting", "running", "interrupted", "done"}
    assert {row["state"] for row in status(tmp_path)} <= states
    while (states := [row["state"] for row in status(tmp_path)]) != ["done", "done"]:
        assert "failed" not in states
        time.sleep(1)


def test_a_refusal_of_slurm_is_quoted(sweep):
    process = sweep(*TINY, "seed=9", "hydra.launcher.partition=nowhere")
    output, _ = process.communicate()
    assert process.returncode == 1
    assert "SLURM refuses the jobs" in output
    assert "partition" in output
    assert "Traceback" not in output


def test_dead_node_is_reported_and_not_waited_for(sweep, cluster, tmp_path):
    process = sweep(*LONG, "seed=4", "hydra.launcher.down_minutes=0.1")
    _, folder = wait_for_work(process, cluster, tmp_path)
    cluster.kill_node()
    try:
        output, _ = process.communicate()
        # The orphan of the node may still finish the experiment; then it counts as done.
        if process.returncode != 0:
            assert "1 of 1 experiments failed" in output
            assert (folder / "error.json").exists()
        else:
            assert (folder / "results.json").exists()
    finally:
        cluster.start_node()


def answers(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "predictions.jsonl").read_text().splitlines()
    return [
        {
            key: value
            for key, value in json.loads(line).items()
            if "seconds" not in key and key != "checksum"
        }
        for line in lines
    ]


def wait_for_work(
    process: "subprocess.Popen[str]", cluster: Any, root: Path, answered: int = 1
) -> tuple[str, Path]:
    """Wait for answers; return the id of a job that gave some and its directory."""
    while process.poll() is None:
        for path in root.glob("outputs/*/*/*/*/predictions.jsonl"):
            claim = path.parent / ".claim"
            if path.read_text().count("\n") >= answered and claim.exists():
                raw = json.loads(claim.read_text())["job"]
                listed = cluster.ask("squeue", "--array", "-h", "-o", "%A %i").splitlines()
                ids = {line.split()[0]: line.split()[1] for line in listed}
                if raw in ids:
                    return ids[raw], path.parent
        time.sleep(0.1)
    raise AssertionError(f"the sweep ended with {process.returncode} before a job answered")


def status(root: Path) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", "from sah.cli.main import main; main()", "status", "--json"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)
