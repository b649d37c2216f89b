"""The file of an arm's records: writes are buffered, and survive the end of the process."""

import atexit
import os
import signal
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import orjson
import torch
from torch import Tensor

from sah.results.files import append_whole

_JSON = orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY


class RecordFile:
    """Appends records to a file, in batches: by number, by time, at exit and on SIGTERM.

    Tensors stay on their device until they are written. Append from one thread at a time.
    """

    def __init__(
        self,
        path: Path,
        *,
        flush_every: int,
        flush_interval: float,
        may_write: Callable[[], bool] = lambda: True,
    ) -> None:
        """Create the folder; the file is created by the first write.

        Args:
            path: a JSON Lines file to append to.
            flush_every: number of pending records at which they are written.
            flush_interval: seconds after the first pending record at which they are written.
            may_write: called before each write; if it returns False, pending records are dropped.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._flush_every = flush_every
        self._flush_interval = flush_interval
        self._may_write = may_write
        # Reentrant, as a signal handler may flush while the main thread holds the lock.
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._queue: list[dict[str, Any]] = []
        _flush_at_end(self)

    def append(self, record: dict[str, Any]) -> None:
        """Queue a record; a tensor in `value` must not be changed in place afterwards."""
        with self._lock:
            self._queue.append(record)
            if len(self._queue) >= self._flush_every:
                self.flush()
            elif self._timer is None:
                self._timer = threading.Timer(self._flush_interval, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Copy pending values to the host together, and append their lines to the file."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._queue and not self._may_write():
                self._queue.clear()
            if not self._queue:
                return
            # Removed only after the write, so that an interrupted flush loses nothing.
            records = list(self._queue)
            _resolve_tensors(records)
            _resolve_heads(records)
            lines = b"".join(orjson.dumps(record, option=_JSON) for record in records)
            append_whole(self._path, lines)
            del self._queue[: len(records)]

    def close(self) -> None:
        """Drop records that could not be written; the file may later belong to another process."""
        with self._lock:
            self._queue.clear()


def _resolve_tensors(records: list[dict[str, Any]]) -> None:
    """Replace tensors by numbers or lists; the scalars of a device are copied together."""
    scalars: dict[tuple[torch.device, torch.dtype], list[dict[str, Any]]] = {}
    for record in records:
        value = record["value"]
        if isinstance(value, Tensor) and value.numel() == 1:
            scalars.setdefault((value.device, value.dtype), []).append(record)
        elif isinstance(value, Tensor):
            record["value"] = value.tolist()
    for group in scalars.values():
        values = torch.stack([record["value"].reshape(()) for record in group]).tolist()
        for record, value in zip(group, values, strict=True):
            record["value"] = value


def _resolve_heads(records: list[dict[str, Any]]) -> None:
    """Replace the values of heads by arrays, whose float32 digits are half as many as a list's."""
    groups: dict[tuple[torch.device, torch.Size], list[dict[str, Any]]] = {}
    for record in records:
        heads = record.get("heads")
        if isinstance(heads, Tensor):
            groups.setdefault((heads.device, heads.shape), []).append(record)
    for group in groups.values():
        values = torch.stack([record["heads"] for record in group]).float().cpu().numpy()
        for record, heads in zip(group, values, strict=True):
            record["heads"] = heads


_open_files: "weakref.WeakSet[RecordFile]" = weakref.WeakSet()


def _flush_at_end(record_file: RecordFile) -> None:
    """Flush at exit, and on SIGTERM unless it has another handler."""
    if not _open_files:
        atexit.register(_flush_open_files)
    _open_files.add(record_file)
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _flush_and_terminate)


def _flush_open_files() -> None:
    for record_file in list(_open_files):
        record_file.flush()


def _flush_and_terminate(signum: int, frame: FrameType | None) -> None:
    _flush_open_files()
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)
