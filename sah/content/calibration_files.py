"""Calibration files of methods that are fitted to a model: their paths, names and digests."""

import functools
import hashlib
from pathlib import Path

from sah.content.digests import digest
from sah.paths import calibration_home, sanitise

SUFFIXES = {"double_sparsity": ".json", "duo_attention": ".tsv", "hash_attention": ".safetensors"}

# Files of the bundled model, made by `sah calibrate`.
_SHIPPED = Path(__file__).resolve().parents[1] / "calibration" / "shipped"

_DIGEST_LENGTH = 8


def calibration_path(method: str, model: str) -> Path:
    """Return where `sah calibrate` and `sah convert` write a model's file."""
    return calibration_home() / _file_name(method, model)


def calibration_reference(method: str, model: str) -> str:
    """Return the name of a model's file in a configuration: `model@digest of its content`.

    The user's own file takes precedence over the shipped one. Without a file, return the model's
    name alone; `find_calibration` then raises an error that says how to make one.
    """
    path = _found(method, model)
    return model if path is None else f"{model}@{_digest_of(path)}"


def find_calibration(method: str, reference: str) -> Path:
    """Return the file that a reference names.

    Args:
        method: a key of SUFFIXES.
        reference: `model@digest`, a model's name, or the path of a file.

    Raises:
        ValueError: if the file does not exist or its digest differs.
    """
    if reference.endswith(SUFFIXES[method]):
        file = Path(reference).expanduser()
        if not file.is_file():
            raise ValueError(f"{method}: there is no file {reference}")
        return file
    model, _, composed = reference.partition("@")
    path = _found(method, model)
    if path is None:
        raise ValueError(
            f"{method} must be fitted to a model first, and there is no file for model {model!r} "
            f"(looked for {calibration_path(method, model)}); make it with "
            f"`sah calibrate {method} model={model}`, or give the path of a {SUFFIXES[method]} file"
        )
    if composed and composed != _digest_of(path):
        raise ValueError(
            f"{method}: the file of model {model!r} has changed since the experiment was composed "
            f"({path} has digest {_digest_of(path)}, not {composed}); compose the experiment "
            "again, or give the path of the original file"
        )
    return path


def require_composed(path: Path, composed: str | None) -> None:
    """Check that a file has the content that the experiment was composed for.

    Args:
        path: of the file.
        composed: its digest then; None where the reference itself names a digest.

    Raises:
        ValueError: if it has another content now.
    """
    now = None if composed is None else digest(path)
    if now != composed:
        raise ValueError(
            f"{path} has changed since the experiment was composed (it was {composed}, now it is "
            f"{now}); run it again to use the new content, or restore the old one"
        )


def _found(method: str, model: str) -> Path | None:
    for path in (calibration_path(method, model), _SHIPPED / _file_name(method, model)):
        if path.is_file():
            return path
    return None


def _file_name(method: str, model: str) -> Path:
    return Path(method, sanitise(model) + SUFFIXES[method])


def _digest_of(path: Path) -> str:
    stat = path.stat()
    return _digest(path, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=64)
def _digest(path: Path, modified: int, size: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:_DIGEST_LENGTH]
