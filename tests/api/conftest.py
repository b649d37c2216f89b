"""What an attention answers in an experiment, which `sah.attach` must give too."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from test_eviction import CONTEXT, QUESTION
from zoo import small_model

from sah.attention.prefill.reading import SparsePrefill
from sah.attention.session import AttentionSession
from sah.models.eviction import evicted, reconstruct
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel
from sah.models.prompts import EncodedPrompt, PromptEncoder
from sah.models.tiny import TinyModel, tiny_tokenizer


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Tokens, and what was read for them."""

    tokens: list[int]
    density: float
    rows_read: float
    resident: float
    prefill_density: float


@pytest.fixture(autouse=True)
def cache_home(monkeypatch: pytest.MonkeyPatch, calibrations: Path) -> None:
    """The gate remembers models here, and calibrated methods find a file of the tiny model."""
    monkeypatch.setenv("SAH_CACHE", str(calibrations))


@pytest.fixture(scope="session")
def configured() -> LanguageModel:
    """The tiny model as conf/ has it, for which every method is calibrated."""
    return TinyModel(layers=3).load()


@pytest.fixture
def answer() -> Callable[..., Measured]:
    """Answer a question about a context as an experiment does."""

    def call(
        model: LanguageModel,
        attention: Any,
        context: Sequence[int] = CONTEXT,
        question: Sequence[int] = QUESTION,
        *,
        tokens: int = 6,
        dense_question: bool = False,
    ) -> Measured:
        sparse = SparsePrefill.of(attention, model.model.config, seed=0)
        shared = model.prefill(context, reserve_tokens=60, witness=attention.witness, sparse=sparse)
        own = shared
        if attention.witness is not None:
            for asked in attention.witness.reconstructions:
                prompt = EncodedPrompt(context_ids=list(context), question_ids=[])
                reconstruct(model, shared, prompt, asked)
            own = evicted(shared, attention, model.model.config, seed=0)
        held, dense = own.cache.bytes_held(), shared.cache.bytes_held()
        session = AttentionSession(attention, seed=0)
        session.begin_context(own.length, own.kept)
        session.begin_example("attached")
        given = model.eos_token_ids
        model.eos_token_ids = frozenset()
        try:
            found = model.answer(
                own,
                question,
                session=session,
                sampler=Generation().sampler(0, "attached", model.device),
                max_new_tokens=tokens,
                dense_question=dense_question,
            )
        finally:
            model.eos_token_ids = given
        read, later = session.keys_read(), session.evicted_later()
        assert read is not None
        if later is not None:
            dense = model.cache_bytes(later[1])
            held = dense - later[0]
        return Measured(
            tokens=found.token_ids,
            density=read.density,
            rows_read=read.rows_read,
            resident=(held + session.context_index_bytes()) / dense,
            prefill_density=shared.prefill_density,
        )

    return call


@pytest.fixture
def generate() -> Callable[..., list[list[int]]]:
    """Generate greedily, without an end; return the new tokens of each row."""

    def call(
        model: Any, ids: Sequence[Sequence[int]], *, tokens: int = 6, **options: Any
    ) -> list[list[int]]:
        width = max(map(len, ids))
        padded = torch.tensor([[0] * (width - len(row)) + list(row) for row in ids])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
        settings = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        output = model.generate(
            padded, attention_mask=mask, max_new_tokens=tokens, **(settings | options)
        )
        found: list[list[int]] = output[:, width:].tolist()
        return found

    return call


@pytest.fixture(scope="session")
def small() -> Iterator[Callable[[str], LanguageModel]]:
    """A tiny random model of a type of transformers, made once."""
    made: dict[str, LanguageModel] = {}

    def make(model_type: str) -> LanguageModel:
        if model_type not in made:
            model = small_model(model_type)
            made[model_type] = LanguageModel(model, PromptEncoder(tiny_tokenizer(), None))
        return made[model_type]

    yield make
    made.clear()
