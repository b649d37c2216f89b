"""Passages, and the queries and keys of the tiny model for them."""

from typing import Any

import pytest
import torch

from sah.calibration.capture import LayerReading, read_attention
from sah.calibration.passages import Passage


@pytest.fixture(scope="session")
def passages(tiny: Any) -> list[Passage]:
    """Two random sequences of different lengths; the second ends with a question."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = len(tiny.prompts.tokenizer)

    def ids(count: int) -> list[int]:
        return torch.randint(vocabulary, (count,), generator=generator).tolist()

    return [
        Passage(token_ids=ids(23), question_start=23),
        Passage(token_ids=ids(17), question_start=9),
    ]


@pytest.fixture(scope="session")
def readings(tiny: Any, passages: list[Passage]) -> list[list[LayerReading]]:
    """The queries and keys of every layer, for each passage."""
    found: list[list[LayerReading]] = []
    for passage in passages:
        found.append([])
        read_attention(tiny, passage, found[-1].append)
    return found
