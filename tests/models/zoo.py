"""A tiny random model of every causal language model in the installed transformers."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from zoo_values import COMMON, NEEDED, SPECIAL

from sah.models.tiny import randomize, tiny_tokenizer

# Why transformers 5.23.0 cannot build the model, at any size.
NOT_BUILT = {
    "gemma3n": "its vision tower needs the package timm; gemma3n_text is the same language model",
    "gemma4_assistant": "every layer reuses the keys of the model that it assists, "
    "but Gemma4TextConfig demands a layer that computes them",
    "gemma4_unified_assistant": "every layer reuses the keys of the model that it assists, "
    "but Gemma4UnifiedTextConfig demands a layer that computes them",
    "musicgen": "AutoModelForCausalLM passes the whole config to a class that takes its decoder's",
    "musicgen_melody": "AutoModelForCausalLM passes the whole config to a class that takes its "
    "decoder's",
}

_MOST_PARAMETERS = 3_000_000
_OPTIONAL = ("sliding_window", "attention_chunk_size", "q_lora_rank")


def model_types() -> list[str]:
    """Return every model type that AutoModelForCausalLM knows, in its order."""
    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def small_config(model_type: str, **values: Any) -> PreTrainedConfig:
    """Return a config of the class that a checkpoint of this type has.

    It has two to six layers, among them every kind that the architecture offers, windows and
    chunks of 16 tokens, indexers that select 8 keys, 400 token ids and 512 positions. The config
    of a multimodal model is whole; its `get_text_config` is that of the language model.

    Args:
        model_type: one of `model_types`.
        values: fields to set for a variant; a dict for a part of the config, for example
            `text_config={"sliding_window": None}`.
    """
    return _shrink(CONFIG_MAPPING[model_type](**NEEDED.get(model_type, {})), values)


def small_model(model_type: str, **values: Any) -> PreTrainedModel:
    """Return a model with the same random weights in every process, in eval mode.

    Raises:
        AssertionError: if it has 3 million parameters or more, if its logits are not finite, or
            if the logits of the last of 40 tokens do not depend on the first token.
    """
    config = small_config(model_type, **values)
    # The meta device first: a value that is missing in SPECIAL can mean gigabytes of weights.
    with torch.device("meta"):
        size = sum(weight.numel() for weight in _build(config).parameters())
    assert size < _MOST_PARAMETERS, (
        f"{model_type} has {size / 1e6:.1f} million parameters; make it smaller in zoo_values.py"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _build(config)
    randomize(model, 0)
    _randomize_vectors(model)
    _check(model.eval(), model_type)
    return model


def save_checkpoint(model_type: str, folder: Path) -> None:
    """Write what `model=hf` reads: a small model with its whole config, and the tiny tokenizer."""
    small_model(model_type).save_pretrained(folder)
    # Some models keep only the text part, and decoders of encoder-decoder models deny the encoder.
    small_config(model_type).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def _shrink(config: PreTrainedConfig, values: dict[str, Any]) -> PreTrainedConfig:
    """Return a small config of the class of `config`, which has its default values."""
    config_class = type(config)
    fields = {field.name for field in dataclasses.fields(config_class)}
    small: dict[str, Any] = {}
    for name, value in COMMON.items():
        if name in _OPTIONAL and getattr(config, name, None) is None:
            continue
        alias = config_class.attribute_map.get(name)
        if name in fields or (alias in fields and alias not in COMMON):
            small[name] = value
    if "qk_rope_head_dim" in small:  # multi-head latent attention: a key for every query head
        small["num_key_value_heads"] = small["num_attention_heads"]
        small["head_dim"] = small["qk_rope_head_dim"]
    special = SPECIAL.get(config.model_type, {})
    small |= special | values
    for name in config_class.sub_configs:
        part, given = getattr(config, name, None), values.get(name, {})
        if isinstance(part, PreTrainedConfig) and isinstance(given, dict):
            small[name] = _shrink(part, special.get(name, {}) | given)
    return config_class(**small)


def _build(config: PreTrainedConfig) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def _randomize_vectors(model: PreTrainedModel) -> None:
    """Redraw biases, sinks and gates that are zero, so that a model without them differs."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim < 2 and not (weight.isfinite().all() and weight.any()):
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.25)


def _check(model: PreTrainedModel, model_type: str) -> None:
    prompts = torch.tensor([[2 + 7 * i % 390 for i in range(40)]]).repeat(2, 1)
    prompts[1, 0] = 5
    # Without a cache: BLT cannot make one from its own config. Reformer sets the global seed.
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        one, other = (model(input_ids=prompt[None], use_cache=False).logits for prompt in prompts)
    assert one.isfinite().all(), f"the logits of {model_type} are not finite"
    assert (one - other)[0, -1].abs().max() > 1e-3, f"{model_type} does not see the first token"
