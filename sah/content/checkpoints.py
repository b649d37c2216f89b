"""The digest of a model folder, from all that loading reads; large weights are sampled."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sah.content.digests import DIGEST_BYTES, combined, digest_of_files, remembered

_TEXTS = (".json", ".model", ".txt", ".jinja", ".py", ".tiktoken")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")

# Smaller files are read whole.
_SAMPLED = 2**26
_BLOCK = 2**12
_BLOCKS = 1024


def checkpoint_digest(folder: Path) -> str | None:
    """Return the digest of a model folder: configuration, tokenizer, code and weights.

    Of a weight file of more than 64 MiB count its size, 1,024 blocks of 4 KiB spread evenly over
    it and, in a safetensors file, the header and the beginning, middle and end of each tensor.
    Training changes all values of a tensor, so another checkpoint has another digest; a change of
    a few values by hand may not.

    Args:
        folder: as `save_pretrained` or `hf download` writes it; only files at its top count.

    Returns:
        None if there is no such folder.
    """
    if not folder.is_dir():
        return None
    files = sorted(file for file in folder.iterdir() if file.is_file())
    texts = [file for file in files if file.suffix in _TEXTS]
    weights = [file for file in files if file.suffix in _WEIGHTS]
    found = [(file.name, digest_of_files([file])) for file in texts]
    found += [(file.name, remembered(file, "weights", _weights)) for file in weights]
    return combined(text for pair in found for text in pair)


def _weights(file: Path) -> str:
    size = file.stat().st_size
    if size <= _SAMPLED:
        return digest_of_files([file])
    state = hashlib.blake2b(str(size).encode(), digest_size=DIGEST_BYTES)
    with open(file, "rb") as content:
        starts = {size * number // _BLOCKS for number in range(_BLOCKS)}
        if file.suffix == ".safetensors":
            starts |= set(_of_tensors(content, size))
        for start in sorted({*starts, max(0, size - _BLOCK)}):
            content.seek(start)
            state.update(content.read(_BLOCK))
    return state.hexdigest()


def _of_tensors(content: IO[bytes], size: int) -> Iterator[int]:
    """Return where to sample a safetensors file: its header, and three blocks of each tensor.

    A header that cannot be read is left to loading, which refuses the file.
    """
    first = 8 + int.from_bytes(content.read(8), "little")
    if first > size:
        return
    yield from range(0, first, _BLOCK)
    try:
        tensors = json.loads(content.read(first - 8))
        spans = [entry["data_offsets"] for name, entry in tensors.items() if name != "__metadata__"]
        for begin, end in spans:
            for start in (begin, (begin + end) // 2, max(begin, end - _BLOCK)):
                yield min(first + int(start), size)
    except (AttributeError, LookupError, TypeError, ValueError):
        return
