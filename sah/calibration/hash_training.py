"""Training of HashAttention's networks to find the keys that exact scores would choose."""

# H query heads, G key-value heads, N tokens, Q sampled queries, D head dimension

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sah.maskers.hash_attention import HashNetworks, Linear
from sah.seeding import derive
from sah.validation import check_types


@dataclass(frozen=True, kw_only=True)
class LayerSample:
    """Queries and keys of one layer for one passage."""

    query: Tensor
    """[H, N, D], after the rotary embedding."""
    key: Tensor
    """[G, N, D]"""
    scaling: float
    """Of q·k, before the softmax."""
    question_start: int
    """First token of the question, as in Passage; N if there is none."""

    def candidates(self, position: Tensor) -> Tensor:
        """Return the keys that queries at these positions [Q] choose from, [Q, N].

        The first and the most recent keys are left out, as every preset adds them before
        HashAttention; a network that had to find them too would have fewer bits for the others.
        """
        key = torch.arange(self.key.shape[1], device=position.device)  # N
        return (key >= SINK_TOKENS) & (key <= position[:, None] - LOCAL_TOKENS)

    def scores(self, position: Tensor) -> Tensor:
        """Return the exact q·k of queries at these positions [Q], [H, Q, N]."""
        groups, tokens, dim = self.key.shape
        query = self.query[:, position].float()  # H Q D
        # G (H/G · Q) N: the query heads of a group share its keys
        products = query.reshape(groups, -1, dim) @ self.key.float().transpose(1, 2)
        return products.view(-1, len(position), tokens)


# As in conf/sparse_attention/hash_attention.yaml.
SINK_TOKENS, LOCAL_TOKENS = 4, 64


@dataclass(frozen=True, kw_only=True)
class HashTraining:
    """Settings for training the networks of a layer (arXiv:2412.14468, section 4).

    The keys of highest exact score of each query are positives, all other candidates negatives.
    Adam minimises a binary cross-entropy that weights positives by 20, on signatures whose signs
    are relaxed to tanh.

    Deviations from the paper: The logit of a pair is the product of the relaxed signatures, scaled
    and shifted by two learned numbers per head, which do not change the ranking. The tanh is
    sharpened from `first_sharpness` to `last_sharpness`, so that training ends close to signs. The
    learning rate is higher than the paper's 1e-3 and falls to a twentieth along a cosine, so that a
    few hundred steps are enough (minutes on a CPU). Inputs are standardised per channel, which is
    folded into the saved first map.
    """

    bits: int = 32
    """Bits of a signature."""
    hidden: int = 32
    """Outputs of the first linear map."""
    steps: int = 200
    """Steps of Adam, each on one passage."""
    queries: int = 96
    """Queries drawn per step, half of them from the question if there is one."""
    positives: int = 64
    """Keys per query that count as positives: those of highest exact score."""
    positive_weight: float = 20.0
    learning_rate: float = 1e-2
    first_sharpness: float = 0.5
    last_sharpness: float = 3.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("bits", "hidden", "steps", "queries", "positives"):
            if getattr(self, name) < 1:
                raise ValueError(f"HashTraining: {name} must be at least 1, got {vars(self)[name]}")
        for name in ("positive_weight", "learning_rate", "first_sharpness", "last_sharpness"):
            if not getattr(self, name) > 0:
                raise ValueError(f"HashTraining: {name} must be positive, got {vars(self)[name]}")


def untrained(samples: Sequence[LayerSample], training: HashTraining, layer: int) -> HashNetworks:
    """Return the networks before training: signs of random directions of the inputs."""
    return _folded(_initial(samples[0], training, layer), *_scales(samples))


