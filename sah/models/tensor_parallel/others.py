"""The other processes of a split model: how they start, talk and end."""

import multiprocessing.connection
import os
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import distributed

from sah.errors import ModelLoadingError, SahError
from sah.models.tensor_parallel import messages
from sah.models.tensor_parallel.messages import Failed, Idle, Start, join_group
from sah.models.tensor_parallel.plan import SplitPlan

_PROGRAM = "sah.models.tensor_parallel.other_process"

# How long a process may take to exit after it has closed its connection.
_EXIT_SECONDS = 10.0


class ProcessEnded(SahError, RuntimeError):
    """A process of a split model has ended, and the model with it."""


class Others:
    """All processes of a split model but the first, which is this one."""

    def __init__(self, source: Any, plan: SplitPlan, device: torch.device) -> None:
        """Start the processes, which begin to load their parts, and join them in a group of torch.

        Args:
            source: of the model; its `load_part` loads a part.
            plan: how the model is split.
            device: cuda, of which the n-th process uses the n-th, or cpu.

        Raises:
            ModelLoadingError: if a process cannot start.
        """
        self.processes = plan.processes
        self._end_reason: str | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="sah-")
        self._started: list[tuple[subprocess.Popen[bytes], Connection]] = []
        folder = Path(self._folder.name)
        store = folder / "store"
        try:
            for rank in range(1, plan.processes):
                self._started.append(_start(folder / f"{rank}.log"))
                start = Start(source=source, plan=plan, device=device, rank=rank, store=store)
                messages.send(self._started[-1][1], start)
            # One that cannot even start would never join.
            self.await_idle()
            if device.type == "cuda":
                threading.Thread(target=_watch, args=(weakref.ref(self),), daemon=True).start()
            join_group(device, store=store, rank=0, processes=plan.processes)
        except BaseException:
            self.close("it could not be started")
            raise

    def await_idle(self) -> None:
        """Wait until each process has started, or has loaded its part.

        Raises:
            ModelLoadingError: if one of them cannot.
        """
        try:
            for rank in range(1, self.processes):
                self.receive(rank, Idle, timeout=None)
        except ProcessEnded as error:
            raise ModelLoadingError(str(error)) from error

    def close(self, reason: str) -> None:
        """End the other processes; the model cannot be used any more. The first reason counts."""
        if self._end_reason is not None:
            return
        self._end_reason = reason
        for process, connection in self._started:
            connection.close()
            process.kill()
        for process, _ in self._started:
            process.wait()
        if distributed.is_initialized():
            distributed.destroy_process_group()
        self._folder.cleanup()

    def send(self, message: object) -> None:
        """Send a message to every process.

        Raises:
            ProcessEnded, torch.OutOfMemoryError: if one has ended.
        """
        self.require_open()
        for rank, (_, connection) in enumerate(self._started, start=1):
            try:
                messages.send(connection, message)
            except OSError:
                self._fail(rank, self._last_words(rank))

    def receive(self, rank: int, kind: type[Any], timeout: float | None) -> Any:
        """Return the answer of a process.

        Raises:
            TimeoutError: if it has not answered in time.
            ProcessEnded, torch.OutOfMemoryError: if it has ended.
        """
        connection = self._started[rank - 1][1]
        if not connection.poll(None if timeout is None else max(0.0, timeout)):
            raise TimeoutError
        try:
            answer = messages.receive(connection)
        except (EOFError, OSError):
            self._fail(rank, None)
        if isinstance(answer, Failed):
            self._fail(rank, answer)
        assert isinstance(answer, kind), answer
        return answer

    def _last_words(self, rank: int) -> Failed | None:
        """Return why a process has ended, if it said so."""
        connection = self._started[rank - 1][1]
        with suppress(EOFError, OSError):
            while connection.poll():
                answer = messages.receive(connection)
                if isinstance(answer, Failed):
                    return answer
        return None

    def _fail(self, rank: int, failed: Failed | None) -> NoReturn:
        process = self._started[rank - 1][0]
        if failed is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_EXIT_SECONDS)
            code = process.returncode
            why = f"signal {-code}" if code and code < 0 else f"exit code {code}"
            reason = f"it ended with {why}{self._log_line(rank)}"
        else:
            reason = failed.text
        self.close(f"process {rank}: {reason}")
        message = (
            f"process {rank} of model.tensor_parallel={self.processes} failed: {reason}; run "
            "the command again to resume"
        )
        if failed is not None and failed.out_of_memory:
            raise torch.OutOfMemoryError(message)
        raise ProcessEnded(message)

    def _log_line(self, rank: int) -> str:
        with suppress(OSError):
            log = Path(self._folder.name, f"{rank}.log").read_text(errors="replace").strip()
            return f" ({log.splitlines()[-1]})" if log else ""
        return ""

    def require_open(self) -> None:
        """Check that the processes have not been ended.

        Raises:
            ProcessEnded: naming why they have.
        """
        if self._end_reason is not None:
            raise ProcessEnded(
                f"the {self.processes} processes of model.tensor_parallel have ended "
                f"({self._end_reason}); run the command again to resume"
            )

    def require_alive(self) -> None:
        """Check that every process is still running, so that what was received is right.

        Raises:
            ProcessEnded, torch.OutOfMemoryError: naming why one is not.
        """
        self.require_open()
        for rank, (process, _) in enumerate(self._started, start=1):
            if process.poll() is not None:
                self._fail(rank, self._last_words(rank))

    def has_lost_process(self) -> bool:
        """Whether a process has ended that should not have."""
        return any(process.poll() is not None for process, _ in self._started)

    @property
    def ids(self) -> list[int]:
        """The process ids of the others."""
        return [process.pid for process, _ in self._started]

    @property
    def is_closed(self) -> bool:
        """Whether the processes have ended."""
        return self._end_reason is not None


def _start(log: Path) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start a process; return it with the connection to it."""
    here, there = multiprocessing.connection.Pipe()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", _PROGRAM, str(there.fileno())],
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # The same code as here; and the last line of its log is to say why it ended.
            env={**os.environ, "PYTHONPATH": _path(), "TQDM_DISABLE": "1"},
            # Ctrl-C is for the first process, which ends the others.
            start_new_session=True,
        )
    there.close()
    return process, here


def _path() -> str:
    return os.pathsep.join(filter(None, sys.path))


def _watch(reference: "weakref.ref[Others]") -> None:
    while (others := reference()) is not None and not others.is_closed:
        if others.has_lost_process():
            # Ends the kernels that wait for it; the call in progress then finds that it has ended.
            distributed.distributed_c10d._abort_process_group()
            return
        del others
        time.sleep(1.0)
