"""What the first process of a split model tells the others, and what they answer."""

import os
import pickle
import socket
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import distributed

# The longest time that processes wait for each other within a forward pass. While the first one
# computes attention, the others wait for its message, which has no limit.
_TIMEOUT = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Start:
    """The first message to a process."""

    source: Any
    """The model source, which loads this process's part."""
    plan: Any
    device: torch.device
    """cuda or cpu."""
    rank: int
    store: Path
    """A file through which the processes find each other."""


@dataclass(frozen=True, kw_only=True)
class Forward:
    """Read tokens: call the model with these arguments."""

    arguments: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Output:
    """Receive the output of a layer's attention, which only the first process computes."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True)
class CallModule:
    """Call one module outside of a forward pass, with an input that is sent."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True)
class GatherWeight:
    """Take part in gathering the whole weight of a module."""

    name: str


class Abort:
    """Leave the present forward pass, which has failed in the first process."""


class SendHidden:
    """Answer with the last hidden states, as `Hidden`."""


class Idle:
    """Answer: ready for the next message."""


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """Answer: the input of the output layer in the last forward pass."""

    states: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Answer: the process ends because of an error."""

    text: str
    out_of_memory: bool


def send(connection: Connection, message: object) -> None:
    """Send a message. Not by `Connection.send`, which would share the memory of tensors."""
    connection.send_bytes(pickle.dumps(message))


def receive(connection: Connection) -> Any:
    """Receive a message.

    Raises:
        EOFError: if the other side has ended.
    """
    return pickle.loads(connection.recv_bytes())  # noqa: S301 (from a process of this job)


def join_group(device: torch.device, *, store: Path, rank: int, processes: int) -> None:
    """Join the process group of torch; returns once all processes have."""
    if device.type == "cuda":
        torch.cuda.set_device(rank)
    # Otherwise gloo looks up the name of this machine, which not every network knows.
    if any(name == "lo" for _, name in socket.if_nameindex()):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=distributed.FileStore(str(store), processes),  # type: ignore[attr-defined]
        rank=rank,
        world_size=processes,
        timeout=_TIMEOUT,
        device_id=torch.device("cuda", rank) if device.type == "cuda" else None,
    )
