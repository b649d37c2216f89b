"""Models by name or folder: found or refused quickly, loaded completely, without running code."""

import json
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from sah.attention import DenseAttention
from sah.attention.session import AttentionSession
from sah.errors import ModelLoadingError, ModelNotFound, TokenizerError
from sah.models import hub
from sah.models.generation import Generation
from sah.models.hub import HubModel
from sah.models.language_model import LanguageModel
from sah.models.tiny import TinyModel

WEIGHTS = "model.safetensors"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("tried to reach the network")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def load(name_or_path: object, **options: Any) -> LanguageModel:
    return HubModel(name="mine", name_or_path=str(name_or_path), **options).load()


class RunsCode:
    """A pickle that creates a file when it is loaded unsafely."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.trace), "w")


@pytest.mark.usefixtures("no_network")
def test_a_saved_checkpoint_answers_like_the_model_in_memory(
    saved: Path, tiny: LanguageModel
) -> None:
    def answer(model: LanguageModel) -> list[int]:
        context = model.prefill(list(range(10, 60)), reserve_tokens=20)
        return model.answer(
            context,
            [70, 71, 72],
            session=AttentionSession(DenseAttention(), seed=0),
            sampler=Generation().sampler(0, "one", model.device),
            max_new_tokens=12,
        ).token_ids

    loaded = load(saved, device="cpu")
    assert answer(loaded) == answer(tiny)
    assert loaded.prompts.max_tokens == 8192
    assert loaded.eos_token_ids == tiny.eos_token_ids
    for name, weight in tiny.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], weight)


def test_dtype_and_keyword_arguments_reach_the_model(saved: Path) -> None:
    model = load(
        saved,
        device="cpu",
        dtype="bfloat16",
        model_kwargs={"attn_implementation": "eager"},
        tokenizer_kwargs={"padding_side": "left"},
    )
    assert model.model.dtype == torch.bfloat16
    assert model.model.config._attn_implementation == "eager"
    assert model.prompts.tokenizer.padding_side == "left"


@pytest.mark.usefixtures("no_network")
def test_offline_a_model_that_is_not_cached_is_refused_without_network_access() -> None:
    with pytest.raises(ModelNotFound) as caught:
        load("nobody/has-this-model", revision="v2")
    for part in (
        "config.json of 'nobody/has-this-model' (revision v2)",
        "HF_HUB_OFFLINE is set",
        "run `hf download nobody/has-this-model`",
        "model.name_or_path",
    ):
        assert part in str(caught.value)


def test_an_unreachable_hub_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(variable, raising=False)
    with socket.socket() as closed:
        # Bound but not listening: connections are refused at once.
        closed.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
        with pytest.raises(ModelNotFound, match=f"fetched from {endpoint} .it is unreachable"):
            load("nobody/has-this-model")


@pytest.mark.parametrize("name", ["a/b/c", "not a name", "../elsewhere", "/no/such/folder"])
def test_a_name_that_is_neither_a_folder_nor_a_hub_id_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound, match=r"model\.name_or_path"):
        load(name)


def test_a_folder_without_config_json_is_not_a_model(checkpoint: Path) -> None:
    (checkpoint / "config.json").unlink()
    with pytest.raises(ModelNotFound, match=r"folder without config\.json.*save_pretrained"):
        load(checkpoint)


def test_a_folder_without_tokenizer_is_a_tokenizer_error(checkpoint: Path) -> None:
    for path in checkpoint.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(TokenizerError, match=r"cannot load the tokenizer of"):
        load(checkpoint)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", "{", "JSONDecodeError: "),
        ("tokenizer.json", "{}", "KeyError: 'added_tokens'"),
        (
            "tokenizer.json",
            '{"version": "1.0", "added_tokens": [], "model": {"type": "unheard of"}}',
            "did not match any variant",
        ),
        ("tokenizer_config.json", "[]", "AttributeError: "),
        ("tokenizer_config.json", '{"bos_token": 3}', "bos_token has to be either str"),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_a_tokenizer_error_with_the_reason(
    file: str, content: str, message: str, checkpoint: Path
) -> None:
    (checkpoint / file).write_text(content)
    with pytest.raises(TokenizerError, match=rf"cannot load the tokenizer of .*{message}"):
        load(checkpoint)


def test_a_folder_without_weights_is_a_loading_error(checkpoint: Path) -> None:
    (checkpoint / WEIGHTS).unlink()
    with pytest.raises(ModelLoadingError, match=r"cannot load the weights.*folder that holds"):
        load(checkpoint)


@pytest.mark.parametrize("damage", ["truncated", "empty", "not_safetensors"])
def test_damaged_weights_are_a_loading_error(damage: str, checkpoint: Path) -> None:
    weights = checkpoint / WEIGHTS
    content = weights.read_bytes()
    broken = {"truncated": content[: len(content) // 2], "empty": b"", "not_safetensors": b"x" * 99}
    weights.write_bytes(broken[damage])
    with pytest.raises(ModelLoadingError, match=r"cannot load the weights of"):
        load(checkpoint)


def test_weights_that_lack_a_tensor_are_a_loading_error_that_names_it(checkpoint: Path) -> None:
    name = "model.layers.1.self_attn.q_proj.weight"
    tensors = load_file(checkpoint / WEIGHTS)
    del tensors[name]
    save_file(tensors, checkpoint / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(
        ModelLoadingError, match=rf"lack 1 of the model's tensors \(the first is {name}\)"
    ):
        load(checkpoint)


def test_weights_of_the_wrong_shape_are_a_loading_error(checkpoint: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    config["intermediate_size"] *= 2
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadingError, match=r"down_proj\.weight is \[64, 128\] instead of"):
        load(checkpoint)


def test_tied_weights_do_not_count_as_missing(tmp_path: Path) -> None:
    model = TinyModel(device="cpu").load()
    model.model.config.tie_word_embeddings = True
    model.model.tie_weights()
    model.model.save_pretrained(tmp_path)
    model.prompts.tokenizer.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / WEIGHTS)
    loaded = load(tmp_path, device="cpu").model
    assert_close(loaded.lm_head.weight, loaded.model.embed_tokens.weight)


@pytest.mark.parametrize("kind", ["torch_file", "bare_pickle"])
def test_pickled_weights_never_run_code(kind: str, checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / WEIGHTS).unlink()
    trace = tmp_path / "code was run"
    content = {"model.norm.weight": RunsCode(trace)}
    if kind == "torch_file":
        torch.save(content, checkpoint / "pytorch_model.bin")
    else:
        (checkpoint / "pytorch_model.bin").write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(ModelLoadingError, match=r"cannot load the weights of"):
        load(checkpoint)
    assert not trace.exists()


def test_code_that_comes_with_a_model_is_not_run(checkpoint: Path, tmp_path: Path) -> None:
    trace = tmp_path / "code was run"
    (checkpoint / "modeling.py").write_text(f"open({str(trace)!r}, 'w')\n")
    config = json.loads((checkpoint / "config.json").read_text())
    config["model_type"] = "something_else"
    config["auto_map"] = {"AutoConfig": "modeling.C", "AutoModelForCausalLM": "modeling.M"}
    (checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        ModelLoadingError, match=r"comes with it \(modeling\.py\); read it, and set"
    ):
        load(checkpoint)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name_or_path": ""}, "name_or_path is empty"),
        ({"device": "gpu"}, "model.device='gpu' is not a torch device"),
        ({"device": "cuda:99"}, "model.device='cuda:99' does not exist: this process sees"),
        ({"dtype": "float31"}, "model.dtype='float31' is not a floating-point type"),
        ({"dtype": "int8"}, "model.dtype='int8' is not a floating-point type"),
        ({"dtype": "nn"}, "model.dtype='nn' is not a floating-point type"),
        ({"trust_remote_code": "yes"}, "trust_remote_code must be true or false, got 'yes'"),
        ({"revision": 3}, "revision must be .*, got 3"),
    ],
)
def test_invalid_settings_are_refused_before_loading(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        HubModel(**{"name": "mine", "name_or_path": "somebody/something", **arguments})


@pytest.fixture
def downloads(saved: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The file patterns of each download, which a stand-in for the Hub serves from a folder."""
    patterns: list[list[str]] = []

    def download(name: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        patterns.append(list(allow_patterns))
        return name

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(hub, "find_config", lambda *_: False)
    return patterns


def test_a_fetch_without_a_network_says_whether_the_weights_are_here(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(commit)
    snapshot = repository / "snapshots" / commit
    shutil.copytree(saved, snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = HubModel(name="mine", name_or_path="org/tiny")
    assert model.fetch() == f"org/tiny is in {snapshot}"
    (snapshot / WEIGHTS).unlink()
    with pytest.raises(ModelNotFound, match=r"has no weights, and the Hub cannot be reached; run"):
        model.fetch()
    folder = HubModel(name="mine", name_or_path=str(saved))
    assert folder.fetch() == f"{saved} is a folder of this machine"


def test_a_fetch_downloads_safetensors_where_there_are_any(
    saved: Path, downloads: list[list[str]]
) -> None:
    HubModel(name="mine", name_or_path=str(saved)).fetch()
    (patterns,) = downloads
    assert "*.safetensors" in patterns
    assert not [pattern for pattern in patterns if "bin" in pattern]


def test_a_fetch_downloads_the_weights_of_torch_where_there_are_no_others(
    checkpoint: Path, downloads: list[list[str]]
) -> None:
    (checkpoint / WEIGHTS).unlink()
    HubModel(name="mine", name_or_path=str(checkpoint)).fetch()
    assert "pytorch_model*.bin" in downloads[-1]


def test_a_fetch_refuses_a_model_that_cannot_be_loaded_before_its_weights(
    checkpoint: Path, downloads: list[list[str]], edit_json: Callable[..., None]
) -> None:
    edit_json(checkpoint / "config.json", model_type="bert", architectures=["BertModel"])
    with pytest.raises(ModelLoadingError, match=r"is an encoder"):
        HubModel(name="mine", name_or_path=str(checkpoint)).fetch()
    assert downloads == []


def test_the_commit_of_a_model_in_the_hub_cache_is_known(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    repository = tmp_path / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / commit).symlink_to(saved)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert load("org/tiny").commit == commit
    assert load(saved).commit is None
