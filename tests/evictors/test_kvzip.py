"""KVzip: scores by an independent computation, kept keys by kvpress, one budget for all layers."""

import copy
import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from zoo import small_model

from sah.attention import SparseAttention
from sah.attention.eviction.reconstruction import Reconstruction
from sah.errors import ConfigurationError
from sah.evictors.kvzip import KVzip
from sah.evictors.presses.press_class import kvpress_importable
from sah.evictors.wrappers.adakv import AdaKV
from sah.models.eviction import evicted, reconstruct
from sah.models.language_model import LanguageModel, PrefilledContext
from sah.models.prompts import EncodedPrompt, PromptEncoder
from sah.models.tiny import TinyModel, tiny_tokenizer

CONTEXT = [1 + 7 * n % 389 for n in range(100)]
CHUNK, SINKS = 40, 4
ASKED = Reconstruction(chunk=CHUNK, sinks=SINKS)


def prompt_of(ids: Sequence[int], *, chat_template: bool = False) -> EncodedPrompt:
    return EncodedPrompt(context_ids=list(ids), question_ids=[], chat_template=chat_template)


def repeated(
    model: LanguageModel, prompt: EncodedPrompt, asked: Reconstruction = ASKED
) -> PrefilledContext:
    evictor = KVzip(tokens=1, chunk=asked.chunk, sinks=asked.sinks)
    context = model.prefill(prompt.context_ids, reserve_tokens=8, witness=evictor.witness)
    reconstruct(model, context, prompt, asked)
    return context


def kept_by(
    model: LanguageModel, context: PrefilledContext, evictor: Any, **options: Any
) -> list[Tensor]:
    """Return which keys of the context each layer keeps, [G, K]."""
    attention = SparseAttention(name="x", evict={"x": evictor}, **options)
    own = evicted(context, attention, model.model.config, seed=0)
    marks = []
    for kept in (own.kept or {}).values():
        marks.append(torch.zeros(kept.key.shape[:3], dtype=torch.bool))
        marks[-1].scatter_(2, kept.position, True)
    return [one[0] for one in marks]


def in_context(model: LanguageModel, length: int = 100) -> EncodedPrompt:
    """Return a prompt whose context begins with a chat template of several tokens."""
    before, _ = model.prompts.template.around("x", "")  # type: ignore[union-attr]
    heading = model.prompts.tokenizer(before.removesuffix("x"), add_special_tokens=False).input_ids
    return prompt_of([*heading, *CONTEXT[: length - len(heading)]], chat_template=True)


def tokenizer_with(template: str) -> Any:
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture
def talkative() -> LanguageModel:
    """A model with a template that begins with more tokens than the sinks."""
    template = (
        "<|system|>Be brief. {% for message in messages %}<|user|>{{ message.content }}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    # Its own, as transformers leaves hooks on a model that has returned its attention weights.
    return LanguageModel(TinyModel().load().model, PromptEncoder(tokenizer_with(template), None))


@pytest.mark.parametrize("with_template", [False, True])
def test_scores_are_the_largest_renormalised_weights_while_the_context_is_repeated(
    with_template: bool, talkative: LanguageModel
) -> None:
    model, prompt = talkative, prompt_of(CONTEXT)
    if with_template:
        prompt = in_context(model)
    ids, encode = prompt.context_ids, model.prompts.tokenizer.encode
    heading = 0
    turn = encode("\n")
    if with_template:
        heading = ids.index(encode("<|user|>")[0]) + 1
        assert heading > SINKS
        turn = encode("<|assistant|>")
    context = repeated(model, prompt)
    found = context.reconstructions[ASKED]
    assert found.leading == max(SINKS, heading)
    model.model.set_attn_implementation("eager")
    try:
        for begin in range(heading, 100, CHUNK):
            end = min(100, begin + CHUNK)
            request = encode("\n\nRepeat the previous context exactly.")
            if begin > heading:
                request = encode(
                    "\n\nRepeat the part of the previous context exactly, starting with"
                )
                request += ids[begin - 8 : begin]
            read = [*ids, *request, *turn, *ids[begin:end]]
            with torch.inference_mode():
                layers = model.model(torch.tensor([read]), output_attentions=True).attentions
            counted = torch.zeros(len(read), dtype=torch.bool)
            counted[: min(begin, found.leading)] = True
            counted[begin:end] = True
            counted[100:] = True
            for number, weights in enumerate(layers):
                of_queries = weights[0, :, 100:] * counted  # H Q K
                of_queries = of_queries / of_queries.sum(-1, keepdim=True)
                expected = of_queries.amax(1).unflatten(0, (2, -1)).amax(1)[:, begin:end]
                assert_close(
                    found.strongest[number][0, :, begin:end], expected, atol=1e-5, rtol=1e-4
                )
    finally:
        model.model.set_attn_implementation("sdpa")


def test_the_cache_is_unchanged_and_a_model_that_reads_single_tokens_scores_alike(
    tiny: LanguageModel,
) -> None:
    plain = tiny.prefill(CONTEXT, reserve_tokens=8)
    context = repeated(tiny, prompt_of(CONTEXT))
    assert context.cache.length == 100
    for one, other in zip(plain.cache.layers, context.cache.layers, strict=True):
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)
    tiny.reads_single_tokens = True
    try:
        single = repeated(tiny, prompt_of(CONTEXT)).reconstructions[ASKED]
    finally:
        tiny.reads_single_tokens = False
    for number, weights in context.reconstructions[ASKED].strongest.items():
        assert_close(single.strongest[number], weights, atol=1e-5, rtol=1e-4)


