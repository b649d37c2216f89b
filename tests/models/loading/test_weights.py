"""Weights are loaded completely or refused; what a checkpoint says of sampling is ignored aloud."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sah.attention import DenseAttention
from sah.attention.session import AttentionSession
from sah.errors import ModelLoadingError, TokenizerError, category
from sah.models.hub import HubModel
from sah.models.language_model import LanguageModel
from sah.models.tiny import TinyModel

WEIGHTS = "model.safetensors"


def load(folder: Path, **options: Any) -> LanguageModel:
    return HubModel(name="mine", name_or_path=str(folder), device="cpu", **options).load()


def change_weights(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Add, replace or (None) delete tensors; `__` stands for a dot."""
    stored = load_file(folder / WEIGHTS)
    for name, tensor in tensors.items():
        if tensor is None:
            del stored[name.replace("__", ".")]
        else:
            stored[name.replace("__", ".")] = tensor
    save_file(stored, folder / WEIGHTS, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "name",
    [
        "model__layers__0__self_attn__q_proj__bias",
        "model__layers__0__self_attn__q_proj__lora_A__weight",
        "model__layers__0__self_attn__sinks",
        "model__layers__7__mlp__up_proj__weight",
        "model__embed_positions__weight",
        "lm_head__bias",
    ],
)
def test_a_tensor_of_the_text_model_that_the_config_does_not_describe_is_refused(
    name: str, checkpoint: Path
) -> None:
    change_weights(checkpoint, **{name: torch.zeros(4)})
    with pytest.raises(
        ModelLoadingError,
        match=rf"hold 1 tensors .*\(the first is {name.replace('__', '.')}\).*correct config\.json",
    ):
        load(checkpoint)


@pytest.mark.parametrize(
    "name",
    [
        "v_head__summary__weight",
        "vision_tower__patch__weight",
        "mtp__layers__0__weight",
        "model__layers__2__mlp__up_proj__weight",
        "model__layers__0__self_attn__k_scale",
    ],
)
def test_a_part_beside_the_text_model_is_left_out_and_logged(
    name: str,
    checkpoint: Path,
    tiny: LanguageModel,
    caplog: pytest.LogCaptureFixture,
    edit_json: Callable[..., None],
) -> None:
    # The model has layers 0 and 1; layer 2 would predict the token after the next.
    edit_json(checkpoint / "config.json", num_nextn_predict_layers=1)
    change_weights(checkpoint, **{name: torch.zeros(4)})
    loaded = load(checkpoint).model.state_dict()
    assert f"1 tensors are not used (the first is {name.replace('__', '.')})" in caplog.text
    for key, weight in tiny.model.state_dict().items():
        assert torch.equal(loaded[key], weight)


