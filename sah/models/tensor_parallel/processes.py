"""The processes of a model that is split by tensor parallelism, as the first one sees them.

The first process is that of the job. It runs the experiment as without a split: its attention has
all heads, and the cache is here alone. Each call of the model is told to the other processes,
which hold the other parts of the weights.
"""

import functools
import gc
import inspect
import logging
import multiprocessing.connection
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, distributed

from sah.errors import ConfigurationError, ModelLoadingError, SahError
from sah.models.tensor_parallel.messages import (
    Abort,
    CallModule,
    Failed,
    Forward,
    GatherWeight,
    Hidden,
    Idle,
    Output,
    SendHidden,
    Start,
    join_group,
    receive,
    send,
)
from sah.models.tensor_parallel.plan import SplitPlan

logger = logging.getLogger(__name__)

# How long the others may take to leave a forward pass that has failed here.
_ABORT_SECONDS = 10.0

# Of the cache and of attention, which only the first process has.
_NOT_SENT = frozenset({"attention_mask", "cache_position", "past_key_values", "use_cache"})


class ProcessEnded(SahError, RuntimeError):
    """A process of a split model has ended, and the model with it."""


class Processes:
    """Starts the other processes of a split model, and mirrors each call of the model there."""

    def __init__(self, source: Any, plan: SplitPlan, device: torch.device) -> None:
        """Start the processes, which begin to load their parts.

        Args:
            source: of the model; its `load_part` loads a part.
            plan: how the model is split.
            device: cuda, of which the n-th process uses the n-th, or cpu.

        Raises:
            ConfigurationError: if this process is part of a process group of torch already.
        """
        _close_unused()
        if distributed.is_initialized():
            raise ConfigurationError(
                f"model.tensor_parallel={plan.processes} starts its own processes, but this one "
                "is part of a process group of torch already; start it without torchrun"
            )
        self.plan = plan
        self.device = device
        self._end_reason: str | None = None
        self._in_forward = False
        self._called: set[str] = set()
        self._hidden: Tensor | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="sah-")
        self._others: list[tuple[subprocess.Popen[bytes], Connection]] = []
        folder = Path(self._folder.name)
        try:
            for rank in range(1, plan.processes):
                self._others.append(_started(folder / f"{rank}.log"))
                send(
                    self._others[-1][1],
                    Start(
                        source=source, plan=plan, device=device, rank=rank, store=folder / "store"
                    ),
                )
            self._watch_from_thread()
            join_group(device, store=folder / "store", rank=0, processes=plan.processes)
        except BaseException:
            self.close("it could not be started")
            raise
        _open.add(self)

    def attach(self, model: Any) -> None:
        """Wait until all parts are loaded, and mirror the calls of the model from here on.

        Raises:
            ModelLoadingError: if a process cannot load its part, or they compute different states.
        """
        try:
            for rank in range(1, self.plan.processes):
                self._receive(rank, Idle, timeout=None)
        except ProcessEnded as error:
            raise ModelLoadingError(str(error)) from error
        outputs = set(self.plan.outputs)
        for name, module in model.named_modules():
            if getattr(module, "_is_hooked", False):
                module.register_forward_pre_hook(functools.partial(self._before_module, name))
            if name in outputs:
                module.register_forward_pre_hook(self._send_output)
            if name in outputs and hasattr(module.weight, "full_tensor"):
                module.whole_weight = functools.partial(self._whole_weight, name, module)
        head = model.get_output_embeddings()
        head.register_forward_pre_hook(self._remember_hidden)
        model.forward = self._mirrored(model.forward)
        model.processes = self
        # A model that is dropped ends its processes.
        weakref.finalize(model, self.close, "the model was dropped")
        self._require_equal_states(model)
        logger.info(
            "the weights are split over %d processes; attention and cache are in the first",
            self.plan.processes,
        )

    def close(self, reason: str) -> None:
        """End the other processes; the model cannot be used any more. The first reason counts."""
        if self._end_reason is not None:
            return
        self._end_reason = reason
        for process, connection in self._others:
            connection.close()
            process.kill()
        for process, _ in self._others:
            process.wait()
        if distributed.is_initialized():
            distributed.destroy_process_group()
        self._folder.cleanup()

    # -- forward passes ----------------------------------------------------------------------

    def _mirrored(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        parameters = list(inspect.signature(forward).parameters)

        @functools.wraps(forward)
        def mirrored(*args: Any, **kwargs: Any) -> Any:
            named = dict(zip(parameters, args, strict=False)) | kwargs
            self._require_inference()
            sent = {
                name: value.cpu() if isinstance(value, Tensor) else value
                for name, value in named.items()
                if name not in _NOT_SENT
            }
            self._send(Forward(arguments=sent))
            with self._recovering():
                return forward(**named)

        return mirrored

    @contextmanager
    def _recovering(self) -> Iterator[None]:
        """Compute what the others compute, too; after an error they leave it or are ended."""
        self._in_forward = True
        try:
            yield
            if self.device.type == "cuda":
                # A process that ends leaves wrong values behind: they must not be returned.
                torch.cuda.synchronize(self.device)
        except Exception as error:
            self._abort(error)
            raise
        except BaseException:
            self.close("interrupted")
            raise
        finally:
            self._in_forward = False
            self._called.clear()
        self._require_open()

    def _abort(self, error: Exception) -> None:
        """Let the others leave the present forward pass.

        Raises:
            ProcessEnded: if one of them has ended, which is why it failed here.
        """
        deadline = time.monotonic() + _ABORT_SECONDS
        try:
            self._send(Abort())
            for rank in range(1, self.plan.processes):
                self._receive(rank, Idle, timeout=deadline - time.monotonic())
        except TimeoutError:
            # It waits in the midst of a collective operation for this process.
            self.close(f"a forward pass failed: {error}")
        except (ProcessEnded, torch.OutOfMemoryError) as reason:
            raise reason from error

    def _send_output(self, module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        if self._in_forward:
            self._broadcast(Output, arguments[0])

    def _broadcast(self, kind: Callable[..., object], states: Tensor, **about: Any) -> None:
        self._send(kind(shape=tuple(states.shape), dtype=states.dtype, **about))
        distributed.broadcast(states.contiguous(), src=0)

    def _before_module(
        self, name: str, module: torch.nn.Module, arguments: tuple[Any, ...]
    ) -> None:
        """Mirror a call of a single module, such as a projection that an evictor repeats."""
        if not self._in_forward:
            self._require_inference()
            self._broadcast(CallModule, arguments[0], name=name)
        elif name in self._called:
            raise ConfigurationError(
                f"model.tensor_parallel={self.plan.processes}: {name} is called twice in one "
                "forward pass, which the other processes would not do; set "
                "model.tensor_parallel=1, or choose another attention"
            )
        else:
            self._called.add(name)

    def _whole_weight(self, name: str, module: torch.nn.Module) -> Tensor:
        if self._in_forward:
            raise ConfigurationError(
                f"model.tensor_parallel={self.plan.processes}: the weight of {name} cannot be "
                "gathered in the midst of a forward pass; set model.tensor_parallel=1, or choose "
                "another attention"
            )
        self._send(GatherWeight(name=name))
        weight: Any = module.weight
        whole: Tensor = weight.full_tensor()
        return whole

    def _remember_hidden(self, module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        self._hidden = arguments[0]

    @torch.inference_mode()
    def _require_equal_states(self, model: Any) -> None:
        """Check on a few tokens that all processes compute the same, with a cache only here."""
        from transformers import DynamicCache

        cache = DynamicCache(config=model.config)
        for begin, end in ((1, 9), (9, 10)):
            ids = torch.arange(begin, end, device=self.device)[None]
            model(input_ids=ids, position_ids=ids - 1, past_key_values=cache, use_cache=True)
            assert self._hidden is not None, "the output layer was called"
            self._send(SendHidden())
            for rank in range(1, self.plan.processes):
                states = self._receive(rank, Hidden, timeout=None).states
                if not torch.equal(states, self._hidden.cpu()):
                    self.close("its states differ")
                    raise ModelLoadingError(
                        f"model.tensor_parallel={self.plan.processes}: process {rank} computes "
                        "other hidden states than process 0, so that this model has states beside "
                        "its attention, or the GPUs are not of one kind; set "
                        "model.tensor_parallel=1, or use GPUs of one kind"
                    )

    # -- messages ----------------------------------------------------------------------------

    def _send(self, message: object) -> None:
        self._require_open()
        for rank, (_, connection) in enumerate(self._others, start=1):
            try:
                send(connection, message)
            except OSError:
                self._fail(rank, self._last_words(rank))

    def _receive(self, rank: int, kind: type[Any], timeout: float | None) -> Any:
        """Return the answer of a process.

        Raises:
            TimeoutError: if it has not answered in time.
            ProcessEnded, torch.OutOfMemoryError: if it has ended.
        """
        connection = self._others[rank - 1][1]
        if not connection.poll(None if timeout is None else max(0.0, timeout)):
            raise TimeoutError
        try:
            answer = receive(connection)
        except (EOFError, OSError):
            self._fail(rank, None)
        if isinstance(answer, Failed):
            self._fail(rank, answer)
        assert isinstance(answer, kind), answer
        return answer

    def _last_words(self, rank: int) -> Failed | None:
        """Return why a process has ended, if it said so."""
        connection = self._others[rank - 1][1]
        with suppress(EOFError, OSError):
            while connection.poll():
                answer = receive(connection)
                if isinstance(answer, Failed):
                    return answer
        return None

    def _fail(self, rank: int, failed: Failed | None) -> NoReturn:
        process = self._others[rank - 1][0]
        if failed is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=_ABORT_SECONDS)
            code = process.returncode
            why = f"signal {-code}" if code and code < 0 else f"exit code {code}"
            reason = f"it ended with {why}{self._log_line(rank)}"
        else:
            reason = failed.text
        self.close(f"process {rank}: {reason}")
        message = (
            f"process {rank} of model.tensor_parallel={self.plan.processes} failed: {reason}; run "
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

    def _require_open(self) -> None:
        if self._end_reason is not None:
            raise ProcessEnded(
                f"the {self.plan.processes} processes of model.tensor_parallel have ended "
                f"({self._end_reason}); run the command again to resume"
            )

    def _require_inference(self) -> None:
        self._require_open()
        if torch.is_grad_enabled():
            raise ConfigurationError(
                f"model.tensor_parallel={self.plan.processes} splits a model for inference; set "
                "model.tensor_parallel=1 to compute gradients"
            )

    def _watch_from_thread(self) -> None:
        """Where a GPU would wait for a process that has ended, let go of it."""
        if self.device.type == "cuda":
            threading.Thread(target=_watch, args=(weakref.ref(self),), daemon=True).start()

    def has_lost_process(self) -> bool:
        """Whether a process has ended that should not have."""
        lost = any(process.poll() is not None for process, _ in self._others)
        return lost and self._end_reason is None

    @property
    def ids(self) -> list[int]:
        """The process ids of the others."""
        return [process.pid for process, _ in self._others]

    @property
    def is_closed(self) -> bool:
        """Whether the processes have ended."""
        return self._end_reason is not None


_open: "weakref.WeakSet[Processes]" = weakref.WeakSet()
"""Those whose model may still be used; torch has one process group at a time."""


def _close_unused() -> None:
    gc.collect()
    for processes in list(_open):
        processes.close("another model was loaded")


def _started(log: Path) -> tuple[subprocess.Popen[bytes], Connection]:
    """Start a process; return it with the connection to it."""
    here, there = multiprocessing.connection.Pipe()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "sah.models.tensor_parallel.other_process", str(there.fileno())],
            pass_fds=[there.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            # Ctrl-C is for the first process, which ends the others.
            start_new_session=True,
        )
    there.close()
    return process, here


def _watch(reference: "weakref.ref[Processes]") -> None:
    while (processes := reference()) is not None and not processes.is_closed:
        if processes.has_lost_process():
            # Ends the kernels that wait for it; the call in progress then finds that it has ended.
            distributed.distributed_c10d._abort_process_group()
            return
        del processes
        time.sleep(1.0)
