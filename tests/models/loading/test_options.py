"""Every option for transformers is read by it, or refused by name with the way out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sah.errors import ConfigurationError, ModelLoadingError
from sah.models.hub import HubModel
from sah.models.language_model import LanguageModel

LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
YARN = LINEAR | {"rope_type": "yarn", "original_max_position_embeddings": 8192}


def source(folder: Path, **options: Any) -> HubModel:
    return HubModel(name="mine", name_or_path=str(folder), device="cpu", **options)


@pytest.mark.parametrize(
    ("option", "value", "way_out"),
    [
        ("dtype", "float16", "set model.dtype"),
        ("torch_dtype", "float16", "set model.dtype"),
        ("revision", "main", "set model.revision"),
        ("trust_remote_code", True, "set model.trust_remote_code"),
        ("local_files_only", True, "HF_HUB_OFFLINE"),
        ("cache_dir", "/elsewhere", "HF_HUB_CACHE"),
        ("token", "secret", "HF_TOKEN"),
        ("proxies", {}, "HTTPS_PROXY"),
        ("subfolder", "inner", "set model.name_or_path"),
        ("config", "other", "set model.name_or_path"),
        ("state_dict", {}, "set model.name_or_path"),
        ("gguf_file", "model.gguf", "save_pretrained"),
        ("use_cache", False, "the cache is always used"),
        ("output_loading_info", False, "it is always read"),
        ("ignore_mismatched_sizes", True, "random values"),
        ("weights_only", False, "can run code"),
        ("generation_config", {}, "set generation"),
        ("tp_plan", "auto", "model.tensor_parallel=2"),
        ("load_in_4bit", True, "quantization_config.load_in_4bit"),
        ("use_flash_attention_2", True, "attn_implementation=flash_attention_2"),
        ("tie_word_embeddings", True, "config.json"),
        ("output_attentions", True, "leave it out"),
        ("return_dict", False, "leave it out"),
        ("is_encoder_decoder", True, "leave it out"),
        ("low_cpu_mem_usage", True, "leave it out"),
        ("_attn_implementation", "eager", "leave it out"),
        ("quantization_config", 4, "must be a mapping, got 4"),
    ],
)
def test_an_option_that_would_have_no_effect_is_refused_before_loading(
    option: str, value: Any, way_out: str
) -> None:
    with pytest.raises(ValueError, match=rf"model\.model_kwargs\.{option} .*{way_out}"):
        HubModel(name="mine", name_or_path="org/name", model_kwargs={option: value})


@pytest.mark.parametrize(
    "attention", ["eager", "sdpa", pytest.param("flex_attention", marks=pytest.mark.slow)]
)
def test_every_attention_of_transformers_gives_the_same_logits(
    attention: str, saved: Path, tiny: LanguageModel
) -> None:
    ids = torch.arange(10, 60)[None]
    model = source(saved, model_kwargs={"attn_implementation": attention}).load().model
    assert model.config._attn_implementation == attention
    with torch.inference_mode():
        difference = model(input_ids=ids).logits - tiny.model(input_ids=ids).logits
    assert difference.abs().max() < 1e-4


@pytest.mark.parametrize(
    "attention", ["flash", "paged|eager", "paged|sdpa", "kernels-community/flash-attn2", 3]
)
def test_an_attention_that_is_unknown_or_runs_code_from_the_hub_is_refused(attention: Any) -> None:
    with pytest.raises(
        ValueError, match=r"attn_implementation=.* is not one of eager, sdpa.*trust_remote_code"
    ):
        HubModel(
            name="mine",
            name_or_path="org/name",
            model_kwargs={"attn_implementation": attention},
        )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"max_positon_embeddings": 5}, "did you mean max_position_embeddings?"),
        ({"sliding_window": 3}, "neither an option of from_pretrained nor in the config of a"),
        ({"sliding_windw": 3}, "the known ones are attention_bias"),
        ({"rope_scalling": LINEAR}, "is not read; set .*rope_parameters"),
        ({"rope_scaling": LINEAR}, "is not read; set .*rope_parameters"),
        ({"rope_theta": 5e5}, "is not read; set .*rope_parameters"),
        ({"rope_parameters": LINEAR | {"fator": 2.0}}, r"fator is not read; did you mean factor\?"),
        ({"rope_parameters": LINEAR | {"rope_theta": None}}, "lacks rope_theta; it replaces all"),
        ({"rope_parameters": LINEAR | {"rope_type": "yarm"}}, "'yarm' is not one of default, "),
        (
            {"rope_parameters": LINEAR | {"rope_type": "yarn"}},
            "lacks original_max_position_embeddings",
        ),
        ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}}, "Missing required keys"),
        ({"rope_parameters": None}, "must be a mapping, got None"),
        ({"rope_parameters": LINEAR | {"rope_type": ["linear"]}}, "is not one of default, "),
        (
            {"quantization_config": {"load_in_4bit": True, "bnb_4bit_quant_typ": "nf4"}},
            r"bnb_4bit_quant_typ is not read; did you mean bnb_4bit_quant_type\?",
        ),
        ({"temperature": 0.5}, r"answers follow generation\.\*"),
        ({"repetition_penalty": 1.2}, r"answers follow generation\.\*"),
    ],
)
def test_a_value_that_the_config_has_no_place_for_is_refused_by_name(
    option: dict[str, Any], message: str, saved: Path
) -> None:
    model = source(saved, model_kwargs=option)
    (name,) = option
    with pytest.raises(ConfigurationError, match=rf"model\.model_kwargs\.{name}.*{message}"):
        model.load()
    if name != "quantization_config":
        with pytest.raises(ConfigurationError, match=message):
            model.prompts()


@pytest.mark.parametrize("value", ["8k", None])
def test_a_value_of_the_wrong_type_names_the_option(value: Any, saved: Path) -> None:
    model = source(saved, model_kwargs={"max_position_embeddings": value})
    with pytest.raises(
        ModelLoadingError, match=r"with model\.model_kwargs max_position_embeddings: .*expected int"
    ):
        model.load()


def test_a_key_of_config_json_that_the_model_does_not_read_is_refused(
    checkpoint: Path, edit_json: Callable[..., None]
) -> None:
    edit_json(checkpoint / "config.json", sliding_window=4096)
    with pytest.raises(ConfigurationError, match=r"model_kwargs\.sliding_window is neither"):
        source(checkpoint, model_kwargs={"sliding_window": 8}).load()


def test_an_unknown_value_of_a_nested_config_is_refused_by_name(tmp_path: Path) -> None:
    from transformers import Gemma3Config

    # transformers keeps it as an attribute that nothing reads.
    Gemma3Config().save_pretrained(tmp_path)
    for option, message in [
        ({"sliding_windw": 3}, r"text_config\.sliding_windw .* did you mean sliding_window\?"),
        ({"rope_parameters": LINEAR | {"fator": 1}}, r"text_config\.rope_parameters\.fator"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            source(tmp_path, model_kwargs={"text_config": option}).load()


@pytest.mark.parametrize("rope", [LINEAR, YARN])
def test_rotary_parameters_replace_those_of_the_config(rope: dict[str, Any], saved: Path) -> None:
    model = source(
        saved, model_kwargs={"rope_parameters": rope, "max_position_embeddings": 32768}
    ).load()
    assert model.model.config.rope_parameters == rope
    assert model.prompts.max_tokens == 32768
    # Interpolation by 4 (all frequencies for linear, the lowest for yarn).
    lowest = 10000.0 ** -(14 / 16) / 4
    assert model.model.model.rotary_emb.inv_freq[-1].item() == pytest.approx(lowest)


@pytest.mark.parametrize(
    ("option", "value", "way_out"),
    [
        ("enable_thinking", False, r"set model\.template_kwargs\.enable_thinking"),
        ("use_fast", False, "chooses the tokenizer's implementation"),
        ("revision", "main", "set model.revision"),
        ("token", "secret", "HF_TOKEN"),
        ("gguf_file", "model.gguf", "save_pretrained"),
        ("subfolder", "inner", "set model.name_or_path"),
        ("tokenizer_file", "other.json", "set model.name_or_path"),
        ("add_special_tokens", False, "add_bos_token"),
    ],
)
def test_a_tokenizer_option_that_is_set_elsewhere_is_refused_before_loading(
    option: str, value: Any, way_out: str
) -> None:
    with pytest.raises(ValueError, match=rf"model\.tokenizer_kwargs\.{option} .*{way_out}"):
        HubModel(name="mine", name_or_path="org/name", tokenizer_kwargs={option: value})


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"paddin_side": "left"}, r"did you mean padding_side\?"),
        ({"legacy": False}, "is not read by TokenizersBackend; the known ones are add_bos_token"),
        ({"add_prefix_space": True}, "is not read by TokenizersBackend"),
        ({"do_lower_case": True}, "is not read by TokenizersBackend"),
        ({"reasoning": "low"}, r"but by its chat template; set model\.template_kwargs\.reasoning"),
    ],
)
def test_a_tokenizer_option_that_nothing_reads_is_refused_by_name(
    option: dict[str, Any], message: str, checkpoint: Path
) -> None:
    (checkpoint / "chat_template.jinja").write_text("{{ reasoning }}{{ messages[0].content }}")
    model = source(checkpoint, tokenizer_kwargs=option)
    (name,) = option
    with pytest.raises(ConfigurationError, match=rf"model\.tokenizer_kwargs\.{name} .*{message}"):
        model.prompts()


@pytest.mark.parametrize(
    ("option", "effect"),
    [
        ({"add_bos_token": True}, lambda tokenizer: tokenizer("a").input_ids[0] == 0),
        ({"add_eos_token": True}, lambda tokenizer: tokenizer("a").input_ids[-1] == 1),
        ({"bos_token": "<|user|>"}, lambda tokenizer: tokenizer.bos_token_id == 2),
        (
            {"chat_template": "{{ messages[0]['content'] }}!"},
            lambda tokenizer: tokenizer.chat_template.endswith("!"),
        ),
        ({"padding_side": "left"}, lambda tokenizer: tokenizer.padding_side == "left"),
        ({"truncation_side": "left"}, lambda tokenizer: tokenizer.truncation_side == "left"),
        ({"model_max_length": 9}, lambda tokenizer: tokenizer.model_max_length == 9),
        (
            {"clean_up_tokenization_spaces": True},
            lambda tokenizer: tokenizer.clean_up_tokenization_spaces,
        ),
        (
            {"split_special_tokens": True},
            lambda tokenizer: tokenizer("<|end|>").input_ids != [1],
        ),
    ],
)
def test_a_tokenizer_option_that_is_read_is_passed_on(
    option: dict[str, Any], effect: Callable[[Any], bool], saved: Path
) -> None:
    assert not effect(source(saved).prompts().tokenizer)
    assert effect(source(saved, tokenizer_kwargs=option).prompts().tokenizer)
