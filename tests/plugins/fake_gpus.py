"""Fixtures that imitate a machine with GPUs: `fake_nvml` and `fake_gpus`."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

FAKE_NVML = """
from types import SimpleNamespace

class NVMLError(Exception): ...
class NVMLError_LibraryNotFound(NVMLError): ...
class NVMLError_DriverNotLoaded(NVMLError): ...
class NVMLError_NotSupported(NVMLError): ...
class NVMLError_NotFound(NVMLError): ...
class NVMLError_InvalidArgument(NVMLError): ...

def nvmlInit(): {init}
def nvmlShutdown(): ...
def nvmlDeviceGetCount(): return {count}
def nvmlDeviceGetHandleByIndex(number): return number
def nvmlDeviceGetUUID(handle): return "MIG-42" if handle == "mig" else f"GPU-{{handle}}abc"
def nvmlDeviceGetName(handle): return "MIG 1g.10gb" if handle == "mig" else "Fake GPU"
def nvmlDeviceGetMemoryInfo(handle): return SimpleNamespace(free={free_mib} * 2**20)

def nvmlDeviceGetMaxMigDeviceCount(handle):
    if handle < 2:
        raise NVMLError_NotSupported
    return 2

def nvmlDeviceGetMigDeviceHandleByIndex(handle, number):
    if (handle, number) != (3, 1):
        raise NVMLError_NotFound
    return "mig"
"""


@pytest.fixture
def fake_nvml(tmp_path: Path) -> Callable[..., Path]:
    """Write a stand-in for NVML's Python bindings; returns the folder to import it from."""

    def write(*, init: str = "...", count: int = 4, free_mib: int = 80000) -> Path:
        folder = tmp_path / "nvml"
        folder.mkdir(exist_ok=True)
        text = FAKE_NVML.format(init=init, count=count, free_mib=free_mib)
        (folder / "pynvml.py").write_text(text)
        return folder

    return write


@pytest.fixture
def fake_gpus(fake_nvml: Callable[..., Path]) -> dict[str, str]:
    """Environment of a machine with four GPUs, one of them with a MIG device."""
    path = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join(filter(None, (str(fake_nvml()), path)))}
