"""Keys ranked by a few channels that a calibration picked."""

# B batch, H query heads, G key-value heads, X heads with separate channels (H or G)
# Q queries, S query rows per X head, K keys, N keys to encode, D head dimension
# R channels kept, P bytes of their codes

import functools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sah.attention import AttentionInputs, EncodedKeys, TopKMasker
from sah.content.calibration_files import find_calibration, require_composed
from sah.maskers.shared.packed_bits import pack_nibbles, products_with_nibbles


@dataclass(frozen=True, kw_only=True)
class DoubleSparsity(TopKMasker):
    """Add the candidates that score highest on a few important channels (arXiv:2408.07092).

    A calibration text ranks the channels of each layer and head by the size of their products;
    the first D / group_factor are kept. The label cache holds them for every key, quantised per
    key to `label_bits` between its minimum and maximum. A key's score is the dot product on the
    kept channels.

    Deviations. Scores are scaled by 1/√R only for heads that select together, since the scale
    changes no order within a head. Queries are not quantised;
    the authors quantise the query's label too. Channels picked per query head (qk and q, as in
    the authors' code for grouped queries) take a label cache per query head; `k` picks per
    key-value head, with a cache H/G times smaller. Offsets and steps are kept in float16. The
    authors keep layers 0 and 1 dense; the preset does not.
    """

    batched: ClassVar[bool] = True

    channels: str
    """Channel file: `model@digest`, composed from the model, or the path of a JSON file."""
    content: Mapping[str, Any] | None = field(default=None, hash=False)
    """Digest of a file given by its path, as composed; another one is refused."""
    channel: Literal["qk", "q", "k"] = "qk"
    """Ranking of the channels: by mean |q·k|, |q| or |k| per channel."""
    group_factor: int = 16
    """D / group_factor channels are kept, at least one."""
    label_bits: int = 4
    """Bits per kept channel: 4, 8 or 16 (float16, no quantisation)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_composed(find_calibration("double_sparsity", self.channels), self._composed)
        if self.channel not in ("qk", "q", "k"):
            raise ValueError(f"DoubleSparsity: channel must be qk, q or k, got {self.channel!r}")
        if self.group_factor < 1:
            raise ValueError(
                f"DoubleSparsity: group_factor must be at least 1, got {self.group_factor}"
            )
        if self.label_bits not in (4, 8, 16):
            raise ValueError(
                f"DoubleSparsity: label_bits must be 4, 8 or 16, got {self.label_bits}"
            )

    def scores(self, inputs: AttentionInputs) -> Float[Tensor, "B H Q K"]:
        labels = inputs.index(
            self,
            lambda key, value: LabelCache(
                self._kept(inputs), key, value, label_bits=self.label_bits
            ),
        )
        return labels.scores(inputs.query)

    def logits(
        self, inputs: AttentionInputs, scores: Float[Tensor, "B H Q K"]
    ) -> Float[Tensor, "B H Q K"]:
        return scores / math.sqrt(self._number_of_channels(inputs))

    @property
    def _composed(self) -> str | None:
        return (self.content or {}).get("channels")

    def _number_of_channels(self, inputs: AttentionInputs) -> int:
        dim: int = inputs.query.shape[-1]
        return max(1, dim // self.group_factor)

    def _kept(self, inputs: AttentionInputs) -> Int[Tensor, "X R"]:
        """Return the channels that this layer keeps."""
        path = find_calibration("double_sparsity", self.channels)
        ranked = _ranked_channels(path, path.stat().st_mtime_ns, self._composed)
        name = f"model.layers.{inputs.layer_idx}.self_attn.{self.channel}_proj"
        if name not in ranked:
            raise ValueError(
                f"DoubleSparsity: {path} has no {name}; it was made for a model of fewer layers, "
                "or with other channels"
            )
        dim = inputs.query.shape[-1]
        heads = inputs.key.shape[1] if self.channel == "k" else inputs.query.shape[1]
        channels = torch.tensor(ranked[name], device=inputs.key.device)
        if channels.shape != (heads, dim):
            raise ValueError(
                f"DoubleSparsity: {path} ranks {list(channels.shape)} [heads, channels] in layer "
                f"{inputs.layer_idx}, the model has {[heads, dim]}; it was made for another model"
            )
        return channels[:, : self._number_of_channels(inputs)]


@functools.lru_cache(maxsize=8)
def _ranked_channels(path: Path, modified: int, composed: str | None) -> dict[str, list[list[int]]]:
    require_composed(path, composed)
    ranked: dict[str, list[list[int]]] = json.loads(path.read_text(encoding="utf-8"))
    return ranked


class LabelCache(EncodedKeys):
    """Kept channels of all keys, quantised and packed."""

    row_tensors = ()

    def __init__(
        self,
        channels: Int[Tensor, "X R"],
        key: Float[Tensor, "B G N D"],
        value: Float[Tensor, "B G N V"],
        *,
        label_bits: int,
    ) -> None:
        self._channels = channels
        self._bits = label_bits
        super().__init__(None, key, value)

    def encode(
        self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]
    ) -> Sequence[Tensor]:
        """Return the labels of the keys, quantised unless they take 16 bits."""
        return (self._kept_channels if self._bits == 16 else self._quantised)(key, value)

    def scores(self, query: Float[Tensor, "B H Q D"]) -> Float[Tensor, "B H Q K"]:
        """Return q·k on the kept channels, in float32."""
        batch, heads, queries, dim = query.shape
        groups = self._channels.shape[0]
        # Heads that share a list of channels are stacked.
        rows = query.float().reshape(batch, groups, heads // groups * queries, dim)  # B X S D
        kept = rows.gather(-1, self._channels[None, :, None].expand(batch, -1, rows.shape[2], -1))
        if self._bits == 16:
            (labels,) = self.codes
            products = kept @ labels.float()
        else:
            packed, step, lowest = self.codes
            # label = code · step + lowest: the products apply to the codes as they are packed.
            products = self._times_codes(kept, packed) * step.float().unsqueeze(2)
            products += kept.sum(-1, keepdim=True) * lowest.float().unsqueeze(2)
        return products.reshape(batch, heads, queries, -1)

    def _kept_channels(
        self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]
    ) -> tuple[Float[Tensor, "B X R N"]]:
        groups, heads = key.shape[1], self._channels.shape[0]
        group = torch.arange(heads, device=key.device) // (heads // groups)
        return (key.transpose(2, 3)[:, group[:, None], self._channels].half(),)

    def _quantised(
        self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]
    ) -> tuple[UInt8[Tensor, "B X P N"], Float[Tensor, "B X N"], Float[Tensor, "B X N"]]:
        """Return codes (two per byte at 4 bits), and step and minimum of each key."""
        labels = self._kept_channels(key, value)[0].float()
        lowest, highest = labels.amin(2), labels.amax(2)
        step = ((highest - lowest) / (2**self._bits - 1)).half()
        # Where all channels are (nearly) equal the step is 0, and so is every code.
        safe = step.float().where(step > 0, 1.0).unsqueeze(2)
        codes = ((labels - lowest.unsqueeze(2)) / safe).round().clamp(0, 2**self._bits - 1)
        packed = codes.to(torch.uint8)
        return pack_nibbles(packed) if self._bits == 4 else packed, step, lowest.half()

    def _times_codes(
        self, kept: Float[Tensor, "B X S R"], packed: UInt8[Tensor, "B X P N"]
    ) -> Float[Tensor, "B X S N"]:
        """Return dot products of the queries' kept channels with the codes."""
        if self._bits == 4:
            return products_with_nibbles(kept, packed)
        return kept @ packed.float()
