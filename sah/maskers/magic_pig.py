"""Keys sampled by locality-sensitive hashing, with known inclusion probabilities."""

# B batch, G key-value heads, S query rows per group, K keys, N keys to encode
# D head dimension, L tables, P planes per table

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from sah.attention import AttentionInputs, AttentionMask, EncodedKeys
from sah.attention.index import in_chunks


@dataclass(frozen=True, kw_only=True)
class MagicPIG:
    """Add the candidates that share enough hash buckets with the query (arXiv:2410.16179).

    Each of `tables` tables signs queries and centred keys with `planes` random hyperplanes; a
    key is sampled if its bucket is the query's in at least `min_collisions` tables. At an angle
    θ one table collides with probability P = (1 - θ/π)^planes, so that the key is included with
    probability 1 - Σ_{i < min_collisions} C(L, i)·P^i·(1 - P)^(L - i), and weighs one over that.
    How many keys are read depends on the angles; there is no budget.

    Deviations. Keys are centred by the mean of the context's keys, which stays as it is for the
    keys that follow; the authors' code also lengthens keys to a common norm, here angles are
    those of the centred keys themselves. A query that collides with nothing reads nothing: put
    Sink and Local before, as the preset does. The paper keeps layers 0 and 1 dense, as the
    preset does.
    """

    planes: int = 10
    """Hyperplanes per table, from 1 to 15 (K in the paper)."""
    tables: int = 150
    """Hash tables, from 1 to 255 (L in the paper)."""
    min_collisions: int = 2
    """Tables that must agree."""
    centre: bool = True
    """Whether the mean of the context's keys is taken from all keys before they are hashed."""

    def __post_init__(self) -> None:
        if not 1 <= self.planes <= 15:
            raise ValueError(f"MagicPIG: planes must be from 1 to 15, got {self.planes}")
        if not 1 <= self.tables <= 255:
            raise ValueError(f"MagicPIG: tables must be from 1 to 255, got {self.tables}")
        if not 1 <= self.min_collisions <= self.tables:
            raise ValueError(
                f"MagicPIG: min_collisions must be from 1 to tables={self.tables}, "
                f"got {self.min_collisions}"
            )

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        index = inputs.index(
            self, lambda key, value: SignedKeys(self, key, value, inputs.index_seed)
        )
        query = inputs.grouped(inputs.query).float()
        buckets, norms = index.codes
        collisions = _collisions(index.buckets_of(query), buckets)
        sampled = collisions >= self.min_collisions
        # q·(k - mean), from the products that are there already.
        products = inputs.grouped(inputs.dot_products) - query @ index.mean.transpose(-1, -2)
        lengths = query.norm(dim=-1, keepdim=True) * norms.unsqueeze(2)
        # In float64, because a small probability is a difference of two numbers near 1.
        cosine = products[sampled].double() / lengths[sampled].clamp(min=1e-30)
        probability = self.inclusion_probability(cosine.clamp(-1, 1).acos())
        weight = torch.ones_like(products)
        # A key that was sampled has a probability, however small rounding makes it.
        weight[sampled] = (1 / probability.clamp(min=1e-30)).float()
        return mask.add(inputs.per_head(sampled), inputs.per_head(weight))

    def inclusion_probability(self, angle: Tensor) -> Tensor:
        """Probability that a key at this angle (radians, float64) to the query is sampled."""
        one_table = (1 - angle / math.pi) ** self.planes
        missed = torch.zeros_like(one_table)
        for collisions in range(self.min_collisions):
            ways = math.comb(self.tables, collisions)
            missed += ways * one_table**collisions * (1 - one_table) ** (self.tables - collisions)
        return 1 - missed


_CHUNK_KEYS = 1024


def _collisions(
    query: Int[Tensor, "B G S L"], buckets: Int[Tensor, "B G L K"]
) -> UInt8[Tensor, "B G S K"]:
    """In how many tables each query's bucket is the key's.

    One query at a time: the comparison takes L · K bytes per key-value head.
    """
    counts = [(buckets == row.unsqueeze(-1)).sum(2, dtype=torch.uint8) for row in query.unbind(2)]
    return torch.stack(counts, dim=2)


class SignedKeys(EncodedKeys):
    """The bucket of every centred key in every table, two bytes each, and its norm."""

    def __init__(
        self,
        settings: MagicPIG,
        key: Float[Tensor, "B G N D"],
        value: Float[Tensor, "B G N V"],
        seed: int,
    ) -> None:
        generator = torch.Generator(key.device).manual_seed(seed)
        self._settings = settings
        self._planes: Float[Tensor, "D LP"] = torch.randn(
            key.shape[-1],
            settings.tables * settings.planes,
            generator=generator,
            device=key.device,
        )
        mean = key.float().mean(2, keepdim=True)
        self.mean: Float[Tensor, "B G 1 D"] = mean if settings.centre else torch.zeros_like(mean)
        super().__init__(self._sign, key, value)

    @property
    def nbytes(self) -> int:
        """Memory of buckets, norms and planes, in bytes."""
        return super().nbytes + self._planes.nbytes + self.mean.nbytes

    def buckets_of(self, vectors: Float[Tensor, "B G N D"]) -> Int[Tensor, "B G N L"]:
        """The bucket of each vector in each table: bit p is the side of plane p."""
        side: Tensor = (vectors @ self._planes >= 0).unflatten(-1, (-1, self._settings.planes))
        bits = torch.arange(self._settings.planes, device=vectors.device)
        return (side.short() << bits.short()).sum(-1, dtype=torch.int16)

    def _sign(self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]) -> list[Tensor]:
        return in_chunks(self._sign_chunk, key, value, chunk_keys=_CHUNK_KEYS)

    def _sign_chunk(
        self, key: Float[Tensor, "B G N D"], value: Float[Tensor, "B G N V"]
    ) -> tuple[Int[Tensor, "B G L N"], Float[Tensor, "B G N"]]:
        centred = key.float() - self.mean
        return self.buckets_of(centred).transpose(2, 3), centred.norm(dim=-1)
