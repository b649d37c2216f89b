"""Models with their own indexer: attention by it, and every other attention without it.

The reference is the model's own code: `generate`, and the mask that it hands to its attention.
"""

# B batch, H query heads, N tokens, V value dimension

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import repeat_kv
from zoo import small_model

from sah.attention import AttentionInputs, AttentionMask, DenseAttention, SparseAttention
from sah.attention.layers import full_attention_layers, indexed_layers
from sah.attention.prefill.pattern import PrefillLayer, Reads
from sah.attention.prefill.reading import OwnPrefill, SparsePrefill
from sah.attention.session import AttentionSession
from sah.errors import ConfigurationError
from sah.evictors.knorm import KNorm
from sah.maskers.causal import Causal
from sah.maskers.local import Local
from sah.maskers.own_indexer import OwnIndexer
from sah.maskers.sink import Sink
from sah.metric_logging.metrics import output_error, recall
from sah.models.gate import check_model
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel
from sah.models.prompts import PromptEncoder
from sah.models.tiny import tiny_tokenizer
from sah.rewriters.kivi import KIVI

CONTEXT = [2 + (7 * n) % 390 for n in range(60)]
QUESTION = [5 + (11 * n) % 380 for n in range(20)]
TOKENS = [*CONTEXT, *QUESTION]
NEW_TOKENS = 8

# With two heads many keys score exactly zero (ReLU), and which of them are selected depends on the
# length of the pass. With this many heads no two keys tie.
_HEADS = {"index_n_heads": 32}
NO_TIES: dict[str, dict[str, Any]] = {
    "deepseek_v32": _HEADS,
    "axk2": _HEADS,
    "glm_moe_dsa": _HEADS,
    "hy_v4": _HEADS,
    "dots3_note_text": _HEADS,
    "qwen4_exp_text": {"indexer_n_heads": 32},
}

# With values that make the indexer select every key of these tests.
ALL_KEYS: dict[str, dict[str, Any]] = {
    "deepseek_v32": {"index_topk": 512},
    "axk2": {"index_topk": 512},
    "glm_moe_dsa": {"index_topk": 512},
    "hy_v4": {"index_topk": 512},
    "dots3_note_text": {"index_topk": 512},
    "minimax_m3_vl_text": {"index_topk_blocks": 128},
    "qwen4_exp_text": {"indexer_budget": 512},
}
TYPES = pytest.mark.parametrize("model_type", ALL_KEYS)

NATIVE = SparseAttention(name="native", maskers={"native": OwnIndexer()})


def own_model(model_type: str, **values: Any) -> Any:
    return small_model(model_type, **NO_TIES.get(model_type, {}), **values)


def loaded(model_type: str) -> LanguageModel:
    model = LanguageModel(own_model(model_type), PromptEncoder(tiny_tokenizer(), None))
    model.eos_token_ids = frozenset()
    return model


@cache
def generated(model_type: str, *, all_keys: bool = False) -> list[int]:
    """The answer of the model's own code, which no class of this project has touched."""
    model = own_model(model_type, **(ALL_KEYS[model_type] if all_keys else {}))
    with torch.inference_mode():
        ids = model.generate(
            torch.tensor([TOKENS]),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=1,
        )
    return ids[0, len(TOKENS) :].tolist()


def answered(
    model: LanguageModel, attention: Any, observe: Callable[..., None] | None = None
) -> tuple[list[int], AttentionSession]:
    context = model.prefill(
        CONTEXT,
        reserve_tokens=len(QUESTION) + NEW_TOKENS,
        sparse=OwnPrefill() if attention.uses_indexer else None,
    )
    observers = () if observe is None else (observe,)
    session = AttentionSession(attention, seed=0, observers=observers)
    session.begin_context(context.length)
    session.begin_example("one")
    answer = model.answer(
        context,
        QUESTION,
        session=session,
        sampler=Generation().sampler(0, "one", model.device),
        max_new_tokens=NEW_TOKENS,
    )
    return answer.token_ids, session


@dataclass(frozen=True)
class EveryKey:
    """A pattern under which the context's queries read every key."""

    def reads(self, layer: PrefillLayer) -> Reads:
        return Reads(last_queries=layer.length)


class Call(NamedTuple):
    """One call of the attention function by the model's own code, over all tokens."""

    query: Tensor
    key: Tensor
    value: Tensor
    selected: Tensor
    scaling: float
    sinks: Tensor | None


def own_calls(model_type: str, ids: list[int], monkeypatch: pytest.MonkeyPatch) -> dict[int, Call]:
    """What the model's own code hands to its attention function, by layer."""
    model, calls = own_model(model_type), {}
    name = model.config.get_text_config(decoder=True)._attn_implementation
    module = sys.modules[type(model).__module__]
    function = (
        module.eager_attention_forward
        if name == "eager"
        else AttentionInterface._global_mapping[name]
    )

    def spy(layer: Any, query: Tensor, key: Tensor, value: Tensor, mask: Any, **more: Any) -> Any:
        groups = query.shape[1] // key.shape[1]
        causal = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
        chosen = causal if mask is None else mask if mask.dtype == torch.bool else mask == 0
        calls[layer.layer_idx] = Call(
            *(query.double(), repeat_kv(key, groups).double(), repeat_kv(value, groups).double()),
            *(chosen.expand(1, query.shape[1], -1, -1), more["scaling"], more.get("s_aux")),
        )
        return function(layer, query, key, value, mask, **more)

    with monkeypatch.context() as patch, torch.inference_mode():
        patch.setattr(module, "eager_attention_forward", spy)
        patch.setitem(AttentionInterface._global_mapping, "sdpa", spy)
        model(input_ids=torch.tensor([ids]))
    return calls


