"""Locality-sensitive hashing by random hyperplanes."""

# D head dimension, L tables, P planes per table

import torch
from jaxtyping import Float, Int16
from torch import Tensor


class Hyperplanes:
    """`tables` tables of `planes` hyperplanes through the origin, drawn from a normal distribution.

    Two vectors at an angle θ lie on the same side of a plane with probability 1 - θ/π.
    """

    def __init__(
        self, vectors: Float[Tensor, "*rest D"], *, tables: int, planes: int, seed: int
    ) -> None:
        """Draw the planes.

        Args:
            vectors: any tensor with the dimension and device of the vectors to hash.
            tables: number of tables.
            planes: planes per table, at most 15, so that a bucket fits into int16.
            seed: of the draw.
        """
        dim, device = vectors.shape[-1], vectors.device
        self.planes = planes
        self._bit_values = 2.0 ** torch.arange(planes, device=device)
        generator = torch.Generator(device).manual_seed(seed)
        self.normals: Float[Tensor, "D LP"] = torch.randn(
            dim, tables * planes, generator=generator, device=device
        )

    def buckets(self, vectors: Float[Tensor, "*rest D"]) -> Int16[Tensor, "*rest L"]:
        """Return the bucket of each vector in each table; bit p is the side of plane p."""
        side: Tensor = (vectors @ self.normals).ge_(0).unflatten(-1, (-1, self.planes))
        # float32 holds integers below 2^15 exactly.
        return (side @ self._bit_values).short()
