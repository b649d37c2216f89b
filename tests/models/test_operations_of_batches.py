"""The operations of a decode step are shared by the rows of a batch."""

from collections.abc import Callable
from typing import Any

import presets
import pytest
import torch
from device_path import as_on_a_device
from operation_counts import STEPS, counted
from presets import REWRITING, SELECTING

from sah.attention import DenseAttention
from sah.models.language_model import LanguageModel

CONTEXT = [1 + (7 * n) % 390 for n in range(120)]
EVICTING = [name for name in presets.EVICTING if name not in ("kvzip", "duo_attention")]


class Given:
    """Gives the same token whatever the logits are."""

    def choose(self, logits: torch.Tensor) -> int:
        return 7


def operations(model: LanguageModel, attention: Any, count: int) -> float:
    """Count the operations of a token in a batch of rows about contexts of different lengths."""
    contexts = [CONTEXT[2 * number :] for number in range(count)]
    with as_on_a_device():
        counting = counted(model, attention, contexts, Given())
    return float(counting.operations / (count * (STEPS - 2)))


@pytest.mark.parametrize("name", ["dense", *SELECTING, *EVICTING, *REWRITING])
def test_a_token_of_32_rows_takes_a_fifteenth_of_the_operations(
    name: str, preset: Callable[[str], Any], tiny: LanguageModel, calibrated: None
) -> None:
    attention = DenseAttention() if name == "dense" else preset(name)
    alone, batched = (operations(tiny, attention, count) for count in (1, 32))
    assert batched <= alone / 15
