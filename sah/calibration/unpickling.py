"""Reading tensors out of pickle files without running what else may be in them."""

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

# The first object of a file that torch.save wrote before it wrote zip files.
_OLD_TORCH_FILE = 0x1950A86A20F9469CFC6C


# What pickle and torch raise for bytes that make no sense.
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
    """Read what `torch.save` or `pickle.dump` wrote: tensors in dicts, lists and tuples.

    Raises:
        ConfigurationError: if the file is not there, is no such file, or asks for anything but
            tensors and containers; none of what it asks for is run.
    """
    try:
        with open(path, "rb") as file:
            if zipfile.is_zipfile(file):
                return _torch_load(file)
            file.seek(0)
            content = _TensorUnpickler(file).load()
            # isinstance: tensors compare element by element.
            if isinstance(content, int) and content == _OLD_TORCH_FILE:
                return _torch_load(file)
            return content
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except _MALFORMED as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigurationError(
            f"{path} is no file of tensors as torch.save and pickle.dump write them: {reason}"
        ) from error


def _torch_load(file: IO[bytes]) -> Any:
    file.seek(0)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message advises to run what is in the file.
        asked = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {asked[1]}, which is not run" if asked else "it is damaged"
        raise pickle.UnpicklingError(reason) from error


def _storage(content: bytes) -> Any:
    """Stand in for `torch.storage._load_from_bytes`, which would unpickle anything."""
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
    """Finds nothing but what rebuilds tensors; numbers, text, dicts and lists need no finding."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not run")
        return _ALLOWED[module, name]
