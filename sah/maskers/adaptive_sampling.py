"""Random keys, as many as a given accuracy requires."""

# B batch, H query heads, Q queries, K keys

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from sah.attention import AttentionInputs, AttentionMask, SelectedKeys, host, select_top
from sah.attention.selection import require_fraction


@dataclass(frozen=True, kw_only=True)
class AdaptiveSampling:
    """Sample candidates until the softmax denominator is accurate to (epsilon, delta).

    vAttention (arXiv:2510.05688). With a_j = e^(s_j) and n candidates: draw
    b0 = max(base_tokens, ⌈base_fraction·n⌉) of them, compute their mean â and standard deviation
    σ̂, estimate the denominator D̂ = Σ_selected a + n·â, and extend the sample to

        b = ⌈(z·n·σ̂ / (epsilon·D̂))²⌉,  z = Φ⁻¹(1 - delta/2),

    with the finite-population correction b / (1 + b/n), clipped to [b0, n]. Every sampled key
    weighs n/b. Then P(|D̂ - D| > epsilon·D) ≤ delta, provided that the normal approximation holds
    and the base sample reflects the spread of the candidates. Put a top-k masker first, as the
    paper and the presets do: otherwise the sample may miss a key that holds much of the mass.

    The denominator is biased low, because the base sample stays in the sample whose size it
    determines: by up to 0.4 % after a top-k masker, by up to 15 % without one, where the bound
    does not hold.

    Deviations. The bound applies to the denominator only (the paper has one on the output too).
    In the paper b0 is a share of the candidates only; with fewer than about 60 keys the spread
    of a heavy tail is estimated so poorly that the bound fails (200 keys, b0 = 9: in a fifth of
    the draws instead of 5 %), hence `base_tokens`. Exact scores of all keys are computed here,
    where a kernel would read the sampled keys only.
    """

    batched: ClassVar[bool] = True
    budget_options: ClassVar = ("epsilon",)

    epsilon: float = 0.05
    """Allowed relative error of the denominator, in (0, 1]."""
    delta: float = 0.05
    """Probability of a larger error, in (0, 1)."""
    base_fraction: float = 0.05
    """Share of the candidates in the base sample, in (0, 1]."""
    base_tokens: int = 64
    """Minimum size of the base sample; at least 2, because its spread is estimated."""

    def __post_init__(self) -> None:
        require_fraction("AdaptiveSampling", "epsilon", self.epsilon)
        require_fraction("AdaptiveSampling", "delta", self.delta)
        if self.delta == 1:
            raise ValueError("AdaptiveSampling: delta must be below 1, got 1")
        require_fraction("AdaptiveSampling", "base_fraction", self.base_fraction)
        if isinstance(self.base_tokens, bool) or self.base_tokens < 2:
            raise ValueError(
                f"AdaptiveSampling: base_tokens must be at least 2, got {self.base_tokens!r}"
            )

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        candidates = mask.candidates
        count = candidates.sum(-1, keepdim=True)
        share = (count * self.base_fraction - 1e-9).ceil()
        base = share.clamp(min=self.base_tokens).minimum(count).long()
        keys = inputs.key.shape[2]
        # One more, because `share` is rounded up in float32.
        bound = min(keys, max(self.base_tokens, math.ceil(keys * self.base_fraction) + 1))
        # The same noise ranks both, so that the base sample is part of the final sample.
        noise = inputs.uniform().masked_fill_(~candidates, -torch.inf)
        drawn = select_top(noise, None, base, bound)
        base_keys = SelectedKeys.of(drawn, base.squeeze(-1), bound)
        sample = self._sample_size(inputs.scores, mask, base_keys, base, count).maximum(base)
        return mask.add(select_top(noise, None, sample, keys), count / sample.clamp(min=1))

    def _sample_size(
        self,
        scores: Float[Tensor, "B H Q K"],
        mask: AttentionMask,
        keys: SelectedKeys,
        base: Tensor,
        count: Tensor,
    ) -> Tensor:
        """Return b of every query, at most n, [B, H, Q, 1]; `keys` are the base sample."""
        if keys.position.shape[-1] == 0:
            return torch.zeros_like(count)
        sampled = scores.gather(-1, keys.position).masked_fill(~keys.valid, -torch.inf)  # B H Q N
        known = self._log_mass_of_selected(scores, mask)
        largest = known.maximum(sampled.amax(-1, keepdim=True))
        # A query without visible keys has a largest score of minus infinity.
        largest = largest.clamp(min=torch.finfo(largest.dtype).min)
        share = (sampled - largest).exp()  # a_j, scaled to avoid overflow
        mean = share.sum(-1, keepdim=True) / base.clamp(min=1)
        squares = (share - mean).square().where(keys.valid, 0.0).sum(-1, keepdim=True)
        deviation = (squares / (base - 1).clamp(min=1)).sqrt()
        denominator = (known - largest).exp() + count * mean
        quantile = NormalDist().inv_cdf(1 - self.delta / 2)
        smallest = torch.finfo(share.dtype).tiny
        without_limit = (
            quantile * count * deviation / (self.epsilon * denominator).clamp(min=smallest)
        ).square()
        # Sampling a finite population without replacement needs fewer keys, never more than n.
        corrected = without_limit / (1 + without_limit / count.clamp(min=1))
        # Infinity over infinity: every candidate is needed.
        return corrected.nan_to_num(nan=math.inf, posinf=math.inf).ceil().minimum(count).long()

    def _log_mass_of_selected(
        self, scores: Float[Tensor, "B H Q K"], mask: AttentionMask
    ) -> Float[Tensor, "B H Q 1"]:
        """Return log Σ_selected w·a; minus infinity where nothing is selected."""
        if not host.holds(scores):
            # The host does not know how many keys are selected.
            mass = scores if mask.sampled_weight is None else scores + mask.sampled_weight.log()
            return mass.masked_fill(~mask.selected, -torch.inf).logsumexp(-1, keepdim=True)
        position = mask.selected_keys.position
        mass = scores.gather(-1, position)
        if mask.sampled_weight is not None:
            mass = mass + mask.sampled_weight.gather(-1, position).log()
        return mass.masked_fill(~mask.selected_keys.valid, -torch.inf).logsumexp(-1, keepdim=True)
