"""Codes of less than a byte, packed, and arithmetic on them without unpacking."""

# B batch, X heads, S query rows per head, N keys, R codes per key, P bytes they take, W words

import torch
from jaxtyping import Bool, Float, Int32, UInt8
from torch import Tensor


def pack_bits(bits: Bool[Tensor, "*rest N"]) -> Int32[Tensor, "*rest W"]:
    """Pack booleans along the last dimension, 32 per word; unused bits of the last word are 0.

    Bit i of word w is `bits[..., 32 * w + i]`.
    """
    bits = torch.nn.functional.pad(bits, (0, -bits.shape[-1] % 32)).unflatten(-1, (-1, 32))
    values = bits.long() << torch.arange(32, device=bits.device)
    # Words of 2^31 and more wrap around to the negative numbers.
    return values.sum(-1).to(torch.int32)


def count_ones(words: Int32[Tensor, "*shape"]) -> Int32[Tensor, "*shape"]:
    """Count the bits of every word that are 1; torch has no operation for it.

    Equal to

        (words.unsqueeze(-1) >> torch.arange(32) & 1).sum(-1)

    Sums neighbouring bits, then pairs, then nibbles; the product adds the four bytes into the
    highest one.
    """
    words = words - (words >> 1 & 0x55555555)
    words = (words & 0x33333333) + (words >> 2 & 0x33333333)
    return ((words + (words >> 4) & 0x0F0F0F0F) * 0x01010101) >> 24


def pack_nibbles(codes: UInt8[Tensor, "B X R N"]) -> UInt8[Tensor, "B X P N"]:
    """Pack 4-bit codes two per byte along dimension 2: the even one in the lower half.

    An odd number of codes is padded with a 0.
    """
    if codes.shape[2] % 2:
        codes = torch.nn.functional.pad(codes, (0, 0, 0, 1))
    return codes[:, :, 0::2] | codes[:, :, 1::2] << 4


def products_with_nibbles(
    query: Float[Tensor, "B X S R"], packed: UInt8[Tensor, "B X P N"]
) -> Float[Tensor, "B X S N"]:
    """Return the dot products of each query with the codes of each key.

    Equal to

        codes = torch.stack([packed & 15, packed >> 4], dim=3).flatten(2, 3)[:, :, :R]
        query @ codes.float()

    A byte is low + 16 · high, so that q·low + p·high = q·byte + (p - 16·q)·high, which needs no
    unpacked copy of the low halves.
    """
    even, odd = query[..., 0::2], query[..., 1::2]
    if odd.shape[-1] < even.shape[-1]:
        odd = torch.nn.functional.pad(odd, (0, 1))
    return even @ packed.float() + (odd - 16 * even) @ (packed >> 4).float()
