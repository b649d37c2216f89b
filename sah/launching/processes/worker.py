"""A process that runs bundles one after the other and keeps their model, and its handle."""

import atexit
import gc
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from sah.errors import Interrupted
from sah.launching.processes.supervisor import kill_group, supervise

_FREE = "free"
_EXIT = "exit"
_JOB = "job"


class Worker:
    """The handle of a worker, in the process that gives it bundles.

    The two talk over a socket, one JSON list a line: the worker is sent jobs, and answers when it
    is free for another one; its supervisor says when it begins, and how it ended.
    """

    def __init__(self, supervisor: int, channel: socket.socket) -> None:
        """Take charge of a worker that was forked.

        Args:
            supervisor: id of its supervisor's process.
            channel: this end of the socket.
        """
        self.supervisor = supervisor
        self.channel = channel
        self.exit_code: int | None = None
        """How it ended; None while it lives. -n where signal n killed it or its supervisor."""
        self.is_free = False
        """Whether it waits for another bundle."""
        self._job: int | None = None
        self._unread = b""
        channel.setblocking(False)

    def run(self, job: Path, log: Path | None) -> None:
        """Send it a bundle.

        Args:
            job: a pickled `BundleJob`.
            log: where its output goes; None leaves it where it is.
        """
        self.is_free = False
        # A worker that died a moment ago is noticed by `look`.
        with suppress(OSError):
            self.channel.sendall(_line(str(job), None if log is None else str(log)))

    def finish(self) -> None:
        """Let it end: there is no bundle left for it."""
        self.is_free = False
        with suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)

    def look(self) -> None:
        """Read what it has said; updates `is_free` and `exit_code`."""
        is_over = not _exists(self.supervisor)
        while True:
            try:
                read = self.channel.recv(2**16)
            except BlockingIOError:
                break
            except OSError:
                read = b""
            self._unread += read
            if not read:
                is_over = True
                break
        *lines, self._unread = self._unread.split(b"\n")
        for what, value in map(json.loads, lines):
            if what == _JOB:
                self._job = value
            elif what == _FREE:
                self.is_free = True
            else:
                self.exit_code, self._job = value, None
        if is_over and self.exit_code is None:
            self.exit_code = -signal.SIGKILL

    def stop(self) -> None:
        """Ask its supervisor to interrupt it, and to kill it after its time of grace."""
        if self.exit_code is None:
            with suppress(ProcessLookupError):
                os.kill(self.supervisor, signal.SIGTERM)

    def end(self) -> None:
        """Kill what is left of it."""
        if self._job is not None:
            kill_group(self._job)
        self.channel.close()


def wait_for(workers: Sequence[Worker], seconds: float) -> None:
    """Wait until one of some workers says something, or for this long."""
    select.select([worker.channel for worker in workers], [], [], seconds)


def fork_worker(
    channel: socket.socket,
    environment: Mapping[str, str],
    *,
    keeps_model: bool,
    grace_seconds: float,
    closes: Sequence[socket.socket] = (),
) -> int:
    """Fork a worker under a supervisor; return the supervisor's process id.

    Args:
        channel: the worker's end of the socket.
        environment: changes to the environment, made before anything touches a device.
        keeps_model: whether it runs more than one bundle.
        grace_seconds: how long it may take to end when it is stopped.
        closes: sockets of this process, which the worker must not hold.
    """
    parent = os.getpid()
    supervisor = os.fork()
    if supervisor:
        return supervisor
    for one in closes:
        one.close()

    def report(job: int, status: int | None) -> None:
        # The sweep may have died.
        with suppress(OSError):
            channel.sendall(_line(_JOB, job) if status is None else _line(_EXIT, status))

    def work() -> None:
        os.environ.update(environment)
        _end_after(lambda: _serve(channel, keeps_model=keeps_model))

    supervise(work, report, parent=parent, grace_seconds=grace_seconds)


def _end_after(work: Callable[[], None]) -> NoReturn:
    """Work, then end this process as Python would, but without unwinding what was forked."""
    status = 1
    try:
        work()
        status = 0
    except (Interrupted, KeyboardInterrupt) as error:
        status = 128 + (error.signum if isinstance(error, Interrupted) else signal.SIGINT)
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    finally:
        try:
            if sys.exc_info()[0] is not None:
                traceback.print_exc()
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def _serve(channel: socket.socket, *, keeps_model: bool) -> None:
    """Run the bundles that are sent, until there are none or one leaves the process unclean."""
    from submitit.core.utils import pickle_load

    from sah.launching.processes.bundle_job import BundleJob, clean_process
    from sah.models.loading.kept_model import KeptModel, free_memory

    models = KeptModel()
    for line in channel.makefile("rb"):
        path, log = json.loads(line)
        if log is not None:
            _write_to(log)
        job: BundleJob = pickle_load(path)
        with clean_process():
            all_done = job(models)
        del job
        # What has failed once may have left anything behind.
        if not keeps_model or not all_done or _has_children():
            return
        free_memory()
        channel.sendall(_line(_FREE, None))


def _write_to(log: str) -> None:
    """Send output to the end of a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.close(file)


def _has_children() -> bool:
    """Whether this process has left children, such as data loaders."""
    gc.collect()
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, PermissionError):
        # Another user's process may have the id by now.
        return False
    return True


def _line(*values: object) -> bytes:
    return json.dumps(values).encode() + b"\n"