def train(samples: Sequence[LayerSample], training: HashTraining, layer: int) -> HashNetworks:
    """Train the networks of a layer, all heads at once.

    Args:
        samples: the layer's queries and keys, one sample per passage.
        training: the settings.
        layer: number of the layer, part of the seed.
    """
    networks = _initial(samples[0], training, layer)
    query_scale, key_scale = _scales(samples)
    heads = samples[0].query.shape[0]
    # Agreements of random signatures are spread by about √bits.
    scale = torch.full((heads, 1, 1), training.bits**-0.5 * 5, device=samples[0].query.device)
    shift = torch.zeros_like(scale)
    maps = [*networks.query, *networks.key]
    parameters = [scale, shift, *(tensor for linear in maps for tensor in linear)]
    for parameter in parameters:
        parameter.requires_grad_()
    optimizer = torch.optim.Adam(parameters, lr=training.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
        optimizer, training.steps, eta_min=training.learning_rate / 20
    )
    draw = torch.Generator().manual_seed(derive(training.seed, "hash_attention", layer, "steps"))
    growth = training.last_sharpness / training.first_sharpness
    for step in range(training.steps):
        sample = samples[int(torch.randint(len(samples), (), generator=draw))]
        position = _drawn_positions(sample, training.queries, draw).to(sample.query.device)
        positive, candidate = _targets(sample, position, training.positives)  # H Q N and Q N
        sharpness = training.first_sharpness * growth ** (step / training.steps)
        query = networks.of_queries(query_scale.standardised(sample.query[:, position])[None])[0]
        key = networks.of_keys(key_scale.standardised(sample.key)[None])[0]
        # query H Q bits, key H N bits, agreement H Q N in [-bits, bits]
        agreement = (sharpness * query).tanh() @ (sharpness * key).tanh().transpose(1, 2)
        weight = torch.where(positive, training.positive_weight, 1.0) * candidate  # H Q N
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            scale * agreement + shift, positive.float(), weight, reduction="sum"
        )
        optimizer.zero_grad()
        (loss / weight.sum()).backward()
        optimizer.step()
        schedule.step()
    return _folded(networks, query_scale, key_scale)


def _initial(sample: LayerSample, training: HashTraining, layer: int) -> HashNetworks:
    """Return random networks for standardised inputs."""
    heads, _, dim = sample.query.shape
    generator = torch.Generator().manual_seed(derive(training.seed, "hash_attention", layer))

    def network() -> list[Linear]:
        return [
            (
                torch.randn(heads, inputs, outputs, generator=generator) / inputs**0.5,
                torch.zeros(heads, outputs),
            )
            for inputs, outputs in ((dim, training.hidden), (training.hidden, training.bits))
        ]

    return HashNetworks(query=network(), key=network()).to(sample.query.device)


def _drawn_positions(sample: LayerSample, count: int, draw: torch.Generator) -> Tensor:
    tokens = sample.query.shape[1]
    # From this position on every query has a candidate.
    anywhere = torch.randint(SINK_TOKENS + LOCAL_TOKENS, tokens, (count,), generator=draw)
    if sample.question_start >= tokens:
        return anywhere
    asked = torch.randint(sample.question_start, tokens, (count // 2,), generator=draw)
    return torch.cat([anywhere[count // 2 :], asked])


def _targets(sample: LayerSample, position: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` best candidates of each query [H, Q, N], and all candidates [Q, N]."""
    candidate = sample.candidates(position)
    scores = sample.scores(position).masked_fill(~candidate, -torch.inf)
    lowest = scores.topk(min(count, scores.shape[-1])).values[..., -1:]  # H Q 1
    return (scores >= lowest) & candidate, candidate


def _scales(samples: Sequence[LayerSample]) -> "tuple[_ChannelScale, _ChannelScale]":
    queries, keys = [sample.query for sample in samples], [sample.key for sample in samples]
    return _ChannelScale(queries), _ChannelScale(keys)


def _folded(networks: HashNetworks, query: "_ChannelScale", key: "_ChannelScale") -> HashNetworks:
    return HashNetworks(query=query.folded_into(networks.query), key=key.folded_into(networks.key))


class _ChannelScale:
    """Mean and standard deviation per head and channel, [X, 1, D] for inputs [X, N, D]."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        together = torch.cat([part.float() for part in inputs], dim=1)
        self._mean = together.mean(1, keepdim=True)
        deviation = together.std(1, keepdim=True)
        # A channel that hardly varies carries no information, and its noise must not be amplified.
        self._deviation = deviation.clamp(min=1e-3 * float(deviation.max()))

    def standardised(self, inputs: Tensor) -> Tensor:
        return (inputs.float() - self._mean) / self._deviation

    def folded_into(self, network: Sequence[Linear]) -> list[Linear]:
        """Return the same network for inputs that are not standardised."""
        (weight, bias), *rest = [(w.detach(), b.detach()) for w, b in network]
        group_size = weight.shape[0] // self._mean.shape[0]  # H/G for keys, 1 for queries
        mean, deviation = (
            part.repeat_interleave(group_size, dim=0) for part in (self._mean, self._deviation)
        )
        # (x - mean) / deviation @ W + b = x @ (W / deviation) + b - mean @ (W / deviation)
        weight = weight / deviation.transpose(1, 2)  # H D O
        return [(weight, bias - (mean @ weight).squeeze(1)), *rest]
