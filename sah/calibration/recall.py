"""Recall of signatures: the share that they find of the keys exact scores would choose."""

# H query heads, N tokens, Q queries, K keys

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sah.calibration.hash_training import LOCAL_TOKENS, SINK_TOKENS, LayerSample
from sah.maskers.hash_attention import HashNetworks

# Queries measured per passage without a question, evenly spaced over its second half.
_PROSE_QUERIES = 32


@dataclass(frozen=True, kw_only=True)
class Recall:
    """Recall of signatures, as means over passages, heads and queries, for a given budget."""

    keys: float
    """Share of the best candidates that the signatures choose."""
    mass: float
    """Attention mass of the keys they choose, relative to that of the best candidates."""


@torch.inference_mode()
def measure_recall(
    networks: HashNetworks, samples: Sequence[LayerSample], *, fraction: float = 0.1
) -> Recall:
    """Compare the candidates that signatures choose with as many chosen by exact scores.

    The budget is `fraction` of the passage's tokens.
    """
    keys, mass, best_mass = [], [], []
    for sample in samples:
        position = _measured_positions(sample)
        candidate = sample.candidates(position)  # Q N
        exact = sample.scores(position)  # H Q N
        count = max(1, int(fraction * exact.shape[-1]))
        # The softmax is over all visible keys; those the presets always read have most of its mass.
        visible = torch.arange(exact.shape[-1], device=position.device) <= position[:, None]
        share = (sample.scaling * exact).masked_fill(~visible, -torch.inf).softmax(-1)
        query = networks.of_queries(sample.query[:, position][None])[0] > 0  # H Q bits
        key = networks.of_keys(sample.key[None])[0] > 0  # H N bits
        # H Q N: the number of equal bits minus that of different bits
        agreement = (2.0 * query - 1) @ (2.0 * key - 1).transpose(1, 2)
        best, chosen = (
            torch.zeros_like(candidate.expand_as(exact)).scatter(
                -1, by.masked_fill(~candidate, -torch.inf).topk(count).indices, True
            )
            for by in (exact, agreement)
        )
        keys.append(float((best & chosen).sum() / best.sum()))
        mass.append(float((share * chosen).sum(-1).mean()))
        best_mass.append(float((share * best).sum(-1).mean()))
    return Recall(keys=sum(keys) / len(keys), mass=sum(mass) / sum(best_mass))


def _measured_positions(sample: LayerSample) -> torch.Tensor:
    tokens = sample.query.shape[1]
    if sample.question_start < tokens:
        return torch.arange(sample.question_start, tokens, device=sample.query.device)
    first = max(tokens // 2, SINK_TOKENS + LOCAL_TOKENS)
    step = max(1, (tokens - first) // _PROSE_QUERIES)
    return torch.arange(first, tokens, step, device=sample.query.device)
