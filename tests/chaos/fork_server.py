"""Runs sah in forks of a process that has imported everything: a run is a third of a second.

A program of its own, since a process with threads, as that of the tests may be, must not fork.
One JSON object a line: {"arguments", "arms", "folder", "log", "environment"} starts a run and is
answered with its process id, {"wait": id} with its exit status.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import hydra
import submitit
import tokenizers.trainers
from hydra import initialize_config_dir
from hydra.core.plugins import Plugins
from transformers import LlamaForCausalLM, LogitsProcessorList, PreTrainedTokenizerFast

import sah.benchmarks.jsonl
import sah.benchmarks.mock
import sah.execution.arm
import sah.execution.attempts
import sah.execution.run
import sah.models.tiny
import sah.results.show
from sah.cli.main import main as sah_main
from sah.errors import Interrupted
from sah.execution.attempts import compute_arms
from sah.paths import config_folder

IMPORTED = (
    *(submitit, tokenizers.trainers, LlamaForCausalLM, LogitsProcessorList),
    *(PreTrainedTokenizerFast, sah),
)
"""What a run would import when it needs it."""


def serve() -> None:
    # Imports all plugins there are.
    Plugins.instance()
    # Whoever starts tests in the background may have it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
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
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if request["arms"]:
        run_arms(request["arms"])
    else:
        sys.argv = [str(Path(__file__).parents[2] / "run.py"), *request["arguments"]]
        sah_main()


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
