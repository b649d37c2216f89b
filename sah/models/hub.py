"""Models in the Hugging Face format, from the Hub or a local folder."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sah.content import checkpoint_digest
from sah.errors import ModelLoadingError, ModelNotFound, TokenizerError
from sah.models.loading.hub_files import find_config, how_to_get, max_tokens_on_disk
from sah.models.loading.options import (
    check_model_kwargs,
    check_read_by_tokenizer,
    check_tensor_parallel,
    check_tokenizer_kwargs,
    split,
)
from sah.models.thoughts import check_thinking
from sah.validation import check_types

if TYPE_CHECKING:
    from sah.models.language_model import LanguageModel
    from sah.models.loading.outline import ModelOutline
    from sah.models.prompts import PromptEncoder
    from sah.models.tensor_parallel.plan import SplitPlan

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
    tensor_parallel: int | None = None
    """Processes that the weights are split over, each with its GPU; null and 1 do not split.

    Sums of the parts round differently, so that a token may occasionally differ.
    """
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
        check_tensor_parallel(self.tensor_parallel, self.device, self.model_kwargs)

    @property
    def _is_split(self) -> bool:
        return self.tensor_parallel is not None and self.tensor_parallel > 1

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
        from sah.models.loading.weights import warn_of_ids_beyond

        device, _ = resolve_device_and_dtype(self.device, self.dtype)
        common = self._common()
        config, loader = self._config(common)
        # Before the weights: it refuses a chat template that fails.
        prompts = self._encoder(common, config)
        if self._is_split:
            model = self._load_split(common, config, loader, device)
        else:
            options = split(self.model_kwargs)[0]
            placed = {"device_map": options.get("device_map", {"": device})}
            model = self._load_weights(common, config, loader, placed)
        # Once more, since loading takes a while.
        self._require_composed_folder()
        warn_of_ids_beyond(model, prompts.tokenizer, self.name_or_path)
        loaded = LanguageModel(model, prompts)
        require_measurable(loaded)
        return loaded

    def load_part(self, plan: "SplitPlan") -> Any:
        """Load this process's part of the weights, in one that joined the others.

        Raises:
            SahError: as `load` does.
        """
        common = self._common()
        config, loader = self._config(common)
        return self._load_weights(
            common, config, loader, {"distributed_config": plan.distributed_config()}
        )

    def _load_split(
        self, common: Mapping[str, Any], config: Any, loader: Any, device: torch.device
    ) -> Any:
        from sah.models.tensor_parallel.plan import SplitPlan
        from sah.models.tensor_parallel.processes import Processes

        assert self.tensor_parallel is not None
        plan = SplitPlan.of(loader, config, self.tensor_parallel, device, self.name_or_path)
        processes = Processes(self, plan, device)
        try:
            placed = {"distributed_config": plan.distributed_config()}
            model = self._load_weights(common, config, loader, placed)
            processes.attach(model)
        except BaseException:
            processes.others.close("it could not be loaded")
            raise
        return model

    def _config(self, common: Mapping[str, Any]) -> tuple[Any, Any]:
        """Read the config; return it with the class of transformers that loads the model."""
        from sah.models.loading.architecture import auto_class, check_quantization, read_config

        options, overrides = split(self.model_kwargs)
        config = read_config(self.name_or_path, common, overrides)
        self._require_composed_commit(config)
        loader = auto_class(self.name_or_path, config, trust_remote_code=self.trust_remote_code)
        device, _ = resolve_device_and_dtype(self.device, self.dtype)
        check_quantization(
            self.name_or_path,
            config,
            options.get("quantization_config"),
            options.get("device_map", {"": device}),
        )
        return config, loader

    def _load_weights(
        self, common: Mapping[str, Any], config: Any, loader: Any, placed: Mapping[str, Any]
    ) -> Any:
        """Load the weights, placed by `device_map` or `distributed_config`."""
        from sah.models.loading.weights import load_weights

        options, overrides = split(self.model_kwargs)
        return load_weights(
            loader,
            self.name_or_path,
            config,
            dtype=resolve_device_and_dtype(self.device, self.dtype)[1],
            common=common,
            options={**options, **placed},
            overridden=bool(overrides),
            way_out=(
                f"{'check model.model_kwargs, or ' if self.model_kwargs else ''}"
                f"{how_to_get(self.name_or_path)}"
            ),
        )

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
                f"{how_to_get(self.name_or_path)}"
            )
        return f"{self.name_or_path} is in {folder}"

    def _common(self) -> dict[str, Any]:
        """Return the arguments of every `from_pretrained`."""
        self._require_composed_folder()
        return {
            "revision": self._cached_revision(),
            "trust_remote_code": self.trust_remote_code,
            "local_files_only": find_config(
                self.name_or_path, self.revision, self._cached_revision()
            ),
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
                f"{how_to_get(self.name_or_path)}"
            ) from error
        check_read_by_tokenizer(tokenizer, self.tokenizer_kwargs)
        return tokenizer

    def known_max_tokens(self) -> int | None:
        """Return the longest sequence that the model accepts, without loading it.

        None if its config is not on this machine, or needs code that comes with the model.
        """
        # model_kwargs set it together with the rotary parameters of an extended context.
        given: int | None = self.model_kwargs.get("max_position_embeddings")
        return given or max_tokens_on_disk(self.name_or_path, self._cached_revision())


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