def test_layers_that_the_user_drops_are_logged_instead_of_refused(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = load(saved, model_kwargs={"num_hidden_layers": 1}).model
    assert len(model.model.layers) == 1
    assert "9 tensors are not used (the first is model.layers.1." in caplog.text


def test_a_checkpoint_of_the_base_model_lacks_the_output_layer(
    checkpoint: Path, tiny: LanguageModel
) -> None:
    tiny.model.model.save_pretrained(checkpoint)
    with pytest.raises(ModelLoadingError, match=r"lack 1 of .*\(the first is lm_head\.weight\)"):
        load(checkpoint)


def test_a_checkpoint_of_the_base_model_is_whole_if_its_embeddings_are_tied(
    checkpoint: Path,
    tiny: LanguageModel,
    edit_json: Callable[..., None],
) -> None:
    tiny.model.model.save_pretrained(checkpoint)
    edit_json(checkpoint / "config.json", tie_word_embeddings=True)
    assert not [name for name in load_file(checkpoint / WEIGHTS) if name.startswith("lm_head")]
    model = load(checkpoint).model
    assert torch.equal(model.lm_head.weight, tiny.model.model.embed_tokens.weight)


def test_weights_of_another_architecture_are_refused(
    checkpoint: Path, edit_json: Callable[..., None]
) -> None:
    edit_json(checkpoint / "config.json", model_type="qwen2", architectures=["Qwen2ForCausalLM"])
    with pytest.raises(ModelLoadingError, match=r"lack 6 of .*k_proj\.bias"):
        load(checkpoint)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(
    checkpoint: Path,
    edit_json: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    edit_json(checkpoint / "config.json", vocab_size=401)
    with pytest.raises(
        ModelLoadingError,
        match=r"lm_head\.weight is \[400, 64\] instead of \[401, 64\] \(2 such tensors\)",
    ):
        load(checkpoint)
    # transformers' own table would hide that sentence.
    assert "LOAD REPORT" not in caplog.text


def test_a_git_lfs_pointer_is_named(checkpoint: Path) -> None:
    (checkpoint / WEIGHTS).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 5\n"
    )
    with pytest.raises(ModelLoadingError, match=r"model\.safetensors is a Git LFS pointer.*pull"):
        load(checkpoint)


def test_a_library_that_is_missing_is_a_loading_error_that_does_not_blame_the_files(
    saved: Path,
) -> None:
    pytest.importorskip("transformers.utils.import_utils")
    with pytest.raises(ModelLoadingError, match=r"FlashAttention2.*installed") as caught:
        load(saved, model_kwargs={"attn_implementation": "flash_attention_2"})
    assert "name_or_path" not in str(caught.value)


def test_sampling_defaults_of_a_checkpoint_are_ignored_and_logged(
    checkpoint: Path,
    edit_json: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    sampling = {
        "bad_words_ids": [[3]],
        "do_sample": True,
        "no_repeat_ngram_size": 3,
        "repetition_penalty": 1.2,
        "suppress_tokens": [5],
        "temperature": 0.6,
        "top_p": 0.9,
    }
    edit_json(checkpoint / "generation_config.json", **sampling)
    with caplog.at_level(logging.INFO):
        load(checkpoint)
    (line,) = [record.getMessage() for record in caplog.records if "is ignored" in record.msg]
    listed = ", ".join(f"{name}={value}" for name, value in sampling.items())
    assert f"is ignored ({listed}): generation.* and the benchmark decide" in line


def test_a_checkpoint_without_sampling_defaults_logs_nothing_of_them(
    saved: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        load(saved)
    assert "is ignored" not in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"cannot read generation_config\.json .*JSONDecodeError.*end tokens of config\.json"),
        ("[]", r"is not a JSON object"),
        ('{"eos_token_id": "</s>"}', r"eos_token_id='</s>'; it must be a token id or a list"),
        ('{"eos_token_id": [1, "</s>"]}', r"eos_token_id=\[1, '</s>'\]"),
    ],
)
def test_a_generation_config_that_cannot_be_read_is_refused(
    content: str, message: str, checkpoint: Path
) -> None:
    # transformers would read config.json instead, and answers would end elsewhere.
    (checkpoint / "generation_config.json").write_text(content)
    with pytest.raises(ModelLoadingError, match=message):
        load(checkpoint)


def test_without_a_generation_config_answers_end_as_config_json_says(
    checkpoint: Path, edit_json: Callable[..., None]
) -> None:
    (checkpoint / "generation_config.json").unlink()
    edit_json(checkpoint / "config.json", eos_token_id=[1, 7])
    assert load(checkpoint).eos_token_ids == {1, 7}


@pytest.fixture
def larger_tokenizer(checkpoint: Path) -> LanguageModel:
    """A model whose tokenizer has one token more than its embedding."""
    tokenizer = TinyModel(device="cpu").prompts().tokenizer
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["added_tokens"].append(
        {**content["added_tokens"][0], "id": 400, "content": "<extra>", "special": True}
    )
    (checkpoint / "tokenizer.json").write_text(json.dumps(content))
    return load(checkpoint)


def test_a_tokenizer_with_more_tokens_than_the_embedding_is_a_warning(
    larger_tokenizer: LanguageModel, caplog: pytest.LogCaptureFixture
) -> None:
    assert larger_tokenizer.prompts.tokenizer("<extra>").input_ids == [400]
    assert "1 tokens beyond the model's embedding of 400 rows (the first is 400, '<extra>')" in (
        "\n".join(record.getMessage() for record in caplog.get_records("setup"))
    )


def feed(model: LanguageModel, token: int, place: str) -> None:
    session = AttentionSession(DenseAttention(), seed=0)
    ids = [5, token, 6]
    context = model.prefill(ids if place == "context" else [5, 6], reserve_tokens=9)
    if place == "question":
        model.read_question(context, ids, session=session)
    else:
        model.continuation_loss(context, ids, session=session)


@pytest.mark.parametrize("place", ["context", "question", "continuation"])
@pytest.mark.parametrize("token", [400, -1])
def test_a_token_that_the_embedding_lacks_is_refused_by_name(
    token: int, place: str, larger_tokenizer: LanguageModel
) -> None:
    model = larger_tokenizer
    text = "'<extra>'" if token == 400 else "None"
    with pytest.raises(
        TokenizerError, match=rf"token {token} \({text}\) is not in the model's embedding of 400"
    ) as caught:
        feed(model, token, place)
    assert category(caught.value) == "tokenizer"
