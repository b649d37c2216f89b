"""The attention that each key receives, block by block."""

import torch

from sah.attention.eviction.received import received_attention


def test_received_attention_of_several_blocks_is_the_sum_of_all_causal_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    length = 1100  # three blocks of queries on a CPU
    query = torch.randn(1, 4, length, 16, generator=generator)
    key = torch.randn(1, 2, length, 16, generator=generator)

    received = received_attention(query, key, scaling=0.25)

    scores = query @ key.repeat_interleave(2, dim=1).transpose(2, 3) * 0.25
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    weights = scores.double().masked_fill(future, -torch.inf).softmax(-1)
    assert torch.allclose(received.double(), weights.sum(2), rtol=1e-5)
