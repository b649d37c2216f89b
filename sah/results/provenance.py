"""Provenance of a result: code, versions, machine."""

import functools
import os
import platform
import socket
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import sah

_PACKAGES = ("sah", "torch", "transformers", "tokenizers", "datasets", "hydra-core", "safetensors")


@functools.cache
def provenance() -> dict[str, Any]:
    """Return the provenance that all experiments of this process share."""
    commit, dirty = _git_state()
    return {
        "git_commit": commit,
        "git_dirty": dirty,
        "versions": {"python": platform.python_version(), **_versions()},
        "host": socket.gethostname(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "threads": torch.get_num_threads(),
    }


def load_per_core() -> float | None:
    """Return the machine's load average over the last minute, per core; None if unknown."""
    try:
        return os.getloadavg()[0] / (os.cpu_count() or 1)
    except (AttributeError, OSError):
        # Windows has no load average.
        return None


def device_name(device: torch.device) -> str:
    """Return the device's name as a paper would give it, such as NVIDIA H100 80GB HBM3."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _git_state() -> tuple[str | None, bool | None]:
    """Return the running code's commit and whether it has changes; None outside a checkout."""
    folder = Path(sah.__file__).resolve().parent
    commit = _git(folder, "rev-parse", "HEAD")
    # A virtual environment may lie inside an unrelated repository.
    is_tracked = _git(folder, "ls-files", "--error-unmatch", "__init__.py") is not None
    if commit is None or not is_tracked:
        return None, None
    changes = _git(folder.parent, "status", "--porcelain", "--untracked-files=no")
    # A new method consists of untracked files, which are changes too.
    code = ("sah", "conf", "hydra_plugins")
    added = _git(folder.parent, "status", "--porcelain", "--untracked-files=normal", "--", *code)
    return commit, bool(changes or added)


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
