"""`sah.attach`: sparse attention, eviction and rewriting in the user's transformers model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicCache, DynamicLayer

from sah.api.attached import AttachedAttention, is_attached
from sah.api.chosen_attention import choose
from sah.api.gate_input import measurable
from sah.attention import DenseAttention, SparseAttention
from sah.attention.eviction.remembering import remembering
from sah.attention.eviction.witness import Witness
from sah.attention.layers import full_attention_layers, indexed_layers
from sah.errors import ConfigurationError
from sah.models.cache import RewindableCache
from sah.models.language_model import LanguageModel
from sah.models.loading.architecture import max_tokens
from sah.models.prompts import PromptEncoder


@contextmanager
def attach(
    model: PreTrainedModel,
    attention: str | DenseAttention | SparseAttention,
    *overrides: str,
    seed: int = 0,
    question: Literal["sparse", "dense"] = "sparse",
    tokenizer: PreTrainedTokenizerBase | None = None,
    config_dir: str | Path | None = None,
    **fields: Any,
) -> Iterator[AttachedAttention]:
    """Run an attention in your own transformers model inside the block; restore it on exit.

        with sah.attach(model, "quest", fraction=0.05) as session:
            model.generate(**inputs, max_new_tokens=100)
        print(session.density(), session.rows_read(), session.resident())

    The first forward pass that fills a cache is the prefill: it is computed by the model's own
    attention, or as a pattern of sparse prefill decides, as the context is in an experiment.
    Evictors and rewriters work at its end. Every later pass over this cache is sparse: the decode
    steps of `generate`, and a question that continues a prefilled cache
    (`generate(..., past_key_values=cache)`). So without a pattern the first new token of a plain
    `generate` is that of the dense model.

    Works with greedy decoding and sampling, in pipelines, and in batches padded on the left; each
    row is computed as it would be alone. To measure several questions about one context, prefill
    a `DynamicCache` inside the block and give `generate` a `copy.deepcopy` of it.

    Gradients are not recorded. Beam search, assisted generation, chunked prefill, static and
    quantised caches are refused by name.

    Args:
        model: a causal language model of transformers, in eval mode.
        attention: an option of `attention=`, or an attention made in Python.
        overrides: values of the attention, such as "maskers.quest.page_size=32".
        seed: of maskers that sample and of evictors that draw.
        question: "dense" reads several tokens at once with dense attention, as
            `protocol=question_dense` does; for maskers only.
        tokenizer: of the model; only for evictors that let the model repeat the context (KVzip).
        config_dir: a folder with options of your own, as --config-dir on the command line.
        fields: fields by name, such as fraction=0.05; the attention must have one of this name.

    Yields:
        The measures of the queries so far.

    Raises:
        ConfigurationError: if the attention is wrong, or the model cannot be measured.
    """
    _require_eval(model)
    chosen = choose(
        attention,
        overrides,
        fields,
        model_name=str(model.config._name_or_path or type(model).__name__),
        config_dir=config_dir,
    )
    _require_question(chosen, question)
    _require_no_indexer(model, chosen)
    prompts = _prompts(model, chosen, tokenizer)
    checked = measurable(model)
    if prompts is not None:
        checked.prompts = prompts
    if isinstance(chosen, SparseAttention):
        chosen.check(model.config)
        _require_plain_layers(model, chosen)
        _require_cached_keys(checked, chosen)
    attached = AttachedAttention(checked, chosen, seed=seed, dense_question=question == "dense")
    with attached.in_model():
        yield attached


def _require_eval(model: PreTrainedModel) -> None:
    if not isinstance(model, PreTrainedModel):
        raise ConfigurationError(
            f"sah.attach takes a model of transformers, got {type(model).__name__}; of a compiled "
            "or adapted model give the one inside (model._orig_mod, model.get_base_model())"
        )
    if not model.can_generate():
        raise ConfigurationError(
            f"{type(model).__name__} has no language-model head; load the model with "
            "AutoModelForCausalLM"
        )
    if is_attached(model):
        raise ConfigurationError(
            f"an attention is already attached to this {type(model).__name__}; leave its `with` "
            "block first"
        )
    if model.training:
        raise ConfigurationError(
            f"this {type(model).__name__} is in training mode, with dropout; call model.eval()"
        )


def _require_question(attention: DenseAttention | SparseAttention, question: str) -> None:
    if question not in ("sparse", "dense"):
        raise ConfigurationError(f"question must be 'sparse' or 'dense', got {question!r}")
    if isinstance(attention, DenseAttention):
        return
    if question == "dense" and attention.witness is not None:
        does = "evicts keys" if attention.evict else "rewrites keys and values"
        raise ConfigurationError(
            f"{attention.name!r} {does} at the context's end, but question='dense' needs the whole "
            "cache; leave question at 'sparse'"
        )


@torch.inference_mode()
def _require_cached_keys(model: LanguageModel, attention: SparseAttention) -> None:
    """Refuse a model that attends to other keys than it caches, as one token shows."""
    cache = RewindableCache(model.model.config, capacity=1)
    with remembering(model.model, Witness()) as seen:
        model.forward([0], cache, logits=1)
    layers: list[Any] = cache.layers
    for number, layer in seen.items():
        cached = layers[number].keys.shape  # 1 G 1 D
        if (cached[1], cached[3]) != layer.key_shape:
            raise ConfigurationError(
                f"{type(model.model).__name__}: layer {number} attends to {layer.key_shape[0]} "
                f"heads of dimension {layer.key_shape[1]}, but caches {list(cached[1::2])}, from "
                "which they are computed (multi-head latent attention), and sah.attach does not "
                f"support that; use `sah run attention={attention.name}`"
            )


def _require_no_indexer(
    model: PreTrainedModel, attention: DenseAttention | SparseAttention
) -> None:
    """Refuse a model with its own indexer, and an attention that reads by one."""
    if indexed := indexed_layers(model.config):
        raise ConfigurationError(
            f"{type(model).__name__} selects keys by an indexer of its own, in layers "
            f"{sorted(indexed)}, which sah.attach does not support; use `sah run "
            f"attention={attention.name}`"
        )
    if attention.uses_indexer:
        raise ConfigurationError(
            f"{attention.name!r} reads by the model's own indexer, and {type(model).__name__} has "
            "none; choose another attention"
        )


def _prompts(
    model: PreTrainedModel,
    attention: DenseAttention | SparseAttention,
    tokenizer: PreTrainedTokenizerBase | None,
) -> PromptEncoder | None:
    """Return what encodes the requests to repeat a context; None if the attention needs none."""
    witness = None if isinstance(attention, DenseAttention) else attention.witness
    if witness is None or not witness.reconstructions:
        return None
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        given = "" if tokenizer is None else f", got {type(tokenizer).__name__}"
        raise ConfigurationError(
            f"{attention.name!r} lets the model repeat the context, for which sah.attach needs the "
            f"model's tokenizer{given}; add tokenizer=AutoTokenizer.from_pretrained(…)"
        )
    return PromptEncoder(tokenizer, max_tokens(model.config))


def _require_plain_layers(model: PreTrainedModel, attention: SparseAttention) -> None:
    """Refuse a model with a full-attention layer that does not cache its own keys alone."""
    layers: list[Any] = DynamicCache(config=model.config).layers
    for number in sorted(full_attention_layers(model.config)):
        kind = type(layers[number]) if number < len(layers) else None
        if kind is not DynamicLayer:
            cached = "nothing" if kind is None else kind.__name__
            raise ConfigurationError(
                f"{type(model).__name__}: layer {number} attends to every earlier token but is "
                f"cached as {cached}, which sah.attach does not support (keys shared between "
                f"layers, or kept beside other states); use `sah run attention={attention.name}`"
            )