@torch.no_grad()
def attention_of(call: Call, read: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the keys, B H N N, and output, B H N V, of queries that read some of the keys."""
    scores = (call.query @ call.key.transpose(-1, -2)) * call.scaling
    scores = scores.masked_fill(~read, -torch.inf)
    if call.sinks is not None:
        sinks = call.sinks.double().view(1, -1, 1, 1).expand(*scores.shape[:3], 1)
        scores = torch.cat([scores, sinks], dim=-1)
    share = scores.softmax(-1)[..., : call.key.shape[2]]
    return share, share @ call.value


@TYPES
def test_native_answers_as_the_models_own_generate(model_type: str) -> None:
    tokens, _ = answered(loaded(model_type), NATIVE)
    assert tokens == generated(model_type)
    assert tokens != generated(model_type, all_keys=True), "the indexer leaves something out"


@TYPES
@pytest.mark.parametrize("attention", ["dense", "every key"])
def test_other_attention_answers_as_if_the_indexer_selected_every_key(
    model_type: str, attention: str
) -> None:
    every_key = SparseAttention(name="all", maskers={"all": Causal()})
    tokens, _ = answered(
        loaded(model_type), DenseAttention() if attention == "dense" else every_key
    )
    assert tokens == generated(model_type, all_keys=True)


@TYPES
def test_arms_in_turn_leave_the_indexer_as_each_needs_it(model_type: str) -> None:
    model = loaded(model_type)
    turns = [answered(model, attention)[0] for attention in (NATIVE, DenseAttention(), NATIVE)]
    own, off = generated(model_type), generated(model_type, all_keys=True)
    assert turns == [own, off, own]


@TYPES
def test_native_measures_what_the_models_own_mask_leaves_out(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(model_type)
    config = model.model.config
    measured: dict[str, dict[int, list[Tensor]]] = {"error": {}, "recall": {}}

    def observe(inputs: AttentionInputs, mask: AttentionMask, output: Tensor) -> None:
        error, share = output_error(inputs, mask, output), recall(inputs, mask)
        for name, value in (("error", error), ("recall", share)):
            measured[name].setdefault(inputs.layer_idx, []).append(value[0].mean(0))

    tokens, session = answered(model, NATIVE, observe)
    read = session.keys_read()
    assert read is not None

    # The last token is not read any more.
    ids = [*TOKENS, *tokens[:-1]]
    calls = own_calls(model_type, ids, monkeypatch)
    visible = torch.ones(len(ids), len(ids), dtype=torch.bool).tril()
    after = slice(len(CONTEXT), None)
    densities, rows = [], []
    for layer in sorted(full_attention_layers(config)):
        call = calls[layer]
        groups = config.get_text_config(decoder=True).num_key_value_heads
        union = call.selected.unflatten(1, (groups, -1)).any(2)
        seen = visible.sum(-1)
        densities.append((call.selected.sum(-1) / seen)[..., after].mean())
        rows.append((union.sum(-1) / seen)[..., after].mean())
    assert read.density == pytest.approx(float(sum(densities)) / len(densities), abs=1e-6)
    assert read.rows_read == pytest.approx(float(sum(rows)) / len(rows), abs=1e-6)
    assert read.density < 1
    queries = len(ids) - len(CONTEXT)
    indexed = indexed_layers(config)
    assert read.sparse_queries == queries * len(indexed)
    assert read.dense_queries == queries * (len(densities) - len(indexed))

    for layer in indexed:
        call = calls[layer]
        _, dense = attention_of(call, visible)
        _, sparse = attention_of(call, call.selected)
        error = ((sparse - dense).norm(dim=-1) / dense.norm(dim=-1)).mean(1)[0, after]
        found = torch.cat(measured["error"][layer]).double()
        torch.testing.assert_close(found, error, rtol=1e-3, atol=1e-4)
        share, _ = attention_of(call._replace(sinks=None), visible)
        mass = share.where(call.selected, 0.0).sum(-1).mean(1)[0, after]
        found = torch.cat(measured["recall"][layer]).double()
        torch.testing.assert_close(found, mass, rtol=1e-3, atol=1e-4)


@TYPES
def test_the_density_of_the_prefill_is_that_of_the_models_own_mask(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(model_type)
    calls = own_calls(model_type, CONTEXT, monkeypatch)
    pairs = len(CONTEXT) * (len(CONTEXT) + 1) / 2
    full = sorted(full_attention_layers(model.model.config))
    shares = [float(calls[layer].selected.sum()) / calls[layer].selected.shape[1] for layer in full]
    native = model.prefill(CONTEXT, reserve_tokens=1, sparse=OwnPrefill())
    assert native.prefill_density == pytest.approx(sum(shares) / len(shares) / pairs)
    assert model.prefill(CONTEXT, reserve_tokens=1).prefill_density == 1


@TYPES
def test_a_pattern_of_every_key_prefills_as_dense_attention_without_the_indexer(
    model_type: str,
) -> None:
    model = loaded(model_type)
    every_key = SparseAttention(name="all", prefill={"all": EveryKey()})
    sparse = SparsePrefill.of(every_key, model.model.config, seed=0)
    held = [model.prefill(CONTEXT, reserve_tokens=1, sparse=one).cache for one in (None, sparse)]
    for dense, other in zip(*(one.layers for one in held), strict=True):
        if getattr(dense, "keys", None) is not None:
            torch.testing.assert_close(other.keys, dense.keys, rtol=1e-3, atol=1e-3)


def test_the_density_of_a_token_indexer_is_its_budget_by_hand() -> None:
    _, session = answered(loaded("deepseek_v32"), NATIVE)
    # Queries 61 to 87 see as many keys and read 8 of them, in every layer and head.
    by_hand = [8 / seen for seen in range(len(CONTEXT) + 1, len(TOKENS) + NEW_TOKENS)]
    assert session.density() == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-6)


@TYPES
def test_maskers_select_among_all_keys_without_the_indexer(model_type: str) -> None:
    model = loaded(model_type)
    few = SparseAttention(name="few", maskers={"sink": Sink(tokens=2), "local": Local(tokens=5)})
    _, session = answered(model, few)
    by_hand = [7 / seen for seen in range(len(CONTEXT) + 1, len(TOKENS) + NEW_TOKENS)]
    assert session.density() == pytest.approx(sum(by_hand) / len(by_hand), abs=1e-6)


def test_native_is_refused_on_a_model_without_an_indexer(tiny: LanguageModel) -> None:
    with pytest.raises(ConfigurationError, match="of type 'llama' has none; choose another"):
        NATIVE.check(tiny.model.config)


@pytest.mark.parametrize(
    ("stage", "attention"),
    [
        ("evict", SparseAttention(name="one", evict={"knorm": KNorm(fraction=0.5)})),
        ("rewrite", SparseAttention(name="one", rewrite={"kivi": KIVI()})),
    ],
)
def test_eviction_and_rewriting_are_refused_on_a_model_with_an_indexer(
    stage: str, attention: SparseAttention
) -> None:
    with pytest.raises(ConfigurationError, match=rf"^sparse_attention.{stage}: .*'deepseek_v32'"):
        attention.check(loaded("deepseek_v32").model.config)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"maskers": {"native": OwnIndexer(), "sink": Sink(tokens=2)}}, "maskers.sink"),
        ({"prefill": {"every": EveryKey()}}, "prefill.every"),
        ({"evict": {"knorm": KNorm(fraction=0.5)}}, "evict.knorm"),
        ({"rewrite": {"kivi": KIVI()}}, "rewrite.kivi"),
        ({"dense_layers": [0]}, "dense_layers"),
        ({"layers": {"0": "dense"}}, "layers"),
    ],
)
def test_the_indexer_is_refused_beside_other_parts(more: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=f"does not go together with {named};"):
        SparseAttention(**{"name": "mixed", "maskers": {"native": OwnIndexer()}, **more})


def test_another_attention_function_that_applies_the_selection_itself_is_refused() -> None:
    model = small_model("deepseek_v32")
    model.config._attn_implementation = "flash-mla"
    with pytest.raises(ConfigurationError, match=r"function 'flash-mla'; set .*=sdpa or eager"):
        LanguageModel(model, PromptEncoder(tiny_tokenizer(), None))


def test_an_indexer_whose_selection_is_not_understood_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def as_bytes(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *given: forward(*given).to(torch.uint8)

    model = loaded("qwen4_exp_text")
    for layer in indexed_layers(model.model.config):
        # As if the attention module made a mask of something that is not one.
        indexer = model.model.model.layers[layer].self_attn.indexer
        monkeypatch.setattr(indexer, "forward", as_bytes(indexer.forward))
        indexer.register_forward_hook(lambda *called: called[2].bool())
    assert model.has_indexer
    with pytest.raises(ConfigurationError, match=r"the indexer of its layers \[1, 3\]"):
        check_model(model)


@TYPES
def test_the_cache_counts_the_keys_of_the_indexer(model_type: str) -> None:
    model = loaded(model_type)
    context = model.prefill(CONTEXT, reserve_tokens=8)
    held = [
        tensor.nbytes
        for layer in context.cache.layers
        for name in ("indexer_keys", "idx_keys", "indexer_position_ids")
        if (tensor := getattr(layer, name, None)) is not None
    ]
    assert sum(held) == context.cache.indexer_bytes() > 0
    both = context.cache.bytes_held() + context.cache.indexer_bytes()
    assert model.cache_bytes(len(CONTEXT)) == pytest.approx(both, rel=0.1)
