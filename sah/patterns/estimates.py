"""What patterns estimate a context's attention from, and selections by it. All in float32."""

# B batch, H query heads, G key-value heads, Q queries, W last queries, K keys, D dimension
# N blocks of queries, M blocks of keys

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from sah.attention.eviction.received import attention_weights
from sah.attention.prefill.pattern import PrefillLayer
from sah.attention.selection import select_top


def products(
    query: Float[Tensor, "B H Q D"], key: Float[Tensor, "B G K D"]
) -> Float[Tensor, "B H Q K"]:
    """Return the products of queries with the vectors of their key-value head."""
    batch, heads, queries, dim = query.shape
    # The queries of a key-value head are stacked, so that keys are not copied per query head.
    stacked = query.float().reshape(batch, key.shape[1], -1, dim)
    return (stacked @ key.float().transpose(-1, -2)).view(batch, heads, queries, -1)


def logits(
    layer: PrefillLayer, query: Float[Tensor, "B H Q D"], key: Float[Tensor, "B G K D"]
) -> Float[Tensor, "B H Q K"]:
    """Return `products` as attention logits: scaled and soft-capped."""
    scores = products(query, key) * layer.scaling
    if layer.softcap is not None:
        scores = layer.softcap * torch.tanh(scores / layer.softcap)
    return scores


def last_attention(layer: PrefillLayer, queries: int) -> Float[Tensor, "B H W K"]:
    """Return the exact attention weights of the last queries, at most all of them."""
    return attention_weights(
        layer.query[:, :, -queries:], layer.key, scaling=layer.scaling, softcap=layer.softcap
    )


def block_sums(values: Float[Tensor, "B H K"], block: int) -> Float[Tensor, "B H M"]:
    """Sum over blocks of consecutive keys; the last one may be shorter."""
    total: Tensor = pad(values, (0, -values.shape[2] % block)).unflatten(2, (-1, block)).sum(3)
    return total


def block_means(vectors: Float[Tensor, "B H K D"], block: int) -> Float[Tensor, "B H M D"]:
    """Average over blocks of consecutive tokens; the last one may be shorter."""
    length = vectors.shape[2]
    padded = pad(vectors.float(), (0, 0, 0, -length % block)).unflatten(2, (-1, block))
    starts = torch.arange(0, length, block, device=vectors.device)
    mean: Tensor = padded.sum(3) / (length - starts).clamp(max=block)[:, None]
    return mean


def block_distances(blocks: int, device: torch.device) -> Int[Tensor, "N N"]:
    """Return n - m of query block n and key block m; negative where all keys are later."""
    number = torch.arange(blocks, device=device)
    return number[:, None] - number


def best(scores: Float[Tensor, "B H K"], count: Int[Tensor, "#B #H"]) -> Bool[Tensor, "B H K"]:
    """Select the highest scores of each head; of equal ones at the end of the budget the first."""
    budget = count[..., None, None]
    return select_top(scores.unsqueeze(2), None, budget, scores.shape[-1]).squeeze(2)


def fewest_reaching(
    mass: Float[Tensor, "B H N M"], share: float, always: Bool[Tensor, "N M"]
) -> Bool[Tensor, "B H N M"]:
    """Select the fewest entries of each row that reach a share of its sum, beginning with `always`.

    A share of 1 selects all, those without mass too.
    """
    mass = mass.double()  # many small masses are summed and compared with a share of the sum
    order = mass.masked_fill(always, torch.inf).sort(descending=True, stable=True).indices
    before = pad(mass.gather(-1, order).cumsum(-1)[..., :-1], (1, 0))
    enough = torch.inf if share == 1 else share * mass.sum(-1, keepdim=True)
    selected = torch.zeros_like(mass, dtype=torch.bool).scatter_(-1, order, before < enough)
    return selected | always


def divergence(p: Float[Tensor, "B H M"], q: Float[Tensor, "B H M"]) -> Float[Tensor, "B H"]:
    """Return the root of the Jensen-Shannon divergence in nats, where 0 · log 0 is 0."""
    middle = ((p + q) / 2).clamp(min=torch.finfo(p.dtype).tiny)
    terms = torch.xlogy(p, p / middle) + torch.xlogy(q, q / middle)
    return (terms.sum(-1) / 2).clamp(min=0).sqrt()
