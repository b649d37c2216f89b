"""Runs `run.py` in forks of a process that has imported everything, which saves 3 s a run.

A program of its own, because a process with threads, as that of the tests may be, must not fork.
Requests are JSON objects, one a line: {"program", "arguments", "arms", "folder", "output",
"errors", "environment", "cpu_seconds"} starts a run and is answered with its process id,
{"wait": id} with its exit status. The program is run.py, sah, or a Python file of a test.
"""

import gc
import json
import os
import resource
import runpy
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
from hydra import initialize_config_dir

import sah.benchmarks.jsonl
import sah.benchmarks.mock
import sah.cli.compare
import sah.cli.report
import sah.cli.rescore
import sah.cli.run
import sah.execution.arm
import sah.execution.run
import sah.models.tiny
import sah.report.html.page
import sah.report.statistics.comparison
import sah.report.tables.comparison_table
from sah.cli.main import main as sah_main
from sah.errors import Interrupted
from sah.execution import accounting
from sah.execution.attempts import compute_arms
from sah.launching.processes.fork_server import import_heavy
from sah.paths import config_folder

IMPORTED = (sah,)
"""What a run would import when it needs it, besides what jobs need."""

LIMITED_MEMORY_BYTES = 8 * 2**30


def serve() -> None:
    import_heavy()
    # A fork would collect what was imported when it ends, which takes 1.2 s.
    gc.collect()
    gc.freeze()
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if answer == 0:
                run(request)
                return
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def run(request: dict[str, Any]) -> None:
    os.chdir(request["folder"])
    os.environ.update(request["environment"])
    redirect(request["output"], request["errors"])
    if request["cpu_seconds"] is not None:
        limit(request["cpu_seconds"])
    if request["arms"]:
        run_arms(request["arms"])
    else:
        sys.argv = [request["program"], *request["arguments"]]
        # What an interpreter would have read at its start.
        folders = request["environment"].get("PYTHONPATH", "").split(os.pathsep)
        sys.path[:0] = [folder for folder in folders if folder]
        if Path(sys.argv[0]).name in ("run.py", "sah"):
            sah_main()
        else:
            sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
            runpy.run_path(sys.argv[0], run_name="__main__")


def redirect(output: str, errors: str) -> None:
    """Read from /dev/null and write to two files, or to one if they are the same."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for descriptor, path in ((1, output), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), descriptor)


def limit(cpu_seconds: int) -> None:
    """Limit CPU time and memory; `timeout_minutes` counts CPU time, the same on a busy machine."""
    resource.setrlimit(resource.RLIMIT_AS, (LIMITED_MEMORY_BYTES, LIMITED_MEMORY_BYTES))
    # A limit counts from the fork on.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    accounting.time = SimpleNamespace(monotonic=time.process_time)


def run_arms(arms: list[list[str]]) -> None:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        configs = [(hydra.compose("config", arm), arm) for arm in arms]
    try:
        outcomes = compute_arms(configs)
    except Interrupted as interruption:
        sys.exit(128 + interruption.signum)
    sys.exit(any(outcome.error is not None for outcome in outcomes))


if __name__ == "__main__":
    serve()
