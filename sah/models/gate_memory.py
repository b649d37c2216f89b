"""Remembers which models passed the gate, by content: weights, configuration and code."""

import functools
import hashlib
import importlib.metadata
import itertools
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from sah.models.gate import check_model
from sah.models.language_model import LanguageModel
from sah.paths import cache_home

logger = logging.getLogger(__name__)

_LIBRARIES = ("torch", "transformers")
_FINDINGS = ("reads_single_tokens", "decodes_alone")
"""What the checks find out about a model."""
_SAMPLES = 16
"""Values of each weight that identify a model."""
_PACKAGE = Path(__file__).resolve().parents[1]


def require_measurable(model: LanguageModel) -> None:
    """Check a model that was just loaded, unless the same one passed on this machine before.

    Raises:
        ConfigurationError: naming why this model cannot be measured.
    """
    # The outcome is in the name, so that a file is never seen half written.
    folder, content = cache_home() / "gate", _content(model)
    for found in itertools.product((False, True), repeat=len(_FINDINGS)):
        if (folder / _passed(content, found)).exists():
            for name, value in zip(_FINDINGS, found, strict=True):
                setattr(model, name, value)
            return
    check_model(model)
    found = tuple(getattr(model, name) for name in _FINDINGS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _passed(content, found)).touch()
    except OSError as error:
        logger.info("the check of this model will be repeated: %s", error)


def _passed(content: str, found: Sequence[bool]) -> str:
    return ".".join([content, *itertools.compress(_FINDINGS, found)])


def _content(model: LanguageModel) -> str:
    """Digest everything that the outcome of the checks depends on."""
    digest = hashlib.blake2b(digest_size=16)
    config = model.model.config.to_dict()
    config.pop("_name_or_path", None)
    about = [
        {library: importlib.metadata.version(library) for library in _LIBRARIES},
        {"device": model.device.type, "code": _code(_PACKAGE)},
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
def _code(package: Path) -> str:
    """Digest the code that the checks exercise, so that a change of it repeats them."""
    digest = hashlib.blake2b(digest_size=16)
    for folder in ("attention", "models"):
        for path in sorted((package / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
