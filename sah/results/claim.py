"""A claim file with a heartbeat: at most one process works on an experiment."""

import logging
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Self

import msgspec
import orjson

from sah.errors import Busy
from sah.results.files import remove, write_json

logger = logging.getLogger(__name__)

CLAIM_NAME = ".claim"
_BEGUN_BY = ".begun_by"
HEARTBEAT_SECONDS = 45.0
# On another host only the heartbeat shows whether the owner is alive, and a shared file system
# may show it late.
STALE_SECONDS = 180.0


@dataclass(frozen=True, kw_only=True)
class _Holder:
    """The content of a claim file; all None where it cannot be read."""

    token: str | None = None
    host: str | None = None
    pid: Annotated[int, msgspec.Meta(ge=1, lt=2**31)] | None = None
    pid_namespace: str | None = None
    process_start: str | None = None
    since: float | None = None
    device: str | None = None
    job: str | None = None
    restart: str | None = None
    examples: int | None = None
    answered: int = 0


class Claim:
    """A claim on an experiment's directory, held while a process works in it.

    The claim of a dead owner is taken over. An owner on this host is dead if its process no longer
    exists; an owner elsewhere, or in a container with its own process ids, if there was no
    heartbeat for STALE_SECONDS. An owner that lost its claim while alive, for instance because its
    machine was suspended, notices at its next `check`. A claim that cannot be read has an unknown
    owner, for whom the heartbeat decides too.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / CLAIM_NAME
        self.token = uuid.uuid4().hex
        self._content = _Holder(
            token=self.token,
            host=socket.gethostname(),
            pid=os.getpid(),
            pid_namespace=_pid_namespace(),
            process_start=_process_start(os.getpid()),
            since=time.time(),
            device=os.environ.get("CUDA_VISIBLE_DEVICES"),
            job=os.environ.get("SLURM_JOB_ID"),
            restart=os.environ.get("SLURM_RESTART_COUNT", "0"),
        )
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
        if self.is_held():
            self.path.unlink(missing_ok=True)

    def is_held(self) -> bool:
        """Whether this process still holds the claim."""
        return _read(self.path).token == self.token

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

    def note_examples(self, examples: int, answered: int = 0) -> None:
        """Write the number of the experiment's examples into the claim, for `sah status`.

        Args:
            examples: all of them.
            answered: those that an earlier process has answered.

        Raises:
            Busy: if the claim was lost.
        """
        self.check()
        self._content = replace(self._content, examples=examples, answered=answered)
        os.replace(self._write_aside(), self.path)

    def _create(self) -> bool:
        # Written to another file and linked, so that a partial claim is never read.
        unlinked = self._write_aside()
        try:
            os.link(unlinked, self.path)
        except FileExistsError:
            # NFS repeats a request whose reply was lost, and may then find its own link.
            return self.is_held()
        finally:
            unlinked.unlink(missing_ok=True)
        return True

    def _write_aside(self) -> Path:
        aside = self.path.with_name(f"{CLAIM_NAME}.{self.token}")
        try:
            aside.write_bytes(orjson.dumps(asdict(self._content)))
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        return aside

    def _remove_if_dead(self) -> None:
        holder, age = _read(self.path), _heartbeat_age(self.path)
        if age is None:
            return
        is_dead = _is_known_dead(holder)
        if not (_is_stale(age) if is_dead is None else is_dead):
            raise Busy(
                f"{self.path.parent} is being computed by {_process(holder.pid, holder.host)} "
                f"(last heartbeat {age:.0f} s ago); wait for it, or stop it"
            )
        logger.info("taking over %s from a dead process", self.path.parent)
        # Renamed first, so that only one of several processes wins, then read again: a claim that
        # was renewed in between is put back.
        tomb = self.path.with_name(f"{CLAIM_NAME}.{self.token}.tomb")
        try:
            os.rename(self.path, tomb)
        except FileNotFoundError:
            return
        if _read(tomb).token != holder.token:
            try:
                os.link(tomb, self.path)
            except FileExistsError:
                logger.warning("%s changed hands twice at once", self.path)
        remove(tomb)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                if not self.is_held():
                    return
                os.utime(self.path)
            # A single failure of the file system must not end the heartbeat.
            except OSError as error:
                logger.warning("no heartbeat on %s: %s", self.path, error)


@dataclass(frozen=True, kw_only=True)
class ClaimView:
    """The owner of an experiment, as other processes see it."""

    host: str | None
    """None if the claim cannot be read, like the process id."""
    pid: int | None
    job: str | None
    """SLURM job id; None outside SLURM."""
    device: str | None
    """CUDA_VISIBLE_DEVICES of the process."""
    since: float
    """Seconds since the epoch, by the owner's clock."""
    examples: int | None
    """Number of the experiment's examples; None while unknown."""
    answered: int = 0
    """Number of examples that earlier processes answered."""
    alive: bool

    @property
    def name(self) -> str:
        """The process, or its SLURM job, and its host."""
        if self.job is not None and self.host is not None:
            return f"job {self.job} on {self.host}"
        return _process(self.pid, self.host)


