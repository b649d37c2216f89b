"""A token of a batch takes a fraction of the operations of a token that is decoded alone."""

from collections.abc import Callable
from typing import Any

import pytest
from device_path import as_on_a_device
from small_shape import SMALL
from test_device_path import op_counts
from transformers import LlamaConfig

from sah.models.language_model import LanguageModel

ROWS, SHARE = 32, 1 / 15
# Presets whose layers are computed for all rows together.
TOGETHER = (
    *("dense", "sparse", "quest", "vattention"),
    *("h2o_decoding", "tova_decoding", "r_kv", "decoding"),
)


@pytest.fixture(scope="module")
def endless(build_model: Callable[..., Any]) -> LanguageModel:
    """A model of four layers, so that those count which a preset does not keep dense."""
    model: LanguageModel = build_model(LlamaConfig(**{**SMALL, "num_hidden_layers": 4}))
    model.eos_token_ids = frozenset()
    return model


@pytest.mark.parametrize("name", TOGETHER)
def test_a_token_of_32_rows_takes_a_fifteenth_of_the_operations_of_one_alone(
    name: str, endless: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(op_counts, "CONTEXT", 64)
    with as_on_a_device():
        (alone, _), (together, waits) = (op_counts.count(endless, name, rows) for rows in (1, ROWS))
    assert together <= alone * SHARE
    assert waits == 0
