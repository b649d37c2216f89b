"""Samples of many seeds and lengths."""

from collections.abc import Callable
from typing import Any

import pytest

from sah.models.prompts import PromptEncoder
from sah.types import Example


@pytest.fixture(scope="session")
def unlimited(tiny: Any) -> PromptEncoder:
    """The tiny model's prompts, with no limit on their length."""
    return PromptEncoder(tiny.prompts.tokenizer, None)


@pytest.fixture(scope="session")
def samples(unlimited: PromptEncoder) -> Callable[..., list[Example]]:
    """Generate the samples of a benchmark for some seeds and one length."""

    def make(
        kind: Any, subset: str | None, context_tokens: int, seeds: range, **options: Any
    ) -> list[Example]:
        made = kind(subset=subset, context_tokens=context_tokens, **{"samples": 2, **options})
        return [example for seed in seeds for example in made.examples(unlimited, seed=seed)]

    return make
