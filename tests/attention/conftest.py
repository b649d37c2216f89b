"""Tiny attention problems with known answers."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from sah.attention import AttentionInputs, AttentionMask, Visibility


@pytest.fixture(scope="session")
def make_inputs() -> Callable[..., AttentionInputs]:
    """Return random inputs; causal, with `padding[b]` invisible keys on the left."""

    def make(
        *,
        heads: int = 4,
        groups: int = 2,
        queries: int = 1,
        keys: int = 12,
        dim: int = 8,
        value_dim: int = 8,
        padding: Sequence[int] = (0,),
        softcap: float | None = None,
        sinks: bool = False,
        seed: int = 0,
    ) -> AttentionInputs:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        batch = len(padding)
        position = torch.arange(keys)
        causal = position <= torch.arange(keys - queries, keys)[:, None]
        real = position >= torch.tensor(padding)[:, None, None, None]
        return AttentionInputs(
            query=normal(batch, heads, queries, dim),
            key=normal(batch, groups, keys, dim),
            value=normal(batch, groups, keys, value_dim),
            visibility=Visibility(causal & real),
            scaling=dim**-0.5,
            softcap=softcap,
            sinks=normal(heads) if sinks else None,
            first_position=keys - queries,
            context_length=keys - queries,
        )

    return make


@pytest.fixture(scope="session")
def random_mask() -> Callable[..., AttentionMask]:
    """Return a mask of about `share` of the visible keys, with uneven and empty rows."""

    def make(
        inputs: AttentionInputs, *, share: float, weighted: bool, seed: int = 0
    ) -> AttentionMask:
        generator = torch.Generator().manual_seed(seed)
        shape = (*inputs.query.shape[:3], inputs.key.shape[2])
        row_share = 2 * share * torch.rand(*shape[:3], 1, generator=generator)
        selected = inputs.visible & (torch.rand(shape, generator=generator) < row_share)
        weight = 1 + 5 * torch.rand(shape, generator=generator)
        return AttentionMask(
            visible=inputs.visible,
            selected=selected,
            # Weights of keys that are not selected must not matter.
            sampled_weight=weight if weighted else None,
        )

    return make


@pytest.fixture(scope="session")
def formula() -> Callable[[AttentionInputs, AttentionMask], Tensor]:
    """Compute Σ w·e^s·v / (Σ w·e^s + e^sink) in float64, one query and head at a time."""

    def compute(inputs: AttentionInputs, mask: AttentionMask) -> Tensor:
        batch, heads, queries, _ = inputs.query.shape
        keys, value_dim = inputs.value.shape[2:]
        groups = inputs.key.shape[1]
        output = torch.zeros(batch, heads, queries, value_dim, dtype=torch.float64)
        for b in range(batch):
            for h in range(heads):
                group = h // (heads // groups)
                for q in range(queries):
                    numerator = torch.zeros(value_dim, dtype=torch.float64)
                    denominator = torch.zeros((), dtype=torch.float64)
                    if inputs.sinks is not None:
                        denominator += inputs.sinks[h].double().exp()
                    for k in range(keys):
                        if not mask.selected[b, h, q, k]:
                            continue
                        product = inputs.query[b, h, q].double() @ inputs.key[b, group, k].double()
                        score = product * inputs.scaling
                        if inputs.softcap is not None:
                            score = inputs.softcap * torch.tanh(score / inputs.softcap)
                        weight = 1.0
                        if mask.sampled_weight is not None:
                            weight = float(mask.sampled_weight[b, h, q, k])
                        numerator += weight * score.exp() * inputs.value[b, group, k].double()
                        denominator += weight * score.exp()
                    if denominator > 0:
                        output[b, h, q] = numerator / denominator
        return output

    return compute
