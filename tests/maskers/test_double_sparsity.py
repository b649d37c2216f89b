"""DoubleSparsity against its definition in loops: kept channels, quantisation, ranking."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from sah.attention import AttentionInputs, AttentionMask
from sah.maskers.double_sparsity import DoubleSparsity, LabelCache

Make = Callable[..., Any]
Channel = Literal["qk", "q", "k"]

# H 4 query heads on G 2 key-value heads, D 16 channels, as make_inputs makes them.
HEADS: dict[str, int] = {"qk": 4, "q": 4, "k": 2}


@pytest.fixture(scope="module")
def channels() -> dict[str, list[list[int]]]:
    """Channels in random order, different for every layer, kind and head."""
    generator = torch.Generator().manual_seed(5)
    return {
        f"model.layers.{layer}.self_attn.{kind}_proj": [
            torch.randperm(16, generator=generator).tolist() for _ in range(heads)
        ]
        for layer in range(2)
        for kind, heads in HEADS.items()
    }


@pytest.fixture(scope="module")
def file(channels: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("channels") / "mine.json"
    path.write_text(json.dumps(channels))
    return str(path)


def half(number: float) -> float:
    return torch.tensor(number, dtype=torch.float64).half().item()


def dequantised(labels: list[float], bits: int) -> list[float]:
    """Return the labels of one key after quantisation between their minimum and maximum."""
    labels = [half(label) for label in labels]
    if bits == 16:
        return labels
    lowest, highest = min(labels), max(labels)
    step = half((highest - lowest) / (2**bits - 1))
    return [lowest + step * round((label - lowest) / step) if step else lowest for label in labels]


def approximate_scores(query: Tensor, keys: Tensor, kept: list[int], bits: int) -> dict[int, float]:
    scores = {}
    for position, key in enumerate(keys.tolist()):
        labels = dequantised([key[channel] for channel in kept], bits)
        chosen = [float(query[channel]) for channel in kept]
        scores[position] = sum(q * label for q, label in zip(chosen, labels, strict=True))
    return scores


@pytest.mark.parametrize("group_factor", [1, 3, 4, 16, 100])
@pytest.mark.parametrize("channel", ["qk", "q", "k"])
@pytest.mark.parametrize("label_bits", [4, 8, 16])
def test_adds_the_keys_with_the_highest_products_on_the_kept_quantised_channels(
    label_bits: int,
    channel: Channel,
    group_factor: int,
    channels: dict[str, Any],
    file: str,
    make_inputs: Make,
    some_mask: Make,
) -> None:
    masker = DoubleSparsity(
        tokens=6, channels=file, channel=channel, group_factor=group_factor, label_bits=label_bits
    )
    for layer in (0, 1):
        inputs = replace(make_inputs(keys=30, queries=2, padding=(0, 3)), layer_idx=layer)
        before = some_mask(inputs)
        added = masker(inputs, before).selected & ~before.selected
        ranked = channels[f"model.layers.{layer}.self_attn.{channel}_proj"]
        for b, h, q in torch.cartesian_prod(*map(torch.arange, (2, 4, 2))).tolist():
            kept = ranked[h // 2 if channel == "k" else h][: max(1, 16 // group_factor)]
            scores = approximate_scores(
                inputs.query[b, h, q], inputs.key[b, h // 2], kept, label_bits
            )
            candidates = before.candidates[b, h, q].nonzero().flatten().tolist()
            chosen = added[b, h, q].nonzero().flatten().tolist()
            assert len(chosen) == 6
            rejected = [scores[k] for k in candidates if k not in chosen]
            # Keys may tie after quantisation; float32 rounds the rest.
            assert min(scores[k] for k in chosen) >= max(rejected) - 1e-4


@pytest.mark.parametrize("label_bits", [4, 8, 16])
def test_quantisation_error_is_at_most_half_a_step(label_bits: int, make_inputs: Make) -> None:
    inputs = make_inputs(keys=100)
    kept = torch.tensor([[3, 1, 8, 15, 2], [0, 6, 7, 5, 9]])
    cache = LabelCache(kept, inputs.key, inputs.value, label_bits=label_bits)
    for g in range(2):
        labels = inputs.key[0, g][:, kept[g]]
        if label_bits == 16:
            step = torch.zeros(100)
        else:
            step = (labels.amax(1) - labels.amin(1)) / (2**label_bits - 1)
        # Keys and steps are rounded to float16, to within 2^-11; a step is multiplied by up to
        # 2^bits - 1.
        allowed = step * (0.5 + 2**label_bits * 2.0**-11) + labels.abs().amax(1) * 2.0**-10
        for number, channel in enumerate(kept[g].tolist()):
            # A one-hot query reads out one channel.
            query = torch.zeros(1, 2, 1, 16)
            query[0, g, 0, channel] = 1
            error = (cache.scores(query)[0, g, 0] - labels[:, number]).abs()
            assert (error <= allowed).all()
            if label_bits == 4:
                assert (error > 0.25 * step).any()


@pytest.mark.parametrize("label_bits", [4, 8])
def test_a_key_whose_channels_are_all_equal_is_kept_exactly(label_bits: int) -> None:
    key = torch.tensor([[-1.5, 0.0, 0.25, 7.0]]).T.expand(1, 1, 4, 16)
    kept = torch.tensor([[0, 5, 9]])
    cache = LabelCache(kept, key, key, label_bits=label_bits)
    assert torch.equal(cache.scores(torch.ones(1, 1, 1, 16))[0, 0, 0], 3 * key[0, 0, :, 0])


@pytest.mark.parametrize(
    ("channel", "label_bits", "bytes_per_key"),
    # 5 channels take 3 bytes at two per byte; offset and step take 4.
    [("qk", 4, 4 * (3 + 4)), ("q", 8, 4 * (5 + 4)), ("k", 4, 2 * (3 + 4)), ("qk", 16, 4 * 10)],
)
def test_memory_is_that_of_the_packed_codes(
    channel: Channel, label_bits: int, bytes_per_key: int, file: str, make_inputs: Make
) -> None:
    inputs = make_inputs(keys=30)
    masker = DoubleSparsity(
        tokens=4, channels=file, channel=channel, group_factor=3, label_bits=label_bits
    )
    masker(inputs, AttentionMask.empty(inputs))
    assert inputs.indexes[masker].nbytes == 30 * bytes_per_key


def call(masker: DoubleSparsity, inputs: AttentionInputs) -> None:
    masker(inputs, AttentionMask.empty(inputs))


def test_a_file_of_another_model_is_refused_with_both_shapes(file: str, make_inputs: Make) -> None:
    masker = DoubleSparsity(tokens=4, channels=file)
    with pytest.raises(ValueError, match=r"ranks \[4, 16\].*the model has \[4, 8\]"):
        call(masker, make_inputs(keys=9, dim=8))
    with pytest.raises(ValueError, match=r"ranks \[4, 16\].*the model has \[6, 16\]"):
        call(masker, make_inputs(keys=9, heads=6))
    per_group = DoubleSparsity(tokens=4, channels=file, channel="k")
    with pytest.raises(ValueError, match=r"ranks \[2, 16\].*the model has \[4, 16\]"):
        call(per_group, make_inputs(keys=9, groups=4))


def test_a_file_that_lacks_the_layer_is_refused(file: str, make_inputs: Make) -> None:
    masker = DoubleSparsity(tokens=4, channels=file)
    with pytest.raises(ValueError, match=r"has no model\.layers\.2\.self_attn\.qk_proj.*fewer"):
        call(masker, replace(make_inputs(keys=9), layer_idx=2))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"channels": "nowhere.json"}, "there is no file nowhere.json"),
        ({"channels": "no-such-model"}, "sah calibrate double_sparsity model=no-such-model"),
        ({"group_factor": 0}, "group_factor must be at least 1, got 0"),
        ({"label_bits": 5}, "label_bits must be 4, 8 or 16, got 5"),
        ({"tokens": None}, "exactly one of tokens and fraction"),
    ],
)
def test_invalid_parameters_are_refused_by_name(
    changes: dict[str, Any], said: str, file: str
) -> None:
    valid: dict[str, Any] = {"tokens": 4, "channels": file}
    with pytest.raises(ValueError, match=said):
        DoubleSparsity(**{**valid, **changes})
