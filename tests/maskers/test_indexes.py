"""Indexes of every masker in conf/masker: never stale, with integer codes, memory counted."""

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from sah.attention import AttentionInputs, AttentionMask, KeyIndex, Masker, Visibility
from sah.maskers.magic_pig import MagicPIG

CONF = Path(__file__).resolve().parents[2] / "conf"
MASKERS = sorted(path.stem for path in (CONF / "masker").glob("*.yaml"))
INDEXED = {"quest", "double_sparsity", "hash_attention", "pq_cache", "socket", "magic_pig", "loki"}

Make = Callable[..., Any]

# In the middle of a page of 16, so that a rewind cuts Quest's last page.
CONTEXT = 53


@pytest.fixture(params=MASKERS)
def masker(request: pytest.FixtureRequest, configured_masker: Make) -> Masker:
    # MagicPIG as configured samples hardly any random keys.
    changes = {"planes": 4, "tables": 20} if request.param == "magic_pig" else {}
    made: Masker = configured_masker(request.param, **changes)
    return made


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def step(key: Tensor, value: Tensor, indexes: dict[Hashable, KeyIndex]) -> AttentionInputs:
    """Return the inputs of a decode step: the query of the last key."""
    keys = key.shape[2]
    return AttentionInputs(
        query=3 * draw(1, 4, 1, 16, seed=keys, dtype=key.dtype),
        key=key,
        value=value,
        visibility=Visibility(torch.ones(1, 1, 1, keys, dtype=torch.bool)),
        scaling=0.25,
        first_position=keys - 1,
        context_length=CONTEXT,
        seed=11,
        index_seed=12,
        indexes=indexes,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_is_never_stale(masker: Masker, dtype: torch.dtype) -> None:
    context = [draw(1, 2, CONTEXT, 16, seed=seed, dtype=dtype) for seed in (0, 1)]
    kept: dict[Hashable, KeyIndex] = {}
    # The last answer is longer than any before, and than the reserved room of an index.
    for question, length in enumerate((14, 3, 0, 30)):
        for index in kept.values():
            index.rewind(CONTEXT)
        answer = [draw(1, 2, 30, 16, seed=10 + 2 * question + n, dtype=dtype) for n in (0, 1)]
        for count in range(length + 1):
            key, value = (
                torch.cat([old, new[:, :, :count]], dim=2)
                for old, new in zip(context, answer, strict=True)
            )
            with_history, afresh = step(key, value, kept), step(key, value, {})
            mask = masker(with_history, AttentionMask.empty(with_history))
            expected = masker(afresh, AttentionMask.empty(afresh))
            assert torch.equal(mask.selected, expected.selected)
            assert_close(mask.weights, expected.weights, rtol=1e-4, atol=0)
            assert all(index.length == CONTEXT + count for index in kept.values())


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("quest", {"page_size": 4}),
        ("double_sparsity", {"label_bits": 16}),
        ("pq_cache", {"bits": 2}),
        ("socket", {"tables": 3}),
        ("magic_pig", {"planes": 4, "tables": 20}),
        ("loki", {"components_fraction": 1.0}),
    ],
)
def test_different_settings_of_a_masker_have_separate_indexes(
    name: str, changes: dict[str, Any], configured_masker: Make
) -> None:
    key, value = (draw(1, 2, CONTEXT, 16, seed=seed) for seed in (0, 1))
    shared: dict[Hashable, KeyIndex] = {}
    for masker in (configured_masker(name), configured_masker(name, **changes)):
        among_others, alone = step(key, value, shared), step(key, value, {})
        mask = masker(among_others, AttentionMask.empty(among_others))
        assert torch.equal(mask.selected, masker(alone, AttentionMask.empty(alone)).selected)
    assert len(shared) == 2


def test_reports_its_memory_and_length(masker: Masker) -> None:
    key, value = (draw(1, 2, CONTEXT + 64, 16, seed=seed) for seed in (0, 1))
    kept: dict[Hashable, KeyIndex] = {}

    def ask(keys: int) -> list[int]:
        inputs = step(key[:, :, :keys], value[:, :, :keys], kept)
        masker(inputs, AttentionMask.empty(inputs))
        for index in kept.values():
            assert isinstance(index, KeyIndex)
            assert index.length == keys
        return [index.nbytes for index in kept.values()]

    of_context, more = ask(CONTEXT), ask(CONTEXT + 64)
    for before, after in zip(of_context, more, strict=True):
        assert before > 0
        # MagicPIG does not index keys after the context.
        assert after == before if isinstance(masker, MagicPIG) else after > before
    for index in kept.values():
        index.rewind(CONTEXT)
        assert index.length <= CONTEXT
    # Room reserved for later keys does not count.
    assert ask(CONTEXT) == of_context


def tensors_of(value: Any) -> list[Tensor]:
    """Return every tensor that an index holds, in attributes, buffers and lists."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [tensor for item in value for tensor in tensors_of(item)]
    if hasattr(value, "filled"):
        return tensors_of(value.filled)
    return []


def test_stores_integer_codes_in_integer_tensors(masker: Masker) -> None:
    key, value = (draw(1, 2, 300, 16, seed=seed, dtype=torch.bfloat16) for seed in (0, 1))
    inputs = step(key, value, {})
    masker(inputs, AttentionMask.empty(inputs))
    for index in inputs.indexes.values():
        held = [tensor for item in vars(index).values() for tensor in tensors_of(item)]
        assert held
        for tensor in held:
            # Integers in a floating-point tensor are codes that rounding would corrupt.
            if tensor.is_floating_point() and tensor.any():
                assert not torch.equal(tensor, tensor.round())


def test_all_indexed_maskers_are_covered(configured_masker: Make) -> None:
    key, value = (draw(1, 2, CONTEXT, 16, seed=seed) for seed in (0, 1))
    found = set()
    for name in MASKERS:
        inputs = step(key, value, {})
        configured_masker(name)(inputs, AttentionMask.empty(inputs))
        if inputs.indexes:
            found.add(name)
    # The tests of this file would pass for a masker that kept its index elsewhere.
    assert found >= INDEXED
