"""The keys that one layer keeps of a context."""

# B batch, G key-value heads, C keys of the context, N kept keys, D/V dimensions

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class KeptKeys:
    """The keys that one layer keeps of a context, beside all that it had.

    Heads may keep different numbers of keys; N is the largest, and the others are padded.
    """

    position: Int[Tensor, "B G N"]
    """Places in the context, ascending; padding repeats the last one."""
    valid: Bool[Tensor, "B G N"] | None
    """False in padding, which comes last; None if there is none."""
    key: Float[Tensor, "B G C D"]
    """All keys of the context; the tensor is that of the shared cache."""
    value: Float[Tensor, "B G C V"]
    per_head: float
    """Mean number of kept keys over the heads."""
    memory: tuple[Tensor, ...] = ()
    """What an evictor that goes on evicting after the context starts with."""

    @classmethod
    def of(
        cls,
        alive: Bool[Tensor, "B G C"],
        key: Float[Tensor, "B G C D"],
        value: Float[Tensor, "B G C V"],
        each: int | None = None,
    ) -> "KeptKeys":
        """Find the kept keys.

        Args:
            alive: false for the others.
            key: all keys of the context.
            value: its values.
            each: keys that every head keeps, if the host knows it: nothing waits for the device.

        Raises:
            ValueError: if a head keeps none.
        """
        in_order = (~alive).to(torch.uint8).argsort(dim=-1, stable=True)  # kept ones first
        if each is not None:
            return cls(
                position=in_order[..., :each],
                valid=None,
                key=key,
                value=value,
                per_head=float(each),
            )
        count = alive.sum(-1, keepdim=True)  # B G 1
        least, most = int(count.min()), int(count.max())
        if least == 0:
            raise ValueError("an evictor kept no key of a head; at least one has to stay")
        position = in_order[..., :most]
        valid = None
        if least < most:
            valid = torch.arange(most, device=alive.device) < count
            position = position.where(valid, position.gather(-1, count - 1))
        return cls(
            position=position,
            valid=valid,
            key=key,
            value=value,
            per_head=float(count.double().mean()),
        )

    @classmethod
    def nothing(cls, key: Float[Tensor, "B G K D"], value: Float[Tensor, "B G K V"]) -> "KeptKeys":
        """Return what is kept of an empty context, shaped like these keys and values."""
        empty = torch.zeros((*key.shape[:2], 0), dtype=torch.long, device=key.device)
        return cls(
            position=empty, valid=None, key=key[:, :, :0], value=value[:, :, :0], per_head=0.0
        )

    def remembering(self, memory: tuple[Tensor, ...]) -> "KeptKeys":
        """Return the same keys, with what the evictor starts from after the context."""
        return replace(self, memory=memory)

    @property
    def rows(self) -> int:
        """Rows of each head, padding included, N."""
        return self.position.shape[-1]

    @property
    def occupied(self) -> Bool[Tensor, "B G N"]:
        """Which rows are not padding."""
        if self.valid is not None:
            return self.valid
        return torch.ones_like(self.position, dtype=torch.bool)

    @property
    def dropped(self) -> int:
        """Keys of the context that have no row: C - N."""
        return self.key.shape[2] - self.rows

    def rows_of(self, tensor: Shaped[Tensor, "B G C D"]) -> Shaped[Tensor, "B G N D"]:
        """Copy the kept rows of the context's keys or values."""
        index = self.position.unsqueeze(-1).expand(-1, -1, -1, tensor.shape[-1])
        return tensor.gather(2, index)
