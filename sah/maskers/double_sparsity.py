"""Keys ranked by a few of their channels, picked offline."""

# B batch, H query heads, G key-value heads, X heads that have channels of their own (H or G)
# Q queries, K keys, N keys to encode, D head dimension, R channels kept, P bytes they take

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sah.attention import AttentionInputs, EncodedKeys, TopKMasker
from sah.maskers.shared.calibration_files import find_calibration


@dataclass(frozen=True, kw_only=True)
class DoubleSparsity(TopKMasker):
    """Add the candidates that score highest on the channels that matter (arXiv:2408.07092).

    Of the D channels, the D / group_factor whose products weigh most are kept, picked for each
    layer and head on a calibration text. The label cache holds them for every key, quantised
    per key to `label_bits` between the smallest and the largest; a key's score is the dot
    product on the kept channels.

    Deviations. Scores are not scaled by 1/√R, which changes no order. Channels picked per query
    head (qk and q, as in the authors' code for grouped queries) make a label cache per query
    head; `k` picks per key-value head, with a cache H/G times smaller. Offsets and steps of the
    quantisation are kept in float16.
    """

    channels: str
    """Channel file: `model@digest` as composed from the model, or the path of a JSON file."""
    channel: Literal["qk", "q", "k"] = "qk"
    """What the channels were ranked by: mean |q·k|, |q| or |k| per channel."""
    group_factor: int = 16
    """D / group_factor channels are kept, at least one."""
    label_bits: int = 4
    """Bits of a kept channel: 4, 8, or 16 (no quantisation: float16)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        find_calibration("double_sparsity", self.channels)
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

    def _kept(self, inputs: AttentionInputs) -> Int[Tensor, "X R"]:
        """The channels that this layer keeps."""
        path = find_calibration("double_sparsity", self.channels)
        ranked = _ranked_channels(path, path.stat().st_mtime_ns)
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
        return channels[:, : max(1, dim // self.group_factor)]


@functools.lru_cache(maxsize=8)
def _ranked_channels(path: Path, modified: int) -> dict[str, list[list[int]]]:
    ranked: dict[str, list[list[int]]] = json.loads(path.read_text(encoding="utf-8"))
    return ranked


class LabelCache(EncodedKeys):
    """The kept channels of every key, quantised and packed."""

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
        encode = self._kept_channels if label_bits == 16 else self._quantised
        super().__init__(encode, key, value)

    def scores(self, query: Float[Tensor, "B H Q D"]) -> Float[Tensor, "B H Q K"]:
        """Approximate q·k on the kept channels, in float32."""
        batch, heads, queries, dim = query.shape
        groups = self._channels.shape[0]
        # Rows of the heads that share a list of channels lie side by side.
        rows = query.float().reshape(batch, groups, heads // groups * queries, dim)
        kept = rows.gather(-1, self._channels[None, :, None].expand(batch, -1, rows.shape[2], -1))
        if self._bits == 16:
            (labels,) = self.codes
            products = kept @ labels.float()
        else:
            packed, step, lowest = self.codes
            # label = code · step + lowest, so that the codes need not be expanded first.
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
        """Codes (two to a byte at 4 bits), and step and lowest value of each key."""
        labels = self._kept_channels(key, value)[0].float()
        lowest, highest = labels.amin(2), labels.amax(2)
        step = ((highest - lowest) / (2**self._bits - 1)).half()
        # Where all channels are equal, or nearly, every code is 0.
        safe = step.float().where(step > 0, 1.0).unsqueeze(2)
        codes = ((labels - lowest.unsqueeze(2)) / safe).round().clamp(0, 2**self._bits - 1)
        return self._packed(codes.to(torch.uint8)), step, lowest.half()

    def _packed(self, codes: UInt8[Tensor, "B X R N"]) -> Tensor:
        if self._bits == 8:
            return codes
        if codes.shape[2] % 2:
            codes = torch.nn.functional.pad(codes, (0, 0, 0, 1))
        return codes[:, :, 0::2] | codes[:, :, 1::2] << 4

    def _times_codes(
        self, kept: Float[Tensor, "B X S R"], packed: UInt8[Tensor, "B X P N"]
    ) -> Float[Tensor, "B X S N"]:
        """Dot products of the queries' kept channels with the codes."""
        if self._bits == 8:
            return kept @ packed.float()
        # A byte is low + 16 · high: q·low + p·high = q·byte + (p - 16·q)·high, which leaves
        # the bytes as they lie.
        low, high = kept[..., 0::2], kept[..., 1::2]
        if high.shape[-1] < low.shape[-1]:
            high = torch.nn.functional.pad(high, (0, 1))
        return low @ packed.float() + (high - 16 * low) @ (packed >> 4).float()
