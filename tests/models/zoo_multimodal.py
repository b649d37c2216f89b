"""A tiny random checkpoint of most multimodal models in the installed transformers."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
import zoo
from transformers import AutoModelForMultimodalLM, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
)

from sah.models.tiny import randomize, tiny_tokenizer

# Types without a small checkpoint: their parts need values of their own, a package that is not
# installed (timm), or a vocabulary that cannot be made small; ShieldGemma 2 is a classifier.
NOT_TRIED = (
    "chameleon",
    "cosmos3_edge",
    "deepseek_ocr2",
    "diffusion_gemma",
    "ernie4_5_vl_moe",
    "evolla",
    "fast_vlm",
    "florence2",
    "fun_asr_nano",
    "glm5_next",
    "granite4_vision",
    "hunyuan_vl",
    "janus",
    "kyutai_speech_to_text",
    "molmo2",
    "muse_spark",
    "nemo_speechlm",
    "nemotron_h_omni",
    "perception_lm",
    "qwen2_5_omni",
    "qwen3_omni_moe",
    "shieldgemma2",
    "step3p7",
    "vibevoice_asr",
)

# Values by field name, for every part of a config that has the field.
_COMMON: dict[str, Any] = {
    **dict.fromkeys(("embed_dim", "out_hidden_size", "output_dim", "projection_dim"), 32),
    **dict.fromkeys(("mm_hidden_size", "projector_hidden_size"), 32),
    **dict.fromkeys(("text_hidden_size", "vision_hidden_size"), 32),
    "image_size": 28,
    "patch_size": 14,
    **dict.fromkeys(("image_token_id", "image_token_index"), 390),
    "video_token_id": 391,
    **dict.fromkeys(("audio_token_id", "audio_token_index"), 392),
    "vision_start_token_id": 393,
    "vision_end_token_id": 394,
}

# How the rotary frequencies of a small head are shared among time, height and width.
_MROPE_SECTIONS = {
    "glm4v_moe_text": [1, 1, 0],
    "glm4v_text": [1, 1, 2],
    "glm_ocr_text": [1, 1, 2],
    "paddleocr_vl_text": [2, 2, 4],
    "qwen2_5_omni_text": [1, 1, 2],
    "qwen2_5_vl_text": [1, 1, 2],
    "qwen2_vl_text": [1, 1, 2],
}


def multimodal_types() -> list[str]:
    """Return the model types that AutoModelForMultimodalLM knows and AutoModelForCausalLM not."""
    known = MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES
    return [name for name in known if name not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES]


def save_multimodal_checkpoint(model_type: str, folder: Path) -> None:
    """Write what `model=hf` reads: a small model with random weights, and the tiny tokenizer."""
    values = _values(CONFIG_MAPPING[model_type]())
    config = zoo.small_config(model_type, **values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = AutoModelForMultimodalLM.from_config(config)
    randomize(model, 0)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)


def _values(config: PreTrainedConfig) -> dict[str, Any]:
    """Return the values of _COMMON for a config and its parts."""
    names = {field.name for field in dataclasses.fields(config)}
    values = {name: value for name, value in _COMMON.items() if name in names}
    sections = _MROPE_SECTIONS.get(config.model_type)
    if sections is not None:
        values["rope_parameters"] = config.rope_parameters | {"mrope_section": sections}
    for name in config.sub_configs:
        part = getattr(config, name, None)
        if isinstance(part, PreTrainedConfig):
            values[name] = _values(part)
    return values
