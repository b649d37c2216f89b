"""Prompt lengths measured without the code under test."""

from collections.abc import Callable
from typing import Any

import pytest

from sah.types import Example


@pytest.fixture
def prompt_tokens(tiny: Any) -> Callable[[Example], int]:
    """Count the tokens of a prompt, with the tiny model's chat template written out."""
    tokenizer = tiny.prompts.tokenizer._tokenizer

    def count(example: Example) -> int:
        before = f"<|begin|><|user|>{example.context}"
        after = f"{example.question}<|end|><|assistant|>{example.answer_prefix}"
        parts = (before, after)
        return sum(len(tokenizer.encode(part, add_special_tokens=False).ids) for part in parts)

    return count
