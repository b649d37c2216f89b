"""Every causal model type of transformers is measured right, or refused by the right sentence.

docs/models.md has the expected verdict of each. A new version of transformers that adds a type
or changes one fails here; `python docs/figures/model_types.py` draws the table anew.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_types as table
import pytest
import torch
from transformers import DynamicCache
from zoo import NOT_BUILT, model_types, small_model

from sah.attention import DenseAttention, SparseAttention
from sah.attention.session import AttentionSession
from sah.maskers.causal import Causal
from sah.models.batch import Row, answer_rows
from sah.models.gate import check_model
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel
from sah.models.prompts import PromptEncoder
from sah.models.tiny import tiny_tokenizer

CONTEXT = [2 + (7 * n) % 390 for n in range(60)]
QUESTION = [5 + (11 * n) % 380 for n in range(20)]
NEW_TOKENS = 8


EXPECTED: dict[str, str] = table.documented()
MEASURED = [model_type for model_type, verdict in EXPECTED.items() if verdict == table.MEASURED]


@pytest.fixture(scope="module")
def models() -> Callable[[str], LanguageModel]:
    """Tiny models by type, each built once."""
    built: dict[str, LanguageModel] = {}

    def get(model_type: str) -> LanguageModel:
        if model_type not in built:
            model = small_model(model_type)
            built[model_type] = LanguageModel(model, PromptEncoder(tiny_tokenizer(), None))
        return built[model_type]

    return get


def test_the_table_has_every_model_type_once() -> None:
    assert sorted(EXPECTED) == sorted(model_types())


@pytest.mark.parametrize("model_type", EXPECTED)
def test_a_checkpoint_of_each_type_loads_or_is_refused_as_documented(
    model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing passed before.
    monkeypatch.setenv("SAH_CACHE", str(tmp_path / "cache"))
    assert table.verdict(model_type, tmp_path / "model") == EXPECTED[model_type]


@pytest.mark.parametrize("model_type", NOT_BUILT)
def test_a_type_without_a_small_model_cannot_be_built(model_type: str) -> None:
    with pytest.raises((AttributeError, ImportError, ValueError)):
        small_model(model_type)


@pytest.mark.parametrize("model_type", MEASURED)
def test_a_measured_type_answers_as_generate_does(
    model_type: str, models: Callable[[str], LanguageModel]
) -> None:
    model = models(model_type)
    check_model(model)  # finds whether the question must be read by single tokens
    ids = torch.tensor([[*CONTEXT, *QUESTION]])
    with torch.inference_mode():
        generated = model.model.generate(
            ids,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=None,
            forced_eos_token_id=None,
            pad_token_id=1,
        )
    expected = generated[0, ids.shape[1] :].tolist()
    model.eos_token_ids = frozenset()
    every_key = SparseAttention(name="all", maskers={"all": Causal()})
    for attention in (DenseAttention(), every_key):
        assert answer(model, attention) == expected
        other = answer(model, attention, begin=9)
        assert answers_together(model, attention, begins=[0, 9]) == [expected, other]


def test_a_model_with_chunked_layers_decodes_alone() -> None:
    """What the check reads is shorter than a chunk, and could not tell."""
    model = LanguageModel(small_model("llama4_text"), PromptEncoder(tiny_tokenizer(), None))
    model.model.config.attention_chunk_size = 8192
    check_model(model)
    assert model.decodes_alone


@pytest.mark.parametrize("model_type", MEASURED)
def test_the_size_of_a_measured_type_s_cache_is_that_of_its_tensors(
    model_type: str, models: Callable[[str], LanguageModel]
) -> None:
    model = models(model_type)
    cache = DynamicCache(config=model.model.config)
    with torch.inference_mode():
        model.model(input_ids=torch.tensor([CONTEXT]), past_key_values=cache)
    held = sum(tensor.nbytes for layer in cache.layers for tensor in tensors(vars(layer)))
    # A sliding window keeps one key less than it reads: the query brings its own.
    assert model.cache_bytes(len(CONTEXT)) == pytest.approx(held, rel=0.1)


def answer(
    model: LanguageModel, attention: DenseAttention | SparseAttention, begin: int = 0
) -> list[int]:
    (tokens,) = answers_together(model, attention, begins=[begin])
    return tokens


def answers_together(
    model: LanguageModel, attention: DenseAttention | SparseAttention, begins: list[int]
) -> list[list[int]]:
    """Answer in one batch about contexts that lack this many of the first tokens."""
    rows = []
    for begin in begins:
        context = model.prefill(CONTEXT[begin:], reserve_tokens=len(QUESTION) + NEW_TOKENS)
        session = AttentionSession(attention, seed=0)
        session.begin_context(context.length)
        rows.append(
            Row(
                example_id="one",
                context=context,
                question_ids=QUESTION,
                session=session,
                sampler=Generation().sampler(0, "one", model.device),
                max_new_tokens=NEW_TOKENS,
            )
        )
    return [answer.token_ids for answer in answer_rows(model, rows)]


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in tensors(item)]
    return []
