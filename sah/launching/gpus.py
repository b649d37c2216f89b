"""The GPUs of this machine, the ones to use, and their division among jobs."""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sah.errors import ConfigurationError

logger = logging.getLogger(__name__)

LOW_MEMORY_MIB = 2048


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU or MIG device of this machine, as NVML lists it."""

    index: str
    """As in CUDA_VISIBLE_DEVICES; the UUID of a MIG device."""
    uuid: str
    name: str
    free_mib: int | None
    """None for a MIG device."""

    def __str__(self) -> str:
        free = "" if self.free_mib is None else f", {self.free_mib / 1024:.1f} GiB free"
        return f"{self.index}: {self.name} ({self.uuid}{free})"


def installed_gpus() -> list[Gpu]:
    """List the GPUs of this machine and their MIG devices; none without a driver.

    Raises:
        ConfigurationError: if the driver is there but fails.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        return []
    except pynvml.NVMLError as error:
        raise ConfigurationError(
            f"the NVIDIA driver fails: {error}; to work on the CPU, set CUDA_VISIBLE_DEVICES to "
            "the empty string"
        ) from error
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(n) for n in range(pynvml.nvmlDeviceGetCount())]
        gpus = [
            Gpu(
                index=str(number),
                uuid=pynvml.nvmlDeviceGetUUID(handle),
                name=pynvml.nvmlDeviceGetName(handle),
                free_mib=pynvml.nvmlDeviceGetMemoryInfo(handle).free // 2**20,
            )
            for number, handle in enumerate(handles)
        ]
        return gpus + [device for handle in handles for device in _mig_devices(handle)]
    finally:
        pynvml.nvmlShutdown()


def chosen_gpus(requested: Sequence[int | str] | None) -> list[str]:
    """Return the devices to use: those requested, else CUDA_VISIBLE_DEVICES, else all.

    An empty list means that there is no GPU and jobs run on the CPU.

    Raises:
        ConfigurationError: if a device does not exist, is hidden from this process, or is
            named twice; lists the devices of the machine.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    allowed = None if visible is None else [g.strip() for g in visible.split(",") if g.strip()]
    if requested is None:
        if allowed is not None:
            # CUDA stops reading at the first id that it does not know, -1 by custom.
            wanted = allowed[: allowed.index("-1")] if "-1" in allowed else allowed
        else:
            wanted = [gpu.index for gpu in installed_gpus() if not gpu.uuid.startswith("MIG-")]
    else:
        wanted = [str(device) for device in requested]
    if not wanted:
        return []
    _check(wanted, allowed if requested is not None else None)
    return wanted


def divide_gpus(gpus: Sequence[str], gpus_per_job: int) -> list[tuple[str, ...]]:
    """Divide GPUs into groups of `gpus_per_job`; a remainder stays unused.

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
    installed = installed_gpus()
    listed = "".join(f"\n  {gpu}" for gpu in installed) or " none (NVML finds no GPU)"
    for device in wanted:
        if allowed is not None and device not in allowed:
            raise ConfigurationError(
                f"GPU {device!r} is hidden from this process by "
                f"CUDA_VISIBLE_DEVICES={','.join(allowed)}; use one of those, or unset it"
            )
        # CUDA accepts the beginning of a UUID.
        found = [gpu for gpu in installed if device == gpu.index or gpu.uuid.startswith(device)]
        if not found:
            raise ConfigurationError(
                f"there is no GPU {device!r} on this machine; there is:{listed}"
            )
        free = found[0].free_mib
        if free is not None and free < LOW_MEMORY_MIB:
            logger.warning("GPU %s has little free memory; somebody may be using it", found[0])


def _mig_devices(handle: Any) -> Iterator[Gpu]:
    import pynvml

    try:
        most = pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except pynvml.NVMLError_NotSupported:
        return
    for number in range(most):
        try:
            device = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
        except (pynvml.NVMLError_NotFound, pynvml.NVMLError_InvalidArgument):
            # No device in this place, or MIG is off.
            continue
        uuid = pynvml.nvmlDeviceGetUUID(device)
        yield Gpu(index=uuid, uuid=uuid, name=pynvml.nvmlDeviceGetName(device), free_mib=None)
