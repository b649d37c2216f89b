"""Small models and tokenizers for the tests of this folder."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_shape import SMALL
from tokenizers.processors import TemplateProcessing
from transformers import MistralConfig

from sah.models.language_model import LanguageModel
from sah.models.tiny import tiny_tokenizer
from sah.types import Example


@pytest.fixture(scope="session")
def sliding(build_model: Callable[..., LanguageModel]) -> LanguageModel:
    """A small Mistral whose layers all have a sliding window of 8 keys."""
    return build_model(MistralConfig(**SMALL, sliding_window=8))


@pytest.fixture(scope="module")
def saved(tiny: LanguageModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model, saved by `save_pretrained`; tests must not change it."""
    folder = tmp_path_factory.mktemp("saved")
    tiny.model.save_pretrained(folder)
    tiny.prompts.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(saved: Path, tmp_path: Path) -> Path:
    """A copy of the saved model that a test may damage."""
    return shutil.copytree(saved, tmp_path / "checkpoint")


@pytest.fixture(scope="session")
def edit_json() -> Callable[..., None]:
    """Change keys of a JSON file, which is made if it does not exist."""

    def edit(path: Path, **changes: Any) -> None:
        content = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(content | changes))

    return edit


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """Make copies of the tiny tokenizer, with another chat template, or one that adds BOS."""

    def make(template: str | None = None, *, adds_bos: bool = False) -> Any:
        tokenizer = copy.deepcopy(tiny_tokenizer())
        tokenizer.chat_template = template
        if adds_bos:
            tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
                single="<|begin|> $A", special_tokens=[("<|begin|>", 0)]
            )
        return tokenizer

    return make


@pytest.fixture(scope="session")
def make_example() -> Callable[..., Example]:
    def make(
        context: str = "The grass is green. ",
        question: str = "What is the answer?",
        answer_prefix: str = "",
        **options: Any,
    ) -> Example:
        return Example(
            id=options.pop("id", "example 1"),
            task="task",
            context=context,
            question=question,
            references=(),
            max_new_tokens=8,
            answer_prefix=answer_prefix,
            **options,
        )

    return make


@pytest.fixture(params=["in_the_vocabulary", "spelled_out"])
def thinker(
    request: pytest.FixtureRequest, make_tokenizer: Callable[..., Any]
) -> Callable[..., Any]:
    """Make a tokenizer whose vocabulary has the marks of thoughts, or spells them."""

    def make(template: str | None) -> Any:
        tokenizer = make_tokenizer(template)
        if request.param == "in_the_vocabulary":
            tokenizer.add_tokens(["<think>", "</think>"])
            tokenizer.add_special_tokens(
                {"additional_special_tokens": ["<|channel|>", "<|message|>", "<|start|>"]}
            )
        return tokenizer

    return make
