"""The main program of every process of a split model but the first.

It holds its part of the weights and takes part in each forward pass of the first process, which
alone runs the experiment: only there are a cache, an attention session and a directory. Between
the projections of a layer it waits for the output of attention.
"""

import os
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, distributed

from sah.attention.interface import attention_replaced
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


class _Aborted(Exception):
    """The forward pass has failed in the first process."""


class OtherProcess:
    """Answers the messages of the first process."""

    def __init__(self, model: Any, outputs: tuple[str, ...], connection: Connection) -> None:
        self.model = model
        self.connection = connection
        self.device: torch.device = model.device
        self._hidden: Tensor | None = None
        self._modules = dict(model.named_modules())
        for name in outputs:
            self._modules[name].register_forward_pre_hook(self._receive_output)
        model.get_output_embeddings().register_forward_pre_hook(self._remember_hidden)
        self._in_forward = False

    @torch.inference_mode()
    def serve(self) -> None:
        """Take part in what the first process does until it ends.

        Raises:
            EOFError: when the first process has ended.
        """
        with attention_replaced(self.model, _no_attention, lambda **_: None):
            while True:
                try:
                    self._answer(receive(self.connection))
                except _Aborted:
                    self._wait_for_device()
                    send(self.connection, Idle())

    def _answer(self, message: object) -> None:
        match message:
            case Forward(arguments=arguments):
                self._forward(arguments)
            case CallModule(name=name):
                self._modules[name](self._broadcast(message))
            case GatherWeight(name=name):
                self._modules[name].weight.full_tensor()
            case SendHidden():
                assert self._hidden is not None, "asked for after a forward pass"
                send(self.connection, Hidden(states=self._hidden.cpu()))
            case Abort():
                # The pass was over here.
                self._wait_for_device()
                send(self.connection, Idle())
            case _:
                raise TypeError(f"unexpected message {message!r}")

    def _forward(self, arguments: dict[str, Any]) -> None:
        self._in_forward = True
        try:
            self.model(
                **{
                    name: value.to(self.device) if isinstance(value, Tensor) else value
                    for name, value in arguments.items()
                },
                use_cache=False,
            )
        finally:
            self._in_forward = False

    def _receive_output(
        self, module: torch.nn.Module, arguments: tuple[Any, ...]
    ) -> tuple[Any, ...] | None:
        if not self._in_forward:
            return None
        message = receive(self.connection)
        if isinstance(message, Abort):
            raise _Aborted
        return (self._broadcast(message), *arguments[1:])

    def _broadcast(self, message: Output | CallModule) -> Tensor:
        received = torch.empty(message.shape, dtype=message.dtype, device=self.device)
        distributed.broadcast(received, src=0)
        return received

    def _remember_hidden(self, module: torch.nn.Module, arguments: tuple[Any, ...]) -> None:
        self._hidden = arguments[0]

    def _wait_for_device(self) -> None:
        """Wait until the device has left the aborted pass; without the others it never does."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _no_attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> tuple[Tensor, None]:
    """Return [B, Q, H, V] without values: what follows is replaced before it is used."""
    batch, heads, queries = query.shape[:3]
    return query.new_zeros(batch, queries, heads, value.shape[-1]), None


def main() -> None:
    """Serve the first process, to which the file descriptor in the first argument leads."""
    connection = Connection(int(sys.argv[1]))
    start = receive(connection)
    assert isinstance(start, Start)
    os.environ["LOCAL_RANK"] = str(start.rank)  # the GPU that transformers chooses
    try:
        send(connection, Idle())
        processes = start.plan.processes
        join_group(start.device, store=start.store, rank=start.rank, processes=processes)
        model = start.source.load_part(start.plan)
        send(connection, Idle())
        OtherProcess(model, start.plan.outputs, connection).serve()
    except (EOFError, ConnectionError):
        pass
    except BaseException as error:  # noqa: BLE001 (sent to the first process)
        text = " ".join(f"{type(error).__name__}: {error}".split())
        is_memory = isinstance(error, torch.OutOfMemoryError)
        send(connection, Failed(text=text, out_of_memory=is_memory))
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        # Not by an orderly exit, which would wait for the other processes.
        os._exit(0)


if __name__ == "__main__":
    main()
