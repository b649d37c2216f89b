"""What a checkpoint is: a language model, the text model of a larger one, or refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.testing import assert_close
from transformers import (
    AutoModelForMultimodalLM,
    Gemma3ForCausalLM,
    LlamaForCausalLM,
    MistralForCausalLM,
    PreTrainedConfig,
    Qwen2ForCausalLM,
)

from sah.attention import DenseAttention, SparseAttention
from sah.attention.session import AttentionSession
from sah.errors import ModelLoadingError, ModelNotFound
from sah.maskers.causal import Causal
from sah.models.hub import HubModel
from sah.models.language_model import LanguageModel
from sah.models.tiny import randomize, tiny_tokenizer

TEXT: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
# The text model that each multimodal model contains, and the configs of its parts.
MULTIMODAL: dict[str, tuple[Any, dict[str, Any]]] = {
    "llava": (
        LlamaForCausalLM,
        {"text_config": TEXT | {"model_type": "llama"}, "vision_config": VISION},
    ),
    "mistral3": (
        MistralForCausalLM,
        {"text_config": TEXT | {"model_type": "mistral"}, "vision_config": VISION},
    ),
    "gemma3": (
        Gemma3ForCausalLM,
        {"text_config": TEXT | {"sliding_window": 8}, "vision_config": VISION},
    ),
    "qwen2_5_vl": (
        Qwen2ForCausalLM,
        {
            "text_config": TEXT
            | {
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "mrope_section": [1, 1, 2],
                }
            },
            "vision_config": VISION | {"depth": 1, "num_heads": 4, "out_hidden_size": 32},
        },
    ),
    "qwen2_audio": (
        Qwen2ForCausalLM,
        {
            "text_config": TEXT | {"model_type": "qwen2"},
            "audio_config": {
                "d_model": 32,
                "encoder_layers": 1,
                "encoder_attention_heads": 4,
                "encoder_ffn_dim": 48,
            },
        },
    ),
}
IDS = [2 + (7 * n) % 380 for n in range(40)]
QUESTION = [70, 71, 72, 73]


def load(name_or_path: object, **options: Any) -> LanguageModel:
    return HubModel(name="mine", name_or_path=str(name_or_path), device="cpu", **options).load()


def logits(model: LanguageModel, attention: DenseAttention | SparseAttention) -> torch.Tensor:
    """The logits after a context and a question, in two pieces."""
    context = model.prefill(IDS, reserve_tokens=10)
    session = AttentionSession(attention, seed=0)
    session.begin_context(context.length)
    session.begin_example("one")
    return model.read_question(context, QUESTION, session=session)[1]


@pytest.fixture
def only_config(tmp_path: Path, saved: Path) -> Callable[..., Path]:
    """Make a folder with a config and a tokenizer, but without weights."""

    def make(content: PreTrainedConfig | dict[str, Any]) -> Path:
        folder = tmp_path / "model"
        folder.mkdir()
        tiny_tokenizer().save_pretrained(folder)
        if isinstance(content, PreTrainedConfig):
            content.save_pretrained(folder)
        else:
            (folder / "config.json").write_text(json.dumps(content))
        return folder

    return make


@pytest.mark.parametrize("kind", MULTIMODAL)
def test_a_multimodal_model_answers_text_like_its_text_model(kind: str, tmp_path: Path) -> None:
    text_class, parts = MULTIMODAL[kind]
    config = transformers.CONFIG_MAPPING[kind](**parts)
    with torch.random.fork_rng(devices=[]):
        whole = AutoModelForMultimodalLM.from_config(config)
        text = text_class(
            text_class.config_class(**{**config.text_config.to_dict(), "model_type": None})
        )
    randomize(whole, 0)
    text.model.load_state_dict(whole.model.language_model.state_dict())
    text.lm_head.load_state_dict(whole.lm_head.state_dict())
    whole.save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)

    loaded = load(tmp_path)

    with torch.inference_mode():
        expected = text.eval()(input_ids=torch.tensor([IDS + QUESTION])).logits[:, -1]
    assert_close(logits(loaded, DenseAttention()), expected, atol=1e-4, rtol=1e-4)
    every_key = SparseAttention(name="causal", maskers={"all": Causal()})
    assert_close(logits(loaded, every_key), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("BertConfig", "is an encoder, whose tokens attend to later ones"),
        ("RobertaConfig", "is an encoder, whose tokens attend to later ones"),
        ("T5Config", "is an encoder-decoder model"),
        ("BartConfig", "is an encoder-decoder model"),
        ("WhisperConfig", "is an encoder-decoder model"),
        ("Blip2Config", "needs pixel_values beside the text"),
        ("Qwen2_5OmniConfig", "does not read text alone"),
        ("MambaConfig", "has no key-value cache"),
        ("RwkvConfig", "has no key-value cache"),
        ("XLNetConfig", "has no key-value cache"),
        ("OpenAIGPTConfig", "has no key-value cache"),
        ("ViTConfig", "is not a language model"),
        ("CLIPConfig", "is not a language model"),
        ("Wav2Vec2Config", "is not a language model"),
    ],
)
def test_another_kind_of_model_is_refused_before_its_weights_are_looked_for(
    config: str, message: str, only_config: Callable[..., Path]
) -> None:
    content = getattr(transformers, config)()
    with pytest.raises(ModelLoadingError, match=message) as caught:
        load(only_config(content))
    assert f"model_type {content.model_type!r}" in str(caught.value)
    assert "choose a decoder-only language model" in str(caught.value)


def test_an_encoder_that_was_trained_as_a_decoder_is_not_refused_as_an_encoder(
    only_config: Callable[..., Path],
) -> None:
    folder = only_config(transformers.BertConfig(is_decoder=True))
    with pytest.raises(ModelLoadingError, match=r"cannot load the weights"):
        load(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"model_type": "llama9", "transformers_version": "9.1.0"},
            r"model_type 'llama9', which transformers [\d.]+ does not know "
            r"\(the config was written by 9\.1\.0\); upgrade",
        ),
        ({"hidden_size": 64}, "has no model_type"),
        ({"model_type": "llama", "hidden_size": "64"}, "cannot read config.json.*hidden_size"),
        ({"model_type": "llama", "rope_parameters": 3}, "cannot read config.json"),
        ([], "cannot read config.json"),
    ],
)
def test_a_config_that_cannot_be_read_is_refused_with_the_reason(
    content: dict[str, Any], message: str, only_config: Callable[..., Path]
) -> None:
    folder = only_config(content)
    with pytest.raises(ModelLoadingError, match=message):
        load(folder)
    with pytest.raises(ModelLoadingError, match=message):
        HubModel(name="mine", name_or_path=str(folder)).prompts()
    assert HubModel(name="mine", name_or_path=str(folder)).known_max_tokens() is None


@pytest.mark.parametrize(
    "changes", [{"model_type": "custom", "auto_map": {"AutoModelForCausalLM": "code.M"}}, {}]
)
def test_a_model_that_needs_its_own_code_names_the_file(
    changes: dict[str, Any], only_config: Callable[..., Path]
) -> None:
    # The second config is known to transformers, which has no language model for it.
    config = {"model_type": "vit", "auto_map": {"AutoModelForCausalLM": "code.M"}} | changes
    with pytest.raises(ModelLoadingError, match=r"comes with it \(code\.py\).*trust_remote_code"):
        load(only_config(config))


@pytest.fixture
def own_code(
    checkpoint: Path,
    edit_json: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Path:
    """A Llama with code that doubles its logits."""
    (checkpoint / "doubled.py").write_text(
        "from transformers import LlamaForCausalLM\n\n\n"
        "class Doubled(LlamaForCausalLM):\n"
        "    def forward(self, *args, **kwargs):\n"
        "        output = super().forward(*args, **kwargs)\n"
        "        output.logits = 2 * output.logits\n"
        "        return output\n"
    )
    edit_json(checkpoint / "config.json", auto_map={"AutoModelForCausalLM": "doubled.Doubled"})
    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    return checkpoint


def test_code_that_comes_with_a_known_model_is_not_run_and_logged(
    own_code: Path, tiny: LanguageModel, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        loaded = load(own_code)
    assert "its own code (doubled.py), which is not run: transformers has llama" in caplog.text
    assert_close(logits(loaded, DenseAttention()), logits(tiny, DenseAttention()))


def test_code_that_is_trusted_is_run(own_code: Path, tiny: LanguageModel) -> None:
    loaded = load(own_code, trust_remote_code=True)
    assert_close(logits(loaded, DenseAttention()), 2 * logits(tiny, DenseAttention()))


def test_an_adapter_is_refused_with_its_base_model(checkpoint: Path) -> None:
    # Without peft, transformers would load the base model and ignore the adapter.
    (checkpoint / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    with pytest.raises(ModelLoadingError, match=r"base model 'org/base'.*merge_and_unload"):
        load(checkpoint)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("adapter_config.json", "a LoRA adapter: merge it"),
        ("model_index.json", "a diffusers pipeline"),
        ("params.json", "weights in their author's own format: convert them"),
        ("model.Q4_K_M.gguf", "a GGUF file: load it once with transformers"),
    ],
)
def test_a_folder_in_another_format_is_named(file: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text("{}")
    with pytest.raises(ModelNotFound, match=rf"config\.json but with {file} \({message}"):
        load(tmp_path)


def test_a_file_in_place_of_a_folder_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"is a file; give the folder"):
        load(checkpoint / "model.safetensors")
