"""The processes of a model that is split by tensor parallelism, as the first one sees them.

The first process is that of the job. It runs the experiment as without a split: its attention has
all heads, and the cache is here alone. Each call of the model is told to the other processes,
which hold the other parts of the weights.
"""

import functools
import gc
import inspect
import logging
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed

from sah.errors import ConfigurationError, ModelLoadingError
from sah.models.tensor_parallel.messages import (
    Abort,
    CallModule,
    Forward,
    GatherWeight,
    Hidden,
    Idle,
    Output,
    SendHidden,
)
from sah.models.tensor_parallel.others import Others, ProcessEnded
from sah.models.tensor_parallel.plan import SplitPlan

logger = logging.getLogger(__name__)

# How long the others may take to leave a forward pass that has failed here.
_ABORT_SECONDS = 10.0

# Of the cache and of attention, which only the first process has.
_NOT_SENT = frozenset({"attention_mask", "cache_position", "past_key_values", "use_cache"})


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
            ModelLoadingError: if a process cannot start.
        """
        _close_unused()
        if distributed.is_initialized():
            raise ConfigurationError(
                f"model.tensor_parallel={plan.processes} starts its own processes, but this one "
                "is part of a process group of torch already; start it without torchrun"
            )
        self.plan = plan
        self.device = device
        self.others = Others(source, plan, device)
        self._in_forward = False
        self._called: set[str] = set()
        self._hidden: Tensor | None = None
        _open.add(self.others)

    def attach(self, model: Any) -> None:
        """Wait until all parts are loaded, and mirror the calls of the model from here on.

        Raises:
            ModelLoadingError: if a process cannot load its part, or they compute different states.
        """
        self.others.await_idle()
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
        model.processes = self.others
        # A model that is dropped ends its processes.
        weakref.finalize(model, self.others.close, "the model was dropped")
        self._require_equal_states(model)
        logger.info(
            "the weights are split over %d processes; attention and cache are in the first",
            self.plan.processes,
        )

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
            self.others.send(Forward(arguments=sent))
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
                torch.cuda.synchronize(self.device)
        except Exception as error:
            self._abort(error)
            raise
        except BaseException:
            self.others.close("interrupted")
            raise
        finally:
            self._in_forward = False
            self._called.clear()
        # A process that ends may leave wrong values behind, which must not be returned.
        self.others.require_alive()

    def _abort(self, error: Exception) -> None:
        """Let the others leave the present forward pass.

        Raises:
            ProcessEnded: if one of them has ended, which is why it failed here.
        """
        deadline = time.monotonic() + _ABORT_SECONDS
        try:
            self.others.send(Abort())
            for rank in range(1, self.plan.processes):
                self.others.receive(rank, Idle, timeout=deadline - time.monotonic())
        except TimeoutError:
            # It waits in the midst of a collective operation for this process.
            self.others.close(f"a forward pass failed: {error}")
        except (ProcessEnded, torch.OutOfMemoryError) as reason:
            raise reason from error

    def _send_output(self, module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        if self._in_forward:
            self._broadcast(Output, arguments[0])

    def _broadcast(self, kind: Callable[..., object], states: Tensor, **about: Any) -> None:
        self.others.send(kind(shape=tuple(states.shape), dtype=states.dtype, **about))
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
        self.others.send(GatherWeight(name=name))
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
            self.others.send(SendHidden())
            for rank in range(1, self.plan.processes):
                states = self.others.receive(rank, Hidden, timeout=None).states
                if not torch.equal(states, self._hidden.cpu()):
                    self.others.close("its states differ")
                    raise ModelLoadingError(
                        f"model.tensor_parallel={self.plan.processes}: process {rank} computes "
                        "other hidden states than process 0, so that this model has states beside "
                        "its attention, or the GPUs are not of one kind; set "
                        "model.tensor_parallel=1, or use GPUs of one kind"
                    )

    def _require_inference(self) -> None:
        self.others.require_open()
        if torch.is_grad_enabled():
            raise ConfigurationError(
                f"model.tensor_parallel={self.plan.processes} splits a model for inference; set "
                "model.tensor_parallel=1 to compute gradients"
            )


_open: "weakref.WeakSet[Others]" = weakref.WeakSet()
"""Those whose model may still be used; torch has one process group at a time."""


def _close_unused() -> None:
    gc.collect()
    for others in list(_open):
        others.close("another model was loaded")
