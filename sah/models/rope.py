"""Rotary embeddings whose frequencies depend on the length of the sequence."""

# B batch, N new tokens, D rotated dimensions

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

_BY_LENGTH = ("longrope", "dynamic")


class LengthDependentRope:
    """Keeps the frequencies of a model's rotary embedding fixed for a whole sequence.

    LongRoPE (arXiv:2402.13753, eq. 4) has one set of factors for sequences up to the original
    length and another beyond it; dynamic NTK computes a new base for every length. transformers
    chooses by the last position of each forward pass, so that the keys of a context, its question
    and its answer may be rotated by different frequencies. Here the length that the sequence may
    reach decides for all of them.

    For LongRoPE, a prompt beyond the original length gets the factors that `generate` would use.
    `generate` starts with the short factors if only the answer crosses the length, and prefills
    again with the long ones in the middle of the answer; here the long factors hold from the start.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._embeddings = [module for module in model.modules() if _depends_on_length(module)]

    @property
    def depends_on_length(self) -> bool:
        """Whether the model has such an embedding."""
        return bool(self._embeddings)

    @contextmanager
    def of_length(self, tokens: int) -> Iterator[None]:
        """Use the frequencies of a sequence of this many tokens inside the block."""
        with ExitStack() as hooks:
            for module in self._embeddings:
                add, trim = _with_last_position(tokens - 1), _without_last_position
                hooks.enter_context(module.register_forward_pre_hook(add, with_kwargs=True))
                hooks.enter_context(module.register_forward_hook(trim))
            yield


def _depends_on_length(module: torch.nn.Module) -> bool:
    rope_type = getattr(module, "rope_type", None)
    types = rope_type.values() if isinstance(rope_type, dict) else [rope_type]
    return any(name in str(kind) for kind in types for name in _BY_LENGTH)


def _with_last_position(last: int) -> Any:
    """Return a hook that appends the sequence's last position, by which frequencies are chosen."""

    def add(
        module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if hasattr(module, "max_seq_len_cached"):
            # Otherwise dynamic NTK keeps the base of the longest sequence that it has seen.
            module.max_seq_len_cached = 0
        x, *rest = args
        positions = rest.pop(0) if rest else kwargs.pop("position_ids")  # B N
        ending = torch.full_like(positions[..., :1], last).maximum(positions[..., -1:])
        return (x, torch.cat([positions, ending], dim=-1), *rest), kwargs

    return add


def _without_last_position(module: Any, args: Any, output: Any) -> Any:
    """Remove what the embedding computed for the appended position."""
    if isinstance(output, Tensor):
        return output[..., :-1, :]
    return tuple(part[..., :-1, :] for part in output)  # cosine and sine, each B N D
