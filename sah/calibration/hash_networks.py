"""Training of HashAttention for a model, with as many layers at a time as fit in memory."""

import logging
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from sah.calibration.capture import LayerReading, read_attention
from sah.calibration.hash_training import (
    LOCAL_TOKENS,
    SINK_TOKENS,
    HashTraining,
    LayerSample,
    train,
    untrained,
)
from sah.calibration.passages import Passage
from sah.calibration.recall import Recall, measure_recall
from sah.errors import ConfigurationError
from sah.maskers.hash_attention import HashNetworks
from sah.models.language_model import LanguageModel

logger = logging.getLogger(__name__)

# Memory for queries and keys. Layers that do not fit form further groups, each of which reads the
# text again.
_CAPTURED_BYTES = 2**31

# One passage in five is held out to measure recall.
_HELD_OUT = 5


def trained_networks(
    model: LanguageModel, passages: Sequence[Passage], training: HashTraining
) -> dict[str, Tensor]:
    """Train the networks of every layer that sparse attention applies to.

    The last fifth of the passages is held out; recall on it is logged layer by layer.

    Returns:
        The tensors of the weight file, named as for `HashNetworks.of_layer`, in float16.

    Raises:
        ConfigurationError: if there are fewer than two passages, or if they are too short.
    """
    held_out = max(1, len(passages) // _HELD_OUT)
    if held_out >= len(passages):
        raise ConfigurationError(
            "hash_attention needs at least two passages, as one is held out to measure recall; "
            "raise tokens or lower passage_tokens"
        )
    shortest = min(len(passage.token_ids) for passage in passages)
    # Twice the keys that every query reads anyway, so that there are others to choose from.
    if shortest < 2 * (SINK_TOKENS + LOCAL_TOKENS):
        raise ConfigurationError(
            f"hash_attention needs passages of at least {2 * (SINK_TOKENS + LOCAL_TOKENS)} "
            f"tokens, but the shortest has {shortest}; raise passage_tokens"
        )
    tensors: dict[str, Tensor] = {}
    before, after = [], []
    for layer, samples in _layers(model, passages):
        learn, measure = samples[:-held_out], samples[-held_out:]
        before.append(measure_recall(untrained(learn, training, layer), measure))
        networks = _half(train(learn, training, layer))
        after.append(measure_recall(networks, measure))
        logger.info("layer %d: %s", layer, _change(before[-1:], after[-1:]))
        tensors.update(_named(networks, layer))
    logger.info("all layers, on %d held-out passages: %s", held_out, _change(before, after))
    return tensors


def _layers(
    model: LanguageModel, passages: Sequence[Passage]
) -> Iterator[tuple[int, list[LayerSample]]]:
    """Yield each layer with one sample per passage; only one group of layers is held."""
    bytes_of: dict[int, int] = {}

    def count_bytes(reading: LayerReading) -> None:
        bytes_of[reading.layer] = reading.query.nbytes + reading.key.nbytes

    read_attention(
        model, Passage(token_ids=passages[0].token_ids[:1], question_start=1), count_bytes
    )
    tokens = sum(len(passage.token_ids) for passage in passages)
    at_once = max(1, _CAPTURED_BYTES // (tokens * max(bytes_of.values())))
    layers = sorted(bytes_of)
    for start in range(0, len(layers), at_once):
        group = layers[start : start + at_once]
        logger.info("reading %d tokens for layers %d to %d", tokens, group[0], group[-1])
        samples: dict[int, list[LayerSample]] = {layer: [] for layer in group}
        for passage in passages:
            _collect(model, passage, samples)
        for layer in group:
            yield layer, samples.pop(layer)


def _collect(model: LanguageModel, passage: Passage, samples: dict[int, list[LayerSample]]) -> None:
    def read(reading: LayerReading) -> None:
        if reading.layer in samples:
            sample = LayerSample(
                query=reading.query,
                key=reading.key,
                scaling=reading.scaling,
                question_start=passage.question_start,
            )
            samples[reading.layer].append(sample)

    read_attention(model, passage, read)


def _half(networks: HashNetworks) -> HashNetworks:
    """Round the networks to float16, as saving them does."""
    query, key = (
        [(weight.half().float(), bias.half().float()) for weight, bias in network]
        for network in (networks.query, networks.key)
    )
    return HashNetworks(query=query, key=key)


def _named(networks: HashNetworks, layer: int) -> dict[str, Tensor]:
    return {
        f"layers.{layer}.{kind}.{number}.{part}": tensor.to("cpu", torch.float16).contiguous()
        for kind, network in (("query", networks.query), ("key", networks.key))
        for number, linear in enumerate(network)
        for part, tensor in zip(("weight", "bias"), linear, strict=True)
    }


def _change(before: Sequence[Recall], after: Sequence[Recall]) -> str:
    def means(recalls: Sequence[Recall]) -> tuple[float, float]:
        count = len(recalls)
        return sum(r.keys for r in recalls) / count, sum(r.mass for r in recalls) / count

    (keys_before, mass_before), (keys_after, mass_after) = means(before), means(after)
    return (
        f"recall of the best tenth {keys_before:.2f} -> {keys_after:.2f}, "
        f"of its attention mass {mass_before:.2f} -> {mass_after:.2f}"
    )
