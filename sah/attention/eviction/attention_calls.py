"""Records what the attention layers of a model are called with while it reads a context."""

# B batch, N tokens, E hidden dimension, R rotated dimensions

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

_KEYWORDS = ("hidden_states", "position_embeddings")
_LENGTH_DEPENDENT = ("longrope", "dynamic")


@dataclass(frozen=True, kw_only=True)
class AttentionCall:
    """What an attention layer was called with for a context."""

    hidden_states: Float[Tensor, "B N E"]
    position_embeddings: tuple[Float[Tensor, "B N R"], Float[Tensor, "B N R"]] | None = None
    """Cosine and sine; None in models that do not hand them to each layer."""
    rotary: nn.Module | None = None
    """The model's rotary embedding; None unless one serves all layers and lengths."""

    def followed_by(self, other: "AttentionCall") -> "AttentionCall":
        """Return what one call for the tokens of both would have been."""
        angles, others = self.position_embeddings, other.position_embeddings
        if angles is not None and others is not None:
            cos, sin = (torch.cat(parts, dim=-2) for parts in zip(angles, others, strict=True))
            others = cos, sin
        return AttentionCall(
            hidden_states=torch.cat([self.hidden_states, other.hidden_states], dim=1),
            position_embeddings=others,
            rotary=other.rotary,
        )


class AttentionCalls:
    """The last call of each module that reads hidden states."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._calls: dict[nn.Module, dict[str, Any]] = {}
        self._rotary = _rotary_embedding(model)

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record inside the block."""
        with ExitStack() as stack:
            for module in self._model.modules():
                if "hidden_states" in inspect.signature(type(module).forward).parameters:
                    hook = module.register_forward_pre_hook(self._note, with_kwargs=True)
                    stack.callback(hook.remove)
            yield
            self._calls.clear()

    def take(self, module: nn.Module, device: torch.device) -> AttentionCall | None:
        """Return what a module at work was called with; None if it reads no hidden states."""
        given = self._calls.get(module, {})
        self._calls.clear()
        hidden, angles = (given.get(name) for name in _KEYWORDS)
        if hidden is None:
            return None
        return AttentionCall(
            # The layers of a model may be on several devices.
            hidden_states=hidden.to(device),
            position_embeddings=angles and (angles[0].to(device), angles[1].to(device)),
            rotary=self._rotary,
        )

    def _note(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        positional = inspect.signature(module.forward).bind_partial(*args).arguments
        given = {**positional, **kwargs}
        self._calls[module] = {name: given.get(name) for name in _KEYWORDS}


def _rotary_embedding(model: nn.Module) -> nn.Module | None:
    found = [module for module in model.modules() if "RotaryEmbedding" in type(module).__name__]
    if len(found) != 1:
        return None
    # A mapping in models whose layers have several embeddings.
    rope_type = getattr(found[0], "rope_type", "default")
    by_position = isinstance(rope_type, str) and rope_type not in _LENGTH_DEPENDENT
    return found[0] if by_position else None
