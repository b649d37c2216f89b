"""Compare split models of each type with whole ones: the list COMPARED of SplitPlan.

    python docs/figures/split_types.py            # all types, about three minutes
    python docs/figures/split_types.py llama      # print the difference of one

The second process is a fork of this one, which has imported everything already.
"""

import itertools
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "models")]

# ruff: noqa: E402 - the small models are those of the tests
from zoo import model_types, save_checkpoint

from sah.models.cache import RewindableCache
from sah.models.hub import HubModel
from sah.models.language_model import LanguageModel
from sah.models.tensor_parallel import other_process, others, plan

LIMIT = 1e-3
"""Largest difference of logits, relative to their spread, that rounding explains in float32."""

_CONTEXT, _QUESTION, _STEPS = 24, 6, 4


class _Fork:
    """The parts of a `Popen` that a split model uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode


def _forked(log: Path) -> tuple[_Fork, Connection]:
    here, there = Pipe()
    pid = os.fork()
    if pid == 0:
        here.close()
        output = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv[1:] = [str(os.dup(there.fileno()))]
        other_process.main()
    there.close()
    return _Fork(pid), here


@contextmanager
def _split(folder: Path) -> Iterator[LanguageModel]:
    with mock.patch.object(others, "_start", _forked):
        model = HubModel(name="split", name_or_path=str(folder), tensor_parallel=2).load()
    try:
        yield model
    finally:
        model.model.processes.close("it was compared")


@torch.inference_mode()
def _logits(model: LanguageModel) -> Tensor:
    """Return the logits of a context's end, a question's, and of single tokens."""
    tokens = _CONTEXT + _QUESTION + _STEPS
    ids = torch.randint(10, 300, (tokens,), generator=torch.Generator().manual_seed(1)).tolist()
    cache = RewindableCache(model.model.config, tokens)
    ends = [0, _CONTEXT, *range(_CONTEXT + _QUESTION, tokens + 1)]
    parts = [
        model.forward(ids[begin:end], cache, logits=min(4, end - begin))
        for begin, end in itertools.pairwise(ends)
    ]
    return torch.cat(parts, dim=1)


def difference(model_type: str, folder: Path) -> float:
    """Return the largest difference of logits, relative to their spread; writes a checkpoint."""
    save_checkpoint(model_type, folder)
    with _split(folder) as model:
        split = _logits(model)
    whole = _logits(HubModel(name="whole", name_or_path=str(folder)).load())
    return ((split - whole).abs().max() / whole.std()).item()


def main() -> None:
    """Compare the types that are named, or all of them."""
    plan.COMPARED = frozenset(model_types())
    equal = []
    for name in sys.argv[1:] or model_types():
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = difference(name, Path(folder))
            except Exception as error:  # noqa: BLE001 - whatever a type's code raises
                sys.stdout.write(f"{name} refused: {str(error).splitlines()[0]}\n")
                continue
        sys.stdout.write(f"{name} {found:.1e}\n")
        equal += [name] if found < LIMIT else []
    sys.stdout.write(f"equal: {' '.join(equal)}\n")


if __name__ == "__main__":
    main()
