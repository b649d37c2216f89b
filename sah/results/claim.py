"""One experiment, one process: a claim file with a heartbeat."""

import json
import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sah.errors import Busy

logger = logging.getLogger(__name__)

CLAIM_NAME = ".claim"
HEARTBEAT_SECONDS = 45.0
# On another host only the heartbeat tells whether the owner lives; shared file systems
# may show it late.
STALE_SECONDS = 180.0


class Claim:
    """Held while a process computes an experiment; taken over from a dead owner.

    An owner on this host is dead when its process is gone; an owner elsewhere, or in a container
    with process ids of its own, when its heartbeat stopped for STALE_SECONDS. An owner that lost
    its claim all the same (its machine slept, say) finds out at its next `check`.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / CLAIM_NAME
        self.token = uuid.uuid4().hex
        self._content: dict[str, Any] = {
            "token": self.token,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "pid_namespace": _pid_namespace(),
            "process_start": _process_start(os.getpid()),
            "since": time.time(),
            "device": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "job": os.environ.get("SLURM_JOB_ID"),
            "restart": os.environ.get("SLURM_RESTART_COUNT", "0"),
            "examples": None,
        }
        self._stop = threading.Event()
        self._heartbeat: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Take the claim.

        Raises:
            Busy: if a living process holds it.
        """
        while not self._create():
            self._remove_if_dead()
        self._heartbeat = threading.Thread(target=self._beat, daemon=True)
        self._heartbeat.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._holder().get("token") == self.token:
            self.path.unlink(missing_ok=True)

    def is_held(self) -> bool:
        """Whether this process still holds the claim."""
        return bool(self._holder().get("token") == self.token)

    def check(self) -> None:
        """Make sure that this process still holds the claim.

        Raises:
            Busy: if another one took it over, or the directory is gone; writing on would mix
                two runs, or leave half of one.
        """
        if not self.is_held():
            if not self.path.parent.exists():
                raise Busy(
                    f"{self.path.parent} is gone: it was removed or renamed while this process "
                    "worked in it; bring it back to go on with it, or run again to start over"
                )
            raise Busy(f"{self.path.parent} was taken over by another process; stopping this one")

    def note_examples(self, examples: int) -> None:
        """Tell those who look how many examples the experiment has.

        Raises:
            Busy: if the claim was lost.
        """
        self.check()
        self._content["examples"] = examples
        os.replace(self._write_aside(), self.path)

    def _create(self) -> bool:
        # Written aside and linked into place: a claim is never seen half-written.
        unlinked = self._write_aside()
        try:
            os.link(unlinked, self.path)
        except FileExistsError:
            # NFS repeats a request whose answer was lost, and may find the link it made.
            return self._holder().get("token") == self.token
        finally:
            unlinked.unlink(missing_ok=True)
        return True

    def _write_aside(self) -> Path:
        aside = self.path.with_name(f"{CLAIM_NAME}.{self.token}")
        try:
            aside.write_text(json.dumps(self._content))
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        return aside

    def _remove_if_dead(self) -> None:
        holder = self._holder()
        # A machine that crashed may leave an empty file: that is an owner without a host,
        # dead when it is old.
        if not holder and not self.path.exists():
            return
        age = self._seconds_since_heartbeat()
        if not _is_dead(holder, age):
            raise Busy(
                f"{self.path.parent} is being computed by process {holder.get('pid')} on "
                f"{holder.get('host')} (last sign of life {age:.0f} s ago); wait for it, or stop it"
            )
        logger.info("taking over %s from a process that is gone", self.path.parent)
        # Renamed first, so that of several takers one wins, and looked at again: a claim
        # that somebody renewed in between is put back.
        tomb = self.path.with_name(f"{CLAIM_NAME}.{self.token}.tomb")
        try:
            os.rename(self.path, tomb)
        except FileNotFoundError:
            return
        if _read(tomb).get("token") != holder.get("token"):
            try:
                os.link(tomb, self.path)
            except FileExistsError:
                logger.warning("%s changed hands twice at once", self.path)
        tomb.unlink(missing_ok=True)

    def _holder(self) -> dict[str, Any]:
        return _read(self.path)

    def _seconds_since_heartbeat(self) -> float:
        # Compared with a file touched now, on the same file system: hosts' clocks differ.
        now = self.path.with_name(f"{CLAIM_NAME}.{self.token}.now")
        try:
            now.touch()
            return now.stat().st_mtime - self.path.stat().st_mtime
        except FileNotFoundError:
            return 0.0
        finally:
            now.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                if self._holder().get("token") != self.token:
                    return
                os.utime(self.path)
            # A file system that does not answer once must not end the heartbeat.
            except OSError as error:
                logger.warning("no heartbeat on %s: %s", self.path, error)


@dataclass(frozen=True, kw_only=True)
class ClaimView:
    """Who computes an experiment, as others see it."""

    host: str
    pid: int
    job: str | None
    """SLURM's id of the job, if it is one."""
    device: str | None
    """CUDA_VISIBLE_DEVICES of the process."""
    since: float
    """Seconds since the epoch, by the owner's clock."""
    examples: int | None
    alive: bool


def read_claim(directory: Path) -> ClaimView | None:
    """Who computes this experiment; None if nobody claims it."""
    path = directory / CLAIM_NAME
    holder = _read(path)
    if not holder:
        return None
    try:
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None
    return ClaimView(
        host=str(holder.get("host")),
        pid=int(holder.get("pid", -1)),
        job=holder.get("job"),
        device=holder.get("device"),
        since=float(holder.get("since", 0.0)),
        examples=holder.get("examples"),
        alive=not _is_dead(holder, age),
    )


def _is_dead(holder: dict[str, Any], heartbeat_age: float) -> bool:
    if _is_earlier_start_of_this_job(holder):
        return True
    namespace = _pid_namespace()
    is_near = holder.get("pid_namespace", namespace) == namespace
    if is_near and holder.get("host") == socket.gethostname():
        start = _process_start(holder.get("pid", -1))
        if start == _HIDDEN:
            return heartbeat_age > STALE_SECONDS
        # A process id is used again sooner or later; its start time is not.
        return start is None or start != holder.get("process_start")
    return heartbeat_age > STALE_SECONDS


def _is_earlier_start_of_this_job(holder: dict[str, Any]) -> bool:
    """SLURM requeues a job, on whatever node, only when its last start is over."""
    job = os.environ.get("SLURM_JOB_ID")
    restart = os.environ.get("SLURM_RESTART_COUNT", "0")
    return job is not None and holder.get("job") == job and holder.get("restart") != restart


def _process_start(pid: int) -> str | None:
    """When a process of this host started, in clock ticks; None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        exists = _exists(pid)
        # /proc may show a user nobody else's processes (hidepid).
        return _HIDDEN if exists and Path("/proc/self/stat").exists() else exists
    return None if fields[0] == "Z" else fields[19]


_HIDDEN = "hidden"


def _pid_namespace() -> str | None:
    """Tells containers apart, whose process ids mean nothing to each other; None without /proc."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _exists(pid: int) -> str | None:
    """Without /proc (macOS), that the process exists is all that can be known."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "exists"
    return "exists"


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}
