"""Remembers which models passed the gate, by content: weights, configuration and code."""

import functools
import hashlib
import importlib.metadata
import json
import logging
from pathlib import Path

import torch

from sah.models.gate import check_model
from sah.models.language_model import LanguageModel
from sah.paths import cache_home

logger = logging.getLogger(__name__)

_LIBRARIES = ("torch", "transformers")
_SAMPLES = 16
"""Values of each weight that identify a model."""


def require_measurable(model: LanguageModel) -> None:
    """Check a model that was just loaded, unless the same one passed on this machine before.

    Raises:
        ConfigurationError: naming why this model cannot be measured.
    """
    # The outcome is in the name, so that a file is never seen half written.
    folder, content = cache_home() / "gate", _content(model)
    for reads_single_tokens in (False, True):
        if (folder / _passed(content, reads_single_tokens)).exists():
            model.reads_single_tokens = reads_single_tokens
            return
    check_model(model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _passed(content, model.reads_single_tokens)).touch()
    except OSError as error:
        logger.info("the check of this model will be repeated: %s", error)


def _passed(content: str, reads_single_tokens: bool) -> str:
    return f"{content}.single_tokens" if reads_single_tokens else content


def _content(model: LanguageModel) -> str:
    """Digest everything that the outcome of the checks depends on."""
    digest = hashlib.blake2b(digest_size=16)
    config = model.model.config.to_dict()
    config.pop("_name_or_path", None)
    about = [
        {library: importlib.metadata.version(library) for library in _LIBRARIES},
        {"device": model.device.type, "code": _code()},
        config,
        {"attention": model.model.config._attn_implementation},
        [[name, list(w.shape), str(w.dtype)] for name, w in model.model.named_parameters()],
    ]
    digest.update(json.dumps(about, sort_keys=True, default=str).encode())
    for weight in model.model.parameters():
        digest.update(_sample(weight))
    return digest.hexdigest()


def _sample(weight: torch.Tensor) -> bytes:
    """Return some values of a weight, spread evenly over it."""
    # Of a weight that is split over processes, the part of this one.
    part = weight.to_local() if hasattr(weight, "to_local") else weight
    flat = part.detach().reshape(-1)
    if flat.numel() == 0 or weight.is_meta:  # offloaded to the disk
        return b""
    where = torch.linspace(0, flat.numel() - 1, _SAMPLES, dtype=torch.float64)
    values = flat[where.long().to(flat.device)]
    return values.float().cpu().numpy().tobytes()


@functools.cache
def _code() -> str:
    """Digest the code that the checks exercise, so that a change of it repeats them."""
    digest = hashlib.blake2b(digest_size=16)
    package = Path(__file__).resolve().parents[1]
    for folder in ("attention", "models"):
        for path in sorted((package / folder).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