def test_states_of_other_layers_are_unchanged() -> None:
    model = LanguageModel(small_model("qwen3_next"), PromptEncoder(tiny_tokenizer(), None))
    context = repeated(model, prompt_of(CONTEXT))
    with torch.inference_mode():
        fresh = model.prefill(CONTEXT, reserve_tokens=8)
        logits = model.forward([3, 4, 5], fresh.cache, logits=1)
        assert torch.equal(model.forward([3, 4, 5], context.cache, logits=1), logits)


@pytest.mark.parametrize("with_template", [False, True])
@pytest.mark.parametrize("across", ["layer", "model"])
def test_keeps_the_keys_that_kvpress_keeps(
    across: Any, with_template: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if importlib.util.find_spec("kvpress") is None:
        pytest.skip("needs pip install --no-deps kvpress")
    model = TinyModel(layers=3).load()
    tokenizer = model.prompts.tokenizer
    prompt = in_context(model) if with_template else prompt_of(CONTEXT)
    if not with_template:
        monkeypatch.setattr(tokenizer, "chat_template", None)
    with kvpress_importable():
        module = importlib.import_module("kvpress.presses.kvzip_press")
        monkeypatch.setattr(module.AutoTokenizer, "from_pretrained", lambda _: tokenizer)
        press = module.KVzipPress(
            compression_ratio=0.75, layerwise=across == "layer", chunk_size=CHUNK
        )
        from transformers import DynamicCache

        with torch.inference_mode(), press(model.model):
            model.model.model(
                input_ids=torch.tensor([prompt.context_ids]), past_key_values=DynamicCache()
            )
    context = repeated(model, prompt)
    kept = kept_by(model, context, KVzip(fraction=0.25, chunk=CHUNK, across=across))
    assert sum(int(one.sum()) for one in kept) == 3 * 2 * 25
    for layer, marks in zip(model.model.model.layers, kept, strict=True):
        expected = torch.ones(1, 2, 100, dtype=torch.bool)
        expected[layer.self_attn.masked_key_indices] = False
        assert torch.equal(marks, expected[0])


def test_layers_and_heads_compete_for_one_budget(tiny: LanguageModel) -> None:
    context = repeated(tiny, prompt_of(CONTEXT))
    counts = {
        across: torch.stack(
            [
                one.sum(-1)
                for one in kept_by(tiny, context, KVzip(fraction=0.3, chunk=CHUNK, across=across))
            ]
        )
        for across in ("head", "layer", "model")
    }
    assert (counts["head"] == 30).all()
    assert (counts["layer"].sum(1) == 60).all()
    assert counts["layer"].unique().numel() > 1
    assert counts["model"].sum() == 120
    assert counts["model"].sum(1).unique().numel() > 1
    # Of the layers that evict.
    (alone,) = kept_by(tiny, context, KVzip(fraction=0.3, chunk=CHUNK), dense_layers=[0])
    assert alone.sum() == 60


def test_every_head_keeps_its_first_keys_before_any_other_key(tiny: LanguageModel) -> None:
    context = repeated(tiny, prompt_of(CONTEXT))
    for tokens in (1, 3, 4):
        for kept in kept_by(tiny, context, KVzip(tokens=tokens, chunk=CHUNK)):
            assert kept.sum() == 2 * tokens
            assert kept[:, :tokens].all()


def test_a_wrapper_spends_the_budget_by_itself(tiny: LanguageModel) -> None:
    context = repeated(tiny, prompt_of(CONTEXT))
    inner = KVzip(fraction=0.3, chunk=CHUNK, across="head")
    kept = kept_by(tiny, context, AdaKV(of=inner, safe=0.1))
    assert all(one.sum() == 60 and one[:, :4].all() for one in kept)


def test_a_context_of_the_chat_template_alone_has_nothing_to_repeat(
    talkative: LanguageModel,
) -> None:
    prompt = in_context(talkative, length=8)
    heading, chunks = talkative.prompts.repetition(prompt, CHUNK)
    prompt = prompt_of(prompt.context_ids[:heading], chat_template=True)
    assert chunks or heading == 8
    context = repeated(talkative, prompt)
    for kept in kept_by(talkative, context, KVzip(tokens=3, chunk=CHUNK)):
        assert kept[:, :3].all()
        assert kept.sum() == 6


def test_a_repetition_beyond_the_limit_of_the_model_is_refused(tiny: LanguageModel) -> None:
    model = LanguageModel(tiny.model, PromptEncoder(tiny_tokenizer(), 155))
    with pytest.raises(ConfigurationError, match=r"limit of 155; lower chunk, or benchmark"):
        repeated(model, prompt_of(CONTEXT))
    assert repeated(model, prompt_of(CONTEXT), Reconstruction(chunk=4, sinks=4)).reconstructions


def test_a_rotation_by_the_length_of_the_sequence_is_refused() -> None:
    rope = {"rope_theta": 10000.0, "factor": 4.0, "rope_type": "dynamic"}
    llama = small_model("llama", rope_parameters=rope)
    model = LanguageModel(llama, PromptEncoder(tiny_tokenizer(), None))
    with pytest.raises(ConfigurationError, match=r"LongRoPE, dynamic NTK.* at most 108; lower"):
        repeated(model, prompt_of(CONTEXT))


def test_a_thought_that_the_template_opens_is_closed_before_the_repetition() -> None:
    template = "{{ messages[0].content }}<|assistant|><think>"
    prompts = PromptEncoder(tokenizer_with(template), None)
    _, (chunk,) = prompts.repetition(prompt_of(CONTEXT[:5], chat_template=True), CHUNK)
    text = prompts.tokenizer.decode(chunk.ids[:-5])
    assert text.endswith("exactly.<|assistant|><think></think>\n\n")
