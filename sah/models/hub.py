"""Models in the Hugging Face format, from the Hub or a local folder."""

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sah.content import checkpoint_digest, is_reachable
from sah.errors import ModelLoadingError, ModelNotFound, TokenizerError
from sah.models.loading.options import (
    check_model_kwargs,
    check_read_by_tokenizer,
    check_tokenizer_kwargs,
    split,
)
from sah.models.thoughts import check_thinking
from sah.validation import check_types

if TYPE_CHECKING:
    from sah.models.language_model import LanguageModel
    from sah.models.loading.outline import ModelOutline
    from sah.models.prompts import PromptEncoder

logger = logging.getLogger(__name__)

# The files that loading reads. Weights in other formats would only double the download; those of
# torch are fetched where there are no others.
_NEEDED_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.py"]


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """Any causal language model that transformers can load, multimodal ones as text models."""

    name: str
    """Name in output directories and reports."""
    name_or_path: str
    """Hub id, or a folder written by `hf download` or `save_pretrained`."""
    revision: str | None = None
    """Commit, tag or branch on the Hub; None means main."""
    dtype: str = "auto"
    """auto (bfloat16 on a GPU, float32 on a CPU), or a torch name such as float16."""
    device: str = "auto"
    """auto (the first GPU, else the CPU), or a torch name such as cuda:1."""
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Passed to `from_pretrained` of the model; other keys replace values of its config.json."""
    tokenizer_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Passed to `from_pretrained` of the tokenizer."""
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Options of the chat template, such as enable_thinking; it must read each of them."""
    thinking: str | Mapping[str, str] | None = "auto"
    """The marks around a thought, which is not scored: auto finds them, {begin: …, end: …} names
    them, and with null all that the model writes is its answer."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model; leave it off unless you trust the author."""
    content: Mapping[str, Any] | None = None
    """Digest of the folder, or commit on the Hub, as composed; another one is refused. None:
    nothing is checked."""

    def __post_init__(self) -> None:
        check_types(self)
        if not self.name_or_path:
            raise ValueError("model.name_or_path is empty; give a Hub id or a folder")
        check_model_kwargs(self.model_kwargs, trust_remote_code=self.trust_remote_code)
        check_tokenizer_kwargs(self.tokenizer_kwargs)
        check_thinking(self.thinking)
        resolve_device_and_dtype(self.device, self.dtype)

    def load(self) -> "LanguageModel":
        """Load tokenizer and weights; refuse what would not be the model that was saved.

        Raises:
            ModelNotFound: if the model is neither cached nor downloadable.
            TokenizerError, ModelLoadingError: if its files cannot be loaded, or are not those that
                the experiment was composed for.
            ConfigurationError: for an option that nothing reads, or if sparse attention cannot be
                measured on it.
        """
        from sah.models.gate_memory import require_measurable
        from sah.models.language_model import LanguageModel
        from sah.models.loading.architecture import auto_class, check_quantization, read_config
        from sah.models.loading.weights import load_weights, warn_of_ids_beyond

        device, dtype = resolve_device_and_dtype(self.device, self.dtype)
        options, overrides = split(self.model_kwargs)
        options.setdefault("device_map", {"": device})
        common = self._common()
        config = read_config(self.name_or_path, common, overrides)
        self._require_composed_commit(config)
        loader = auto_class(self.name_or_path, config, trust_remote_code=self.trust_remote_code)
        check_quantization(
            self.name_or_path, config, options.get("quantization_config"), options["device_map"]
        )
        # Before the weights: it refuses a chat template that fails.
        prompts = self._encoder(common, config)
        model = load_weights(
            loader,
            self.name_or_path,
            config,
            dtype=dtype,
            common=common,
            options=options,
            overridden=bool(overrides),
            way_out=(
                f"{'check model.model_kwargs, or ' if self.model_kwargs else ''}"
                f"{_how_to_get(self.name_or_path)}"
            ),
        )
        # Once more, since loading takes a while.
        self._require_composed_folder()
        warn_of_ids_beyond(model, prompts.tokenizer, self.name_or_path)
        loaded = LanguageModel(model, prompts)
        require_measurable(loaded)
        return loaded

    def prompts(self) -> "PromptEncoder":
        """Load only the tokenizer, which is enough to make a benchmark's examples.

        Raises:
            ModelNotFound: if the model is neither cached nor downloadable.
            ModelLoadingError: if the config cannot be read.
            TokenizerError: if the tokenizer cannot be loaded, or its chat template used.
        """
        from sah.models.loading.architecture import read_config

        common = self._common()
        config = read_config(self.name_or_path, common, split(self.model_kwargs)[1])
        self._require_composed_commit(config)
        return self._encoder(common, config)

    def outline(self, dtype: torch.dtype) -> "ModelOutline":
        """Make the model without weights, from a config that is on this machine.

        Raises:
            ModelLoadingError: if there is no config on this machine, it needs code that comes with
                the model, or the weights are quantised.
        """
        from sah.models.loading.architecture import auto_class, read_config
        from sah.models.loading.outline import ModelOutline

        options, overrides = split(self.model_kwargs)
        if options.get("quantization_config") is not None:
            raise ModelLoadingError("model.model_kwargs.quantization_config quantises the weights")
        common = {
            "revision": self._cached_revision(),
            "trust_remote_code": False,
            "local_files_only": True,
        }
        config = read_config(self.name_or_path, common, overrides)
        loader = auto_class(self.name_or_path, config, trust_remote_code=False)
        return ModelOutline.of(loader, config, dtype)

    def fetch(self) -> str:
        """Download the model's files into the Hub's cache; return a line that describes them.

        Raises:
            ModelNotFound: if the model is neither cached nor downloadable.
            ModelLoadingError: if it is not a language model, before its weights are downloaded.
        """
        from huggingface_hub import snapshot_download

        from sah.models.loading.architecture import auto_class, read_config

        # The newest commit of a branch, whatever this was composed for.
        common = {**self._common(), "revision": self.revision or "main"}
        if common["local_files_only"]:
            return self._without_network()
        config = read_config(self.name_or_path, common, split(self.model_kwargs)[1])
        auto_class(self.name_or_path, config, trust_remote_code=self.trust_remote_code)
        patterns = list(_NEEDED_FILES)
        folder = snapshot_download(
            self.name_or_path, revision=self.revision, allow_patterns=patterns
        )
        if not any(Path(folder).glob("*.safetensors")):
            patterns.append("pytorch_model*.bin")
            folder = snapshot_download(
                self.name_or_path, revision=self.revision, allow_patterns=patterns
            )
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        return f"{self.name_or_path}, {size / 1e9:.1f} GB, in {folder}"

    def _without_network(self) -> str:
        """Return a line that says where the model's files are on this machine.

        Raises:
            ModelNotFound: if the Hub's cache has no weights, as after loading only the tokenizer.
        """
        from huggingface_hub import snapshot_download

        if Path(self.name_or_path).is_dir():
            return f"{self.name_or_path} is a folder of this machine"
        folder = Path(
            snapshot_download(self.name_or_path, revision=self.revision, local_files_only=True)
        )
        if not any(
            any(folder.glob(weights)) for weights in ("*.safetensors", "pytorch_model*.bin")
        ):
            raise ModelNotFound(
                f"{folder} has no weights, and the Hub cannot be reached; "
                f"{_how_to_get(self.name_or_path)}"
            )
        return f"{self.name_or_path} is in {folder}"

    def _common(self) -> dict[str, Any]:
        """Return the arguments of every `from_pretrained`."""
        self._require_composed_folder()
        return {
            "revision": self._cached_revision(),
            "trust_remote_code": self.trust_remote_code,
            "local_files_only": self._find(),
        }

    def _cached_revision(self) -> str:
        """Return the commit that this was composed for if it is cached, else the revision.

        Downloading a commit by its hash would leave the cache without the name of its branch.
        """
        from huggingface_hub import try_to_load_from_cache

        commit = (self.content or {}).get("revision")
        if commit is not None:
            cached = try_to_load_from_cache(self.name_or_path, "config.json", revision=commit)
            if isinstance(cached, str):
                return str(commit)
        return self.revision or "main"

    def _require_composed_folder(self) -> None:
        composed = (self.content or {}).get("name_or_path")
        if composed is not None:
            now = checkpoint_digest(Path(self.name_or_path))
            if now != composed:
                raise ModelLoadingError(
                    f"model.name_or_path={self.name_or_path!r} has changed since the experiment "
                    f"was composed (it was {composed}, now it is {now}); run it again to measure "
                    "the new model, or restore the old one"
                )

    def _require_composed_commit(self, config: Any) -> None:
        composed = (self.content or {}).get("revision")
        now = getattr(config, "_commit_hash", None)
        if composed is not None and now not in (composed, None):
            raise ModelLoadingError(
                f"{self.name_or_path!r}: revision {self.revision or 'main'} is commit {now} now, "
                f"and was {composed} when the experiment was composed; run it again"
            )

    def _encoder(self, common: dict[str, Any], config: Any) -> "PromptEncoder":
        from sah.models.loading.architecture import max_tokens
        from sah.models.prompts import PromptEncoder

        return PromptEncoder(
            self._tokenizer(common),
            max_tokens(config),
            template_kwargs=self.template_kwargs,
            thinking=self.thinking,
        )

    def _tokenizer(self, common: dict[str, Any]) -> Any:
        from transformers import AutoTokenizer

        from sah.models.loading.architecture import LOADING_ERRORS, reason

        try:
            tokenizer = AutoTokenizer.from_pretrained(
                self.name_or_path, **common, **self.tokenizer_kwargs
            )
        except Exception as error:
            # tokenizers raises plain Exception for a tokenizer.json that it cannot parse.
            if type(error) is not Exception and not isinstance(error, LOADING_ERRORS):
                raise
            raise TokenizerError(
                f"cannot load the tokenizer of {self.name_or_path!r}: {reason(error)}; "
                f"{_how_to_get(self.name_or_path)}"
            ) from error
        check_read_by_tokenizer(tokenizer, self.tokenizer_kwargs)
        return tokenizer

    def known_max_tokens(self) -> int | None:
        """Return the longest sequence that the model accepts, without loading it.

        None if its config is not on this machine, or needs code that comes with the model.
        """
        # model_kwargs set it together with the rotary parameters of an extended context.
        given: int | None = self.model_kwargs.get("max_position_embeddings")
        return given or _known_max_tokens(self.name_or_path, self._cached_revision())

    def _find(self) -> bool:
        """Look for the model's config; return whether to load without the network.

        Fails within seconds, where transformers would retry for minutes.
        """
        from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import (
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
        )

        folder = Path(self.name_or_path)
        if folder.is_dir():
            if not (folder / "config.json").is_file():
                raise ModelNotFound(
                    f"model.name_or_path={self.name_or_path!r} is a folder without config.json"
                    f"{_other_format(folder)}; give one that `hf download` or `save_pretrained` "
                    "wrote"
                )
            return True
        if folder.is_file():
            raise ModelNotFound(
                f"model.name_or_path={self.name_or_path!r} is a file; give the folder that holds "
                "config.json, the tokenizer and the weights"
            )
        offline = constants.HF_HUB_OFFLINE or not is_reachable(constants.ENDPOINT)
        try:
            cached = try_to_load_from_cache(
                self.name_or_path, "config.json", revision=self._cached_revision()
            )
            if offline and not isinstance(cached, str):
                state = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "it is unreachable"
                raise ModelNotFound(
                    f"config.json of {self.name_or_path!r} (revision {self.revision or 'main'}) is "
                    f"not in the cache {constants.HF_HUB_CACHE} and cannot be fetched from "
                    f"{constants.ENDPOINT} ({state}); {_how_to_get(self.name_or_path)}"
                )
            if not offline:
                hf_hub_download(self.name_or_path, "config.json", revision=self._cached_revision())
        except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError) as error:
            raise ModelNotFound(
                f"{self.name_or_path!r} cannot be fetched from {constants.ENDPOINT}: "
                f"{str(error).strip().splitlines()[0]}; {_how_to_get(self.name_or_path)}"
            ) from error
        return bool(offline)


