"""Keys ranked by learned binary signatures."""

# B batch, H query heads, G key-value heads, Q queries, K keys, N keys to encode
# D head dimension, I hidden dimension, W words of 32 bits

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int32
from safetensors.torch import load_file
from torch import Tensor

from sah.attention import AttentionInputs, EncodedKeys, TopKMasker
from sah.attention.index import encode_in_chunks
from sah.content.calibration_files import find_calibration, require_composed
from sah.maskers.shared.packed_bits import count_ones, pack_bits


@dataclass(frozen=True, kw_only=True)
class HashAttention(TopKMasker):
    """Add the candidates whose signatures share most bits with the query's (arXiv:2412.14468).

    Per layer and query head, one learned network maps queries and another maps keys to the signs
    of its outputs; a key's score is the number of equal bits. Signatures are packed into 32-bit
    words and cached: 4 bytes per key and query head at the published 32 bits.

    Deviations: of keys with equally many bits the later ones score higher; the paper leaves the
    order open. The paper selects per query head; for heads that select together (`share`) the
    number of equal bits counts as a logit.
    """

    batched: ClassVar[bool] = True

    weights: str
    """Weight file: `model@digest`, composed from the model, or the path of a safetensors file."""
    content: Mapping[str, Any] | None = field(default=None, hash=False)
    """Digest of a file given by its path, as composed; another one is refused."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_composed(find_calibration("hash_attention", self.weights), self._composed)

    def scores(self, inputs: AttentionInputs) -> Float[Tensor, "B H Q K"]:
        signatures = inputs.index(
            self, lambda key, value: Signatures(self._layer(inputs), key, value)
        )
        scores = signatures.equal_bits(inputs.query)
        # Later positions add less than one bit, so that few scores are equal.
        keys = scores.shape[-1]
        scores += torch.arange(keys, device=scores.device) / max(2**18, keys)
        return scores

    def logits(
        self, inputs: AttentionInputs, scores: Float[Tensor, "B H Q K"]
    ) -> Float[Tensor, "B H Q K"]:
        return scores

    @property
    def _composed(self) -> str | None:
        return (self.content or {}).get("weights")

    def _layer(self, inputs: AttentionInputs) -> "HashNetworks":
        path = find_calibration("hash_attention", self.weights)
        tensors = _tensors(path, path.stat().st_mtime_ns, self._composed)
        networks = HashNetworks.of_layer(tensors, inputs.layer_idx)
        if networks is None:
            raise ValueError(
                f"HashAttention: {path} has no layer {inputs.layer_idx}; it was made for a model "
                "of fewer layers"
            )
        heads, dim = inputs.query.shape[1], inputs.query.shape[-1]
        if networks.shape != (heads, dim) or not networks.consistent:
            raise ValueError(
                f"HashAttention: {path} is for {list(networks.shape)} [heads, head dimension], the "
                f"model has {[heads, dim]}; it was made for another model, or its networks for "
                "queries and keys do not fit together"
            )
        return networks.to(inputs.query.device)


@functools.lru_cache(maxsize=8)
def _tensors(path: Path, modified: int, composed: str | None) -> dict[str, Tensor]:
    require_composed(path, composed)
    return load_file(path)


# Weights [H, in, out] and biases [H, out] of one linear map per query head.
Linear = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class HashNetworks:
    """The two networks of every query head of a layer: linear maps with SiLU between them."""

    query: Sequence[Linear]
    key: Sequence[Linear]

    @classmethod
    def of_layer(cls, tensors: dict[str, Tensor], layer: int) -> "HashNetworks | None":
        """Return a layer's networks from a weight file, or None if it has no such layer.

        Names are `layers.{layer}.{query|key}.{n}.{weight|bias}`, weights [H, in, out],
        biases [H, out].
        """

        def network(kind: str) -> list[Linear]:
            found: list[Linear] = []
            while (name := f"layers.{layer}.{kind}.{len(found)}") + ".weight" in tensors:
                found.append((tensors[f"{name}.weight"].float(), tensors[f"{name}.bias"].float()))
            return found

        query, key = network("query"), network("key")
        return cls(query=query, key=key) if query and key else None

    @property
    def shape(self) -> tuple[int, int]:
        """Query heads and head dimension."""
        return self.query[0][0].shape[0], self.query[0][0].shape[1]

    @property
    def consistent(self) -> bool:
        """Whether both networks have the same heads, input dimension and number of bits."""
        return all(
            self.query[end][0].shape[side] == self.key[end][0].shape[side]
            for end, side in ((0, 0), (0, 1), (-1, 2))
        )

    @property
    def bits(self) -> int:
        """Number of bits of a signature."""
        return self.query[-1][0].shape[-1]

    def to(self, device: torch.device) -> "HashNetworks":
        """Return the networks on a device."""
        return HashNetworks(
            query=[(weight.to(device), bias.to(device)) for weight, bias in self.query],
            key=[(weight.to(device), bias.to(device)) for weight, bias in self.key],
        )

    def of_queries(self, query: Float[Tensor, "B H Q D"]) -> Float[Tensor, "B H Q bits"]:
        """Return the outputs whose signs are the queries' signatures."""
        return _rest_of_network(query.float() @ self.query[0][0], self.query)

    def of_keys(self, key: Float[Tensor, "B G N D"]) -> Float[Tensor, "B H N bits"]:
        """Return the outputs whose signs are the keys' signatures, per query head."""
        weight = self.key[0][0]
        heads, groups = weight.shape[0], key.shape[1]
        # One product with the first maps of all heads of a group, so that keys are not copied.
        side_by_side = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(2)  # G D (H/G·I)
        hidden = (key.float() @ side_by_side).unflatten(-1, (heads // groups, -1))
        return _rest_of_network(hidden.transpose(2, 3).flatten(1, 2), self.key)


def _rest_of_network(
    hidden: Float[Tensor, "B H N I"], network: Sequence[Linear]
) -> Float[Tensor, "B H N bits"]:
    """Apply the rest of a network after its first matrix product."""
    hidden = hidden + network[0][1].unsqueeze(1)
    for weight, bias in network[1:]:
        hidden = torch.nn.functional.silu(hidden) @ weight + bias.unsqueeze(1)
    return hidden


_CHUNK_KEYS = 1024


class Signatures(EncodedKeys):
    """Packed signatures of all keys, one per query head."""

    row_tensors = ()

    def __init__(
        self,
        networks: HashNetworks,
        key: Float[Tensor, "B G N D"],
        value: Float[Tensor, "B G N V"],
    ) -> None:
        self._networks = networks
        super().__init__(None, key, value)

    def equal_bits(self, query: Float[Tensor, "B H Q D"]) -> Float[Tensor, "B H Q K"]:
        """Count the bits that each key's signature shares with each query's."""
        (words,) = self.codes
        of_query = pack_bits(self._networks.of_queries(query) > 0)  # B H Q W
        different = sum(
            count_ones(of_query[..., word, None] ^ words[:, :, word].unsqueeze(2))
            for word in range(words.shape[2])
        )
        assert isinstance(different, Tensor)
        return (self._networks.bits - different).float()

    def encode(
        self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]
    ) -> list[Int32[Tensor, "B H W N"]]:
        """Return the packed signatures."""
        return encode_in_chunks(self._sign_chunk, key, value, chunk_keys=_CHUNK_KEYS)

    def _sign_chunk(
        self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]
    ) -> tuple[Int32[Tensor, "B H W N"]]:
        return (pack_bits(self._networks.of_keys(key) > 0).transpose(2, 3),)
