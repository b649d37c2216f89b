"""A decode step on a device waits for it nowhere, and computes what it computes on the CPU."""

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import presets
import pytest
import torch
from device_path import as_on_a_device
from operation_counts import Counting, counted
from presets import PREFILLING, REWRITING, SELECTING
from torch import Tensor
from torch.testing import assert_close

from sah.attention import AttentionInputs, AttentionMask, DenseAttention, SparseAttention, compute
from sah.evictors.decoding.r_kv import RKV
from sah.evictors.decoding.rescoring import Decoding
from sah.evictors.snapkv import SnapKV
from sah.models.language_model import LanguageModel

CONTEXT = [1 + (7 * n) % 390 for n in range(150)]
# Both evict at the context's end only, like adakv: KVzip by another pass over the context,
# DuoAttention by scores of another shape than this model's.
EVICTING = [name for name in presets.EVICTING if name not in ("kvzip", "duo_attention")]
RESCORING = {
    "r_kv_every_2": RKV(tokens=20, window=4, kernel=3, every=2),
    "snapkv_every_1": Decoding(of=SnapKV(tokens=30, window=8), every=1),
}


@pytest.fixture(params=["dense", *SELECTING, *EVICTING, *REWRITING, *RESCORING])
def attention(
    request: pytest.FixtureRequest, preset: Callable[[str], Any], calibrated: None
) -> Any:
    if request.param in RESCORING:
        return SparseAttention(name="mine", evict={"mine": RESCORING[request.param]})
    return preset(request.param)


class Answered(NamedTuple):
    logits: Tensor
    masks: list[Tensor]
    waits: Counter[str]
    operations: int


class Given:
    """Gives the same tokens whatever the logits are, and reads none of them."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def choose(self, logits: Tensor) -> int:
        self.seen.append(logits)
        return 7


def answered(model: LanguageModel, attention: Any, count: int, *, on_a_device: bool) -> Answered:
    """Answer questions about contexts of different lengths; count all steps but the first."""
    masks: list[Tensor] = []
    sampler = Given()

    def observe(inputs: AttentionInputs, mask: AttentionMask, output: Tensor) -> None:
        masks.append(mask.selected)

    contexts = [CONTEXT[20 * number :] for number in range(count)]
    with as_on_a_device() if on_a_device else nullcontext():
        counting = counted(model, attention, contexts, sampler, observe)
    return Answered(torch.cat(sampler.seen), masks, counting.waited, counting.operations)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_decode_step_waits_nowhere_and_gives_what_the_cpu_gives(
    rows: int, attention: Any, tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "GATHER_ROWS", 0)  # gather however few keys there are
    there, here = (answered(tiny, attention, rows, on_a_device=device) for device in (True, False))
    assert there.operations > 0
    assert there.waits == {}
    for same, mask in zip(there.masks, here.masks, strict=True):
        assert torch.equal(same, mask)
    assert_close(there.logits, here.logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", PREFILLING)
def test_after_a_sparse_prefill_a_decode_step_is_dense(
    name: str, preset: Callable[[str], Any]
) -> None:
    assert isinstance(preset(name).after_context, DenseAttention)


@pytest.mark.parametrize(
    "read",
    [
        lambda numbers: numbers.max().item(),
        lambda numbers: bool(numbers.any()),
        lambda numbers: numbers[numbers > 1],
        lambda numbers: numbers.masked_select(numbers > 1),
        lambda numbers: (numbers > 1).nonzero(),
        lambda numbers: torch.where(numbers > 1),
        lambda numbers: torch.repeat_interleave(numbers),
        lambda numbers: numbers.bincount(),
        lambda numbers: numbers.unique(),
        lambda numbers: torch.equal(numbers, numbers),
    ],
)
def test_whatever_reads_a_number_counts_as_a_wait(read: Callable[[Tensor], Any]) -> None:
    counting = Counting()
    with torch.inference_mode(), counting:
        read(torch.arange(4))
    assert counting.waits == 1
