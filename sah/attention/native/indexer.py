"""The model's own indexer: switch it off and on, and read the keys that it selects.

Some models are trained with sparse attention: in each layer a small indexer selects the keys that
a query reads (DeepSeek-V3.2's DSA, arXiv:2512.02556). In transformers only the attention functions
`eager` and `sdpa` apply the selection, in the mask; every other one gets the whole mask and, in
most architectures, the selection as a keyword. A function of another name that ignores the keyword
therefore reads all visible keys. Where the selection is applied in the mask whatever the function
(Qwen4-Exp), a hook on the indexer replaces it by all keys.
"""

# B batch, H query heads, I indexer heads, Q queries, K keys, N selected keys or blocks, M blocks

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface

from sah.attention.interface import attention_function, layer_number, mask_function
from sah.attention.layers import indexed_layers
from sah.errors import ConfigurationError

SELECTION_KEYWORDS = frozenset({"indices", "block_indices"})
"""Keywords in which an indexer's selection is handed to the attention function."""

_APPLIED_BY = ("eager", "sdpa")
"""Attention functions whose masks the models' code combines with the selection."""
_OFF = "_without_indexer"


def switch_off(model: PreTrainedModel) -> bool:
    """Make a model's own attention read all visible keys, if it has an indexer.

    The indexer still runs, so that it can be switched on again for tokens after those in a cache;
    its selection is ignored. Does nothing if it is off already.

    Returns:
        Whether the model has an indexer.

    Raises:
        ConfigurationError: if the model's attention function applies the selection itself.
    """
    try:
        indexed = indexed_layers(model.config)
    except AttributeError:  # a configuration that does not list its layers, which the gate refuses
        return False
    if not indexed:
        return False
    config = model.config.get_text_config(decoder=True)
    name = config._attn_implementation
    if name.endswith(_OFF):
        return True
    if name not in _APPLIED_BY:
        raise ConfigurationError(
            f"the model's own indexer cannot be switched off in the attention function {name!r}; "
            "set +model.model_kwargs.attn_implementation=sdpa or eager"
        )
    AttentionInterface.register(name + _OFF, _ignoring_selections(name))
    AttentionMaskInterface.register(name + _OFF, mask_function(name))
    config._attn_implementation = name + _OFF

    def select_all(_: nn.Module, __: Any, selection: Any) -> Any:
        is_on = config._attn_implementation in _APPLIED_BY
        return torch.ones_like(selection) if _is_mask(selection) and not is_on else None

    for indexer in _indexers(model):
        indexer.register_forward_hook(select_all)
    return True


@contextmanager
def switched_on(model: PreTrainedModel) -> Iterator[None]:
    """Run the model's own code with its indexer inside the block."""
    config = model.config.get_text_config(decoder=True)
    before = config._attn_implementation
    config._attn_implementation = before.removesuffix(_OFF)
    try:
        yield
    finally:
        config._attn_implementation = before


def without_selection(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keywords of an attention call without an indexer's selection."""
    return {key: value for key, value in keywords.items() if key not in SELECTION_KEYWORDS}


class IndexerSelections:
    """Takes the selections of the model's own indexer out of the attention calls of a session."""

    def __init__(self) -> None:
        self._layers: frozenset[int] = frozenset()
        self._is_on = False
        self._masks: dict[int, Tensor] = {}
        """The latest selection of each indexer that returns masks, by layer."""

    @contextmanager
    def of(self, model: PreTrainedModel, is_on: bool) -> Iterator[None]:
        """Take the selections of a model inside the block.

        Args:
            model: its attention is replaced.
            is_on: whether the selections are read; otherwise they are dropped.
        """
        self._layers, self._is_on = indexed_layers(model.config), is_on
        with ExitStack() as hooks:
            hooks.callback(self._masks.clear)
            for indexer in _indexers(model) if is_on else ():
                # Before the hook of `switch_off`, which replaces the selection.
                handle = indexer.register_forward_hook(self._catch, prepend=True)
                hooks.callback(handle.remove)
            yield

    def _catch(self, indexer: nn.Module, _: Any, selection: Any) -> None:
        if _is_mask(selection):
            self._masks[layer_number(indexer)] = selection

    def take(
        self, module: nn.Module, layer: int, keywords: dict[str, Any], *, heads: int, keys: int
    ) -> Bool[Tensor, "#B #H Q K"] | None:
        """Remove a selection from the keywords of an attention call; return the selected keys.

        Invisible keys may be among them, where fewer keys are visible than the indexer selects.

        Returns:
            None in a layer without an indexer, or if it is off.
        """
        if layer not in self._layers:
            return None
        handed = {name: keywords.pop(name, None) for name in SELECTION_KEYWORDS}
        if not self._is_on:
            return None
        if layer in self._masks:
            return self._masks.pop(layer)
        return _selected(module, handed, heads=heads, keys=keys)


def _selected(
    module: nn.Module, handed: Mapping[str, Any], *, heads: int, keys: int
) -> Bool[Tensor, "#B #H Q K"] | None:
    tokens, blocks = handed["indices"], handed["block_indices"]
    if tokens is not None:
        return _scattered(tokens, keys).unsqueeze(1)  # B 1 Q K; all heads share it
    if blocks is None:
        return None
    size: Any = module.get_submodule("indexer").block_size
    chosen = _scattered(blocks, -(-keys // size))  # B I Q M
    chosen = chosen.repeat_interleave(size, dim=-1)[..., :keys]
    return chosen.repeat_interleave(heads // chosen.shape[1], dim=1)  # B H Q K


def _scattered(positions: Tensor, size: int) -> Tensor:
    """Return a mask of `size` that is true at the positions; -1 is no position."""
    slots = positions.long()
    slots = slots.masked_fill(slots < 0, size)
    chosen = torch.zeros(
        (*slots.shape[:-1], size + 1), dtype=torch.bool, device=slots.device
    )  # the last column takes the -1
    return chosen.scatter_(-1, slots, True)[..., :size]


def _indexers(model: PreTrainedModel) -> list[nn.Module]:
    return [module for name, module in model.named_modules() if name.endswith(".indexer")]


def _is_mask(selection: Any) -> bool:
    return isinstance(selection, Tensor) and selection.dtype == torch.bool


def _ignoring_selections(name: str) -> Any:
    """Return the attention function of this name without an indexer's selection."""

    def attend(module: nn.Module, *arguments: Any, **keywords: Any) -> Any:
        return attention_function(name, module)(module, *arguments, **without_selection(keywords))

    return attend
