"""Safe reading of tensors from pickle files, without running any code in them."""

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from sah.errors import ConfigurationError

# The first object in files that torch.save wrote before it used zip files.
_OLD_TORCH_FILE = 0x1950A86A20F9469CFC6C

# Raised by pickle and torch for malformed bytes.
_MALFORMED = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    ImportError,
    IndexError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)


def read_tensors(path: Path) -> Any:
    """Read a file of `torch.save` or `pickle.dump`: tensors in dicts, lists and tuples.

    Raises:
        ConfigurationError: if the file cannot be read, is malformed, or refers to anything but
            tensors and containers; nothing that it refers to is run.
    """
    try:
        with open(path, "rb") as file:
            if zipfile.is_zipfile(file):
                return _torch_load(file)
            file.seek(0)
            content = _TensorUnpickler(file).load()
            # isinstance first, as tensors compare element by element.
            if isinstance(content, int) and content == _OLD_TORCH_FILE:
                return _torch_load(file)
            return content
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except _MALFORMED as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigurationError(
            f"{path} is not a file of tensors written by torch.save or pickle.dump: {reason}"
        ) from error


def _torch_load(file: IO[bytes]) -> Any:
    file.seek(0)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message recommends loading the file unsafely.
        asked = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it refers to {asked[1]}, which is not run" if asked else "it is damaged"
        raise pickle.UnpicklingError(reason) from error


def _storage(content: bytes) -> Any:
    """Replace `torch.storage._load_from_bytes`, which would unpickle anything."""
    return _torch_load(io.BytesIO(content))


def _parameter(data: Tensor, requires_grad: bool, hooks: object) -> Tensor:
    return data


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
}


class _TensorUnpickler(pickle.Unpickler):
    """Resolves only the functions that rebuild tensors; plain data needs none."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is not run")
        return _ALLOWED[module, name]
