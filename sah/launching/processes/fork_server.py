"""Workers are forked from a process that has imported what they need and touched no device.

A program of its own, `python -m sah.launching.processes.fork_server`, because a process with
threads, as that of a sweep may be, must not fork.
"""

import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from sah.launching.processes.worker import Worker, fork_worker

HEAVY = (
    "sah.execution.attempts",
    "sah.launching.processes.bundle_job",
    "sah.models.hub",
    "sah.models.loading.architecture",
    "sah.models.loading.weights",
    "sah.models.smollm2",
    "sah.models.tiny",
    "sah.results.show",
    "submitit",
    "tokenizers.trainers",
    "transformers.generation.logits_process",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.llama.modeling_llama",
    "transformers.tokenization_utils_tokenizers",
)
"""Modules that every job needs, most of them when it loads its model."""

_ASK_NVML = "PYTORCH_NVML_BASED_CUDA_CHECK"


class ForkServer:
    """The server, as a sweep sees it; it ends with the sweep, and so do its workers."""

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        """Prepare a server; it starts with the first worker.

        Args:
            log: for what it writes itself.
            environment: changes to the environment that imports read.
        """
        self._log = log
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            # Its workers, if there are any left, are interrupted by their supervisors.
            self._control.close()
            self._process.kill()
            self._process.wait()

    def start(
        self, environment: Mapping[str, str], *, keeps_model: bool, grace_seconds: float
    ) -> Worker:
        """Fork a worker; the first one waits for the imports.

        Args:
            environment: changes to the environment of the worker.
            keeps_model: whether it runs more than one bundle.
            grace_seconds: how long it may take to end when it is stopped.

        Raises:
            RuntimeError: if the server cannot start.
        """
        if self._process is None or self._process.poll() is not None:
            self._start()
        ours, its = socket.socketpair()
        request = {
            "environment": dict(environment),
            "keeps_model": keeps_model,
            "grace_seconds": grace_seconds,
        }
        with its:
            try:
                socket.send_fds(self._control, [json.dumps(request).encode()], [its.fileno()])
                answer = self._control.recv(32)
            except OSError:
                answer = b""
        if not answer:
            ours.close()
            raise RuntimeError(f"the process that jobs are forked from has ended; see {self._log}")
        return Worker(int(answer), ours)

    def _start(self) -> None:
        self._control, its = socket.socketpair()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with its, open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(its.fileno())],
                env={**os.environ, **self._environment},
                pass_fds=[its.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in a terminal is for the sweep, which stops its jobs in order.
                start_new_session=True,
            )


def import_heavy() -> None:
    """Import what jobs need; starts no thread and touches no device."""
    # A library that asks for GPUs when it is imported must not initialise CUDA, which a fork
    # cannot use again.
    before = os.environ.get(_ASK_NVML)
    os.environ[_ASK_NVML] = "1"
    for module in HEAVY:
        importlib.import_module(module)
    from hydra.core.plugins import Plugins

    # Imports all installed plugins.
    Plugins.instance()
    del os.environ[_ASK_NVML]
    if before is not None:
        os.environ[_ASK_NVML] = before


def main() -> None:
    """Fork a worker for every request, until the sweep has gone."""
    control = socket.socket(fileno=int(sys.argv[1]))
    # Held by the server alone, the sweep notices its end.
    os.register_at_fork(after_in_child=control.close)
    import_heavy()
    # A fork would otherwise collect, and so copy, all that was imported.
    gc.collect()
    gc.freeze()
    # Supervisors that have ended are not waited for.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        content, descriptors, _, _ = socket.recv_fds(control, 2**20, 1)
        if not content:
            return
        request = json.loads(content)
        # Closed here, kept in the worker.
        with socket.socket(fileno=descriptors[0]) as channel:
            supervisor = fork_worker(channel, **request)
        control.sendall(str(supervisor).encode())


if __name__ == "__main__":
    main()