@functools.cache
def _known_max_tokens(name_or_path: str, revision: str) -> int | None:
    from transformers import AutoConfig

    from sah.models.loading.architecture import LOADING_ERRORS, max_tokens

    try:
        # Explicitly False; otherwise transformers asks on the terminal whether to run the code.
        config = AutoConfig.from_pretrained(
            name_or_path, revision=revision, local_files_only=True, trust_remote_code=False
        )
    except LOADING_ERRORS:
        return None
    return max_tokens(config)


def resolve_device_and_dtype(device: str, dtype: str) -> tuple[torch.device, torch.dtype]:
    """Resolve `auto` to a device and dtype of this machine.

    Raises:
        ValueError: if torch does not know the device or dtype, or the GPU does not exist.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"model.device={device!r} is not a torch device; use auto, cpu, or one like cuda:0"
        ) from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"model.device={device!r} does not exist: this process sees "
            f"{torch.cuda.device_count()} GPUs; use auto, cpu, or one of them"
        )
    if dtype == "auto":
        return found, torch.bfloat16 if found.type == "cuda" else torch.float32
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise ValueError(
            f"model.dtype={dtype!r} is not a floating-point type of torch; use auto, float32, "
            "float16 or bfloat16"
        )
    return found, kind


def _how_to_get(name: str) -> str:
    if Path(name).is_dir():
        return "set model.name_or_path to a folder that holds the whole model"
    return (
        f"run `hf download {name}` on a machine with a network, or set model.name_or_path to a "
        "folder that holds the model"
    )


# Files of formats without config.json, and what a folder with them holds.
_OTHER_FORMATS = {
    "adapter_config.json": "a LoRA adapter: merge it into its base model with peft",
    "model_index.json": "a diffusers pipeline",
    "params.json": "weights in their author's own format: convert them to the Hugging Face format",
    "*.gguf": "a GGUF file: load it once with transformers, and write it with save_pretrained",
    "*.onnx": "an ONNX model",
    "*.nemo": "a NeMo model: convert it to the Hugging Face format",
}


def _other_format(folder: Path) -> str:
    """Say what a folder without config.json holds instead, where its files tell."""
    for pattern, what in _OTHER_FORMATS.items():
        found = next(folder.glob(pattern), None)
        if found is not None:
            return f" but with {found.name} ({what})"
    return ""
