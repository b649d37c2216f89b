"""Which GPUs there are, and dividing them into slots."""

import csv
import io
import logging
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from sah.errors import ConfigurationError

logger = logging.getLogger(__name__)

LOW_MEMORY_MIB = 2048


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU of this machine, as nvidia-smi lists it."""

    index: str
    uuid: str
    name: str
    free_mib: int | None
    """None where the driver does not say (MIG)."""

    def __str__(self) -> str:
        free = "" if self.free_mib is None else f", {self.free_mib / 1024:.1f} GiB free"
        return f"{self.index}: {self.name} ({self.uuid}{free})"


def installed_gpus() -> list[Gpu]:
    """The GPUs of this machine and their MIG devices; none without a driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = "--query-gpu=index,uuid,name,memory.free"
    listed = _nvidia_smi(query, "--format=csv,noheader,nounits")
    gpus = []
    for row in csv.reader(io.StringIO(listed), skipinitialspace=True):
        index, uuid, name, free = row
        gpus.append(
            Gpu(index=index, uuid=uuid, name=name, free_mib=int(free) if free.isdigit() else None)
        )
    return gpus + _mig_devices(_nvidia_smi("-L"))


def chosen_gpus(requested: Sequence[int | str] | None) -> list[str]:
    """The devices to use: those requested, else CUDA_VISIBLE_DEVICES, else all that are there.

    An empty list means that there is no GPU: work on the CPU.

    Raises:
        ConfigurationError: if a device does not exist, is hidden from this process, or is
            named twice; lists what there is.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    allowed = None if visible is None else [g.strip() for g in visible.split(",") if g.strip()]
    if requested is None:
        if allowed is not None:
            # CUDA reads no further than the first id that it does not know, -1 by custom.
            wanted = allowed[: allowed.index("-1")] if "-1" in allowed else allowed
        else:
            wanted = [gpu.index for gpu in installed_gpus() if not gpu.uuid.startswith("MIG-")]
    else:
        wanted = [str(device) for device in requested]
    if not wanted:
        return []
    _check(wanted, allowed if requested is not None else None)
    return wanted


def slots(gpus: Sequence[str], gpus_per_job: int) -> list[tuple[str, ...]]:
    """Divide GPUs into groups of `gpus_per_job`; what is left over stays unused.

    Raises:
        ConfigurationError: if there are fewer than one job needs.
    """
    if gpus_per_job < 1:
        raise ConfigurationError(f"gpus_per_job must be at least 1, got {gpus_per_job}")
    if len(gpus) < gpus_per_job:
        raise ConfigurationError(
            f"gpus_per_job={gpus_per_job}, but there are only {len(gpus)} GPUs to use: "
            f"{', '.join(gpus)}"
        )
    whole = len(gpus) // gpus_per_job * gpus_per_job
    return [tuple(gpus[i : i + gpus_per_job]) for i in range(0, whole, gpus_per_job)]


def _check(wanted: Sequence[str], allowed: Sequence[str] | None) -> None:
    if len(set(wanted)) < len(wanted):
        raise ConfigurationError(f"gpus={list(wanted)} names a GPU twice; one job per GPU")
    there = installed_gpus()
    listed = "".join(f"\n  {gpu}" for gpu in there) or " none (nvidia-smi finds no GPU)"
    for device in wanted:
        if allowed is not None and device not in allowed:
            raise ConfigurationError(
                f"GPU {device!r} is hidden from this process by "
                f"CUDA_VISIBLE_DEVICES={','.join(allowed)}; use one of those, or unset it"
            )
        # A UUID may be shortened, as CUDA allows.
        found = [gpu for gpu in there if device == gpu.index or gpu.uuid.startswith(device)]
        if not found:
            raise ConfigurationError(
                f"there is no GPU {device!r} on this machine; there is:{listed}"
            )
        free = found[0].free_mib
        if free is not None and free < LOW_MEMORY_MIB:
            logger.warning("GPU %s has little memory left; somebody may be using it", found[0])


def _mig_devices(listing: str) -> list[Gpu]:
    devices = []
    for line in listing.splitlines():
        if line.strip().startswith("MIG ") and "UUID: " in line:
            name, _, rest = line.strip().partition("(UUID: ")
            uuid = rest.rstrip(")")
            devices.append(Gpu(index=uuid, uuid=uuid, name=name.strip(), free_mib=None))
    return devices


def _nvidia_smi(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["nvidia-smi", *arguments], capture_output=True, text=True, timeout=60
        )
    except subprocess.TimeoutExpired as error:
        raise ConfigurationError(
            "nvidia-smi does not answer within 60 s: the driver hangs; the node needs a look"
        ) from error
    if done.returncode != 0:
        raise ConfigurationError(
            f"nvidia-smi fails: {(done.stdout + done.stderr).strip()}; to work on the CPU, set "
            "CUDA_VISIBLE_DEVICES to the empty string"
        )
    return done.stdout
