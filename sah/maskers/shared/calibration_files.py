"""Files a method was fitted to a model with: where they lie, and which one is meant."""

import functools
import hashlib
from pathlib import Path

from sah.paths import calibration_home, sanitise

SUFFIXES = {"double_sparsity": ".json", "hash_attention": ".safetensors"}

# Made by `sah calibrate`, for the bundled model.
_SHIPPED = Path(__file__).resolve().parents[2] / "calibration" / "shipped"

_DIGEST_LENGTH = 8


def calibration_path(method: str, model: str) -> Path:
    """Where `sah calibrate` and `sah convert` write the file of a model."""
    return calibration_home() / _file_name(method, model)


def calibration_reference(method: str, model: str) -> str:
    """The calibration of a model as a configuration names it: `model@digest of the content`.

    The user's own file goes before the shipped one. Without any file it is the model's name
    alone, which `find_calibration` refuses with the way out.
    """
    path = _found(method, model)
    return model if path is None else f"{model}@{_digest_of(path)}"


def find_calibration(method: str, reference: str) -> Path:
    """The file that a reference means.

    Args:
        method: a key of SUFFIXES.
        reference: `model@digest`, a model's name, or the path of a file.

    Raises:
        ValueError: if there is no such file, or it is not the one that the digest names.
    """
    if reference.endswith(SUFFIXES[method]):
        if not Path(reference).is_file():
            raise ValueError(f"{method}: there is no file {reference}")
        return Path(reference)
    model, _, digest = reference.partition("@")
    path = _found(method, model)
    if path is None:
        raise ValueError(
            f"{method} must be fitted to a model first, and there is no file for model {model!r} "
            f"(looked for {calibration_path(method, model)}); make it with "
            f"`sah calibrate {method} model={model}`, or give the path of a {SUFFIXES[method]} file"
        )
    if digest and digest != _digest_of(path):
        raise ValueError(
            f"{method}: the file of model {model!r} is another than the experiment was composed "
            f"with ({path} has digest {_digest_of(path)}, not {digest}); compose the experiment "
            "again, or give the path of the file that was meant"
        )
    return path


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
