"""Any ScorerPress of kvpress as an evictor."""

# B batch, H query heads, G key-value heads, K keys, D head dimension, E hidden dimension

import importlib
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sah.attention.eviction.attention_calls import AttentionCall
from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.witness import Witness
from sah.content import package_versions
from sah.errors import ConfigurationError
from sah.evictors.presses.press_class import kvpress_importable, press_class, projects_itself
from sah.evictors.scoring import ScoringEvictor

_RATIO = "compression_ratio"


@dataclass(frozen=True, kw_only=True)
class KVPressScorer(ScoringEvictor):
    """Keep the keys with the highest scores of a press (github.com/NVIDIA/kvpress).

    The press's own `score` ranks the keys of each layer, after the shared prefill. It gets what
    kvpress gives it with SDPA attention: no attention weights, and of the keyword arguments
    hidden_states and position_embeddings. Each layer has a fresh press, whose compression_ratio is
    that of the budget. Its global random numbers are seeded for each layer.
    """

    press: str
    """Dotted path of a subclass of ScorerPress: `kvpress.SnapKVPress`, or one's own class."""
    arguments: Mapping[str, Any] | None = field(default=None, hash=False)
    """What the class is made with, besides compression_ratio; None: its defaults."""
    content: Mapping[str, Any] | None = field(default=None, hash=False)
    """Version of kvpress, as composed; another one is refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if _RATIO in (self.arguments or {}):
            raise ValueError(
                "kvpress: arguments.compression_ratio would be a second budget; remove it, and set "
                "fraction (1 - compression_ratio) or tokens"
            )
        composed, now = (self.content or {}).get("packages"), package_versions(["kvpress"])
        if composed is not None and composed != now:
            raise ValueError(
                f"kvpress has changed since the experiment was composed (it was {composed}, now it "
                f"is {now}); run it again to use the new version, or restore the old one"
            )
        self._made()

    @property
    def witness(self) -> Witness:
        """What each attention layer was called with, and its last query to check kvpress's own."""
        return Witness(calls=True, last_queries=1)

    def at_context(self, layer: ContextLayer) -> Bool[Tensor, "B G K"]:
        """Return which keys stay."""
        if self.budget(layer) == layer.length:
            # As in kvpress, a press that evicts nothing does not score.
            return torch.ones(layer.key.shape[:3], dtype=torch.bool, device=layer.key.device)
        return super().at_context(layer)

    def scores(self, layer: ContextLayer) -> Float[Tensor, "B G K"]:
        """Return the scores of the press.

        Raises:
            ConfigurationError: if the press cannot score this layer, by its own words, or its
                scores are not one number per key.
        """
        call, press = layer.witnessed.call, self._made()
        if call is None:
            name = type(layer.witnessed.module).__name__
            raise self._refusal(layer, f"{name} is not called with hidden_states")
        press.compression_ratio = self._compression_ratio(layer)
        with self._explained(layer), _inferring(layer), _with_rotary(layer, call):
            if projects_itself(self._class):
                self._check_queries(layer, call)
            found = press.score(
                layer.witnessed.module,
                call.hidden_states,
                layer.key,
                layer.value,
                None,
                _Keywords(_keywords(call)),
            )
        if not isinstance(found, Tensor) or found.shape != layer.key.shape[:3]:
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise self._refusal(layer, f"scores {shape} instead of {list(layer.key.shape[:3])}")
        if found.isnan().any():
            raise self._refusal(layer, "some scores are not numbers (NaN)")
        return found

    @cached_property
    def _class(self) -> type[Any]:
        return press_class(self.press)

    def _made(self) -> Any:
        try:
            return self._class(**(self.arguments or {}))
        except (AssertionError, TypeError) as error:
            known = [name for name in inspect.signature(self._class).parameters if name != _RATIO]
            raise ValueError(
                f"kvpress: {self.press} cannot be made with arguments={self.arguments}: {error}; "
                f"its arguments are {', '.join(known)}"
            ) from error

    def _compression_ratio(self, layer: ContextLayer) -> float:
        """Return the ratio by which kvpress keeps as many keys; some presses score by it."""
        kept, length = self.budget(layer), layer.length
        ratio = 1 - (kept / length if self.fraction is None else self.fraction)
        # kvpress rounds down what may be slightly less than a whole number.
        return ratio if int(length * (1 - ratio)) == kept else 1 - (kept + 0.5) / length

    def _check_queries(self, layer: ContextLayer, call: AttentionCall) -> None:
        """Check that kvpress projects and rotates queries as this model does."""
        with kvpress_importable():
            helpers = importlib.import_module("kvpress.utils")
        module, query = layer.witnessed.module, layer.witnessed.queries[:, :, -1:].float()
        own = helpers.get_prerope_query_states(module, call.hidden_states[:, -1:]).float()
        angles = call.position_embeddings
        if angles is not None and own.shape == query.shape:
            cos, sin = (part[:, -1:].unsqueeze(1).float() for part in angles)  # B 1 1 D
            if cos.shape[-1] == own.shape[-1]:
                left, right = own.chunk(2, dim=-1)
                own = own * cos + torch.cat([-right, left], dim=-1) * sin
                if (own - query).norm() <= 0.05 * query.norm():
                    return
        raise self._refusal(
            layer, f"kvpress computes other queries than {type(module).__name__} has"
        )

    @contextmanager
    def _explained(self, layer: ContextLayer) -> Iterator[None]:
        try:
            yield
        except (AssertionError, NotImplementedError) as error:
            # What a press says about contexts and models that it does not take.
            raise self._refusal(layer, str(error) or type(error).__name__) from error
        except AttributeError as error:
            if "rotary_emb" not in str(error):
                raise
            reason = "this model has no rotary embedding that serves all layers and lengths"
            raise self._refusal(layer, reason) from error

    def _refusal(self, layer: ContextLayer, reason: str) -> ConfigurationError:
        return ConfigurationError(
            f"sparse_attention.evict: {self.press} cannot score the {layer.length} keys of layer "
            f"{layer.layer_idx}: {reason}; change its arguments, or choose another evictor"
        )


def _keywords(call: AttentionCall) -> dict[str, Any]:
    given = {
        "hidden_states": call.hidden_states,
        "position_embeddings": call.position_embeddings,
    }
    return {name: value for name, value in given.items() if value is not None}


class _Keywords(dict[str, Any]):
    """The keyword arguments of a layer that a press may read; any other is refused by name."""

    def __missing__(self, name: str) -> Any:
        raise NotImplementedError(
            f"it reads kwargs[{name!r}], but after the shared prefill there are only "
            f"{' and '.join(self)}"
        )

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value as `[]` does: a default would hide that it is missing."""
        return self[name]


@contextmanager
def _inferring(layer: ContextLayer) -> Iterator[None]:
    """Infer inside the block, with torch's global generators seeded; restore them after it."""
    with (
        torch.inference_mode(),
        torch.random.fork_rng([layer.key.device] if layer.key.is_cuda else []),
    ):
        torch.manual_seed(layer.seed)
        yield


@contextmanager
def _with_rotary(layer: ContextLayer, call: AttentionCall) -> Iterator[None]:
    """Give the attention module its rotary embedding inside the block, as kvpress does."""
    module = layer.witnessed.module
    if call.rotary is None or hasattr(module, "rotary_emb"):
        yield
        return
    # Not as a submodule, which would change the model's parameters.
    object.__setattr__(module, "rotary_emb", call.rotary)
    try:
        yield
    finally:
        object.__delattr__(module, "rotary_emb")
