"""A claim file with a heartbeat: at most one process works on an experiment."""

import logging
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from sah.errors import Busy
from sah.results.files import write_json

logger = logging.getLogger(__name__)

CLAIM_NAME = ".claim"
_BEGUN_BY = ".begun_by"
HEARTBEAT_SECONDS = 45.0
# On another host only the heartbeat shows whether the owner is alive, and a shared file system
# may show it late.
STALE_SECONDS = 180.0


class Claim:
    """A claim on an experiment's directory, held while a process works in it.

    The claim of a dead owner is taken over. An owner on this host is dead if its process no longer
    exists; an owner elsewhere, or in a container with its own process ids, if there was no
    heartbeat for STALE_SECONDS. An owner that lost its claim while alive, for instance because its
    machine was suspended, notices at its next `check`.
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
            Busy: if a live process holds it.
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
        """Check that this process still holds the claim.

        Raises:
            Busy: if another process took it over, or the directory no longer exists; writing on
                would mix the answers of two processes, or leave only some of them.
        """
        if not self.is_held():
            if not self.path.parent.exists():
                raise Busy(
                    f"{self.path.parent} no longer exists: it was removed or renamed while this "
                    "process worked in it; restore it to resume, or run again to start over"
                )
            raise Busy(f"{self.path.parent} was taken over by another process; stopping this one")

    def note_examples(self, examples: int) -> None:
        """Write the number of the experiment's examples into the claim, for `sah status`.

        Raises:
            Busy: if the claim was lost.
        """
        self.check()
        self._content["examples"] = examples
        os.replace(self._write_aside(), self.path)

    def _create(self) -> bool:
        # Written to another file and linked, so that a partial claim is never read.
        unlinked = self._write_aside()
        try:
            os.link(unlinked, self.path)
        except FileExistsError:
            # NFS repeats a request whose reply was lost, and may then find its own link.
            return self._holder().get("token") == self.token
        finally:
            unlinked.unlink(missing_ok=True)
        return True

    def _write_aside(self) -> Path:
        aside = self.path.with_name(f"{CLAIM_NAME}.{self.token}")
        try:
            aside.write_bytes(orjson.dumps(self._content))
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        return aside

    def _remove_if_dead(self) -> None:
        holder = self._holder()
        # A crashed machine may leave an empty file: an owner without a host, dead once it is stale.
        if not holder and not self.path.exists():
            return
        age = self._seconds_since_heartbeat()
        if not _is_dead(holder, age):
            raise Busy(
                f"{self.path.parent} is being computed by process {holder.get('pid')} on "
                f"{holder.get('host')} (last heartbeat {age:.0f} s ago); wait for it, or stop it"
            )
        logger.info("taking over %s from a dead process", self.path.parent)
        # Renamed first, so that only one of several processes wins, then read again: a claim that
        # was renewed in between is put back.
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
        # Compared with a file touched now on the same file system, since hosts' clocks differ.
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
            # A single failure of the file system must not end the heartbeat.
            except OSError as error:
                logger.warning("no heartbeat on %s: %s", self.path, error)


@dataclass(frozen=True, kw_only=True)
class ClaimView:
    """The owner of an experiment, as other processes see it."""

    host: str
    pid: int
    job: str | None
    """SLURM job id; None outside SLURM."""
    device: str | None
    """CUDA_VISIBLE_DEVICES of the process."""
    since: float
    """Seconds since the epoch, by the owner's clock."""
    examples: int | None
    """Number of the experiment's examples; None while unknown."""
    alive: bool


def read_claim(directory: Path) -> ClaimView | None:
    """Read the claim on an experiment; None if it is not claimed."""
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
        # Process ids are reused, so the start time has to match too.
        return start is None or start != holder.get("process_start")
    return heartbeat_age > STALE_SECONDS


def began_before_requeue(directory: Path) -> bool:
    """Whether `note_job` was called by an earlier start of this SLURM job."""
    return _is_earlier_start_of_this_job(_read(directory / _BEGUN_BY))


def note_job(directory: Path) -> None:
    """Note which start of which SLURM job began a directory's files, or resumed its own.

    With resume=false, that is what tells them from an old result when the job is requeued: call
    it once the old files are put aside. Without SLURM nothing is noted.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        (directory / _BEGUN_BY).unlink(missing_ok=True)
    else:
        start = {"job": job, "restart": os.environ.get("SLURM_RESTART_COUNT", "0")}
        write_json(directory / _BEGUN_BY, start)


def _is_earlier_start_of_this_job(holder: dict[str, Any]) -> bool:
    """Whether an earlier start of this job wrote this; SLURM requeues only ended jobs."""
    job = os.environ.get("SLURM_JOB_ID")
    restart = os.environ.get("SLURM_RESTART_COUNT", "0")
    return job is not None and holder.get("job") == job and holder.get("restart") != restart


def _process_start(pid: int) -> str | None:
    """Return the start time of a process in clock ticks; None if it is dead or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        exists = _exists(pid)
        # With hidepid, /proc hides the processes of other users.
        return _HIDDEN if exists and Path("/proc/self/stat").exists() else exists
    return None if fields[0] == "Z" else fields[19]


_HIDDEN = "hidden"


def _pid_namespace() -> str | None:
    """Return the PID namespace, which tells containers apart; None without /proc."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _exists(pid: int) -> str | None:
    """Return `exists` for an existing process: all that can be known without /proc (macOS)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "exists"
    return "exists"


def _read(path: Path) -> dict[str, Any]:
    try:
        value = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return value if isinstance(value, dict) else {}