def read_claim(directory: Path) -> ClaimView | None:
    """Read the claim on an experiment; None if it is not claimed. Any content is read."""
    path = directory / CLAIM_NAME
    holder = _read(path)
    try:
        modified = path.lstat().st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return None
    is_dead = _is_known_dead(holder)
    if is_dead is None:
        is_dead = _is_stale(time.time() - modified)
        if is_dead:
            # Or this host's clock differs from that of the file system.
            age = _heartbeat_age(path)
            if age is None:
                return None
            is_dead = _is_stale(age)
    return ClaimView(
        host=holder.host,
        pid=holder.pid,
        job=holder.job,
        device=holder.device,
        since=modified if holder.since is None else holder.since,
        examples=holder.examples,
        answered=holder.answered,
        alive=not is_dead,
    )


def _heartbeat_age(path: Path) -> float | None:
    """Return the seconds since a claim's last heartbeat; None if there is no claim.

    Compared with a file touched now on the same file system, since hosts' clocks differ.
    """
    now = path.with_name(f"{path.name}.{uuid.uuid4().hex}.now")
    try:
        now.touch()
        present = now.stat().st_mtime
    except FileNotFoundError:
        # The directory is gone.
        return None
    except OSError:
        # A disk that can only be read.
        present = time.time()
    finally:
        with suppress(OSError):
            now.unlink(missing_ok=True)
    try:
        return present - path.lstat().st_mtime
    except FileNotFoundError:
        return None


def _is_stale(heartbeat_age: float) -> bool:
    # A date in the future is no sign of life either: some clock was wrong.
    return abs(heartbeat_age) > STALE_SECONDS


def _is_known_dead(holder: _Holder) -> bool | None:
    """Whether the owner's process is dead; None if only the heartbeat can tell."""
    if _is_earlier_start_of_this_job(holder):
        return True
    namespace = _pid_namespace()
    is_near = holder.pid_namespace in (None, namespace) and holder.host == socket.gethostname()
    if not is_near or holder.pid is None:
        return None
    start = _process_start(holder.pid)
    if start == _HIDDEN:
        return None
    # Process ids are reused, so the start time has to match too.
    return start is None or start != holder.process_start


def _process(pid: int | None, host: str | None) -> str:
    return "an unknown process" if pid is None or host is None else f"process {pid} on {host}"


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


def _is_earlier_start_of_this_job(holder: _Holder) -> bool:
    """Whether an earlier start of this job wrote this; SLURM requeues only ended jobs."""
    job = os.environ.get("SLURM_JOB_ID")
    restart = os.environ.get("SLURM_RESTART_COUNT", "0")
    return job is not None and holder.job == job and holder.restart != restart


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


def _read(path: Path) -> _Holder:
    """Read a claim; what cannot be read has an unknown holder. A crash may leave an empty file."""
    if not path.is_file():
        # Opening a pipe would wait for its other end.
        return _Holder()
    try:
        return msgspec.convert(orjson.loads(path.read_bytes()), _Holder)
    except (FileNotFoundError, orjson.JSONDecodeError, msgspec.ValidationError):
        return _Holder()
