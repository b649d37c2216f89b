"""`sah calibrate` and `sah convert`: fit a method, or convert its weights, and write the file."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import safetensors.torch
import torch
from omegaconf import OmegaConf
from torch import Tensor

from sah.calibration.channels import ranked_channels
from sah.calibration.conversion import converted_networks
from sah.calibration.gate_training import GateTraining, trained_gates
from sah.calibration.hash_networks import trained_networks
from sah.calibration.hash_training import HashTraining
from sah.calibration.passages import Passage, default_passages, passages_of_file
from sah.content.calibration_files import calibration_path
from sah.errors import ConfigurationError
from sah.execution.building import build, compose
from sah.execution.experiment import ModelSource
from sah.models.language_model import LanguageModel
from sah.models.prompts import PromptEncoder
from sah.paths import config_folder
from sah.results.files import write_atomically
from sah.validation import check_types

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Text:
    """The text to fit a method on."""

    text: str | None = None
    """A text file; None uses the verses and needle prompts of `default_passages`."""
    tokens: int = 16384
    """Tokens of all passages together."""
    passage_tokens: int = 1024
    """Longest sequence that the model reads at a time."""

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("tokens", "passage_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def passages(self, prompts: PromptEncoder, seed: int) -> list[Passage]:
        """Cut the text into passages for a model.

        Raises:
            ConfigurationError: if the file cannot be used.
        """
        sizes = {"tokens": self.tokens, "passage_tokens": self.passage_tokens}
        if self.text is None:
            return default_passages(prompts, seed=seed, **sizes)
        return passages_of_file(prompts, Path(self.text), **sizes)

    def require_accepted(self, prompts: PromptEncoder) -> None:
        """Check that a model accepts sequences as long as a passage.

        Raises:
            ConfigurationError: if passages are longer than the model accepts.
        """
        if prompts.max_tokens is not None and self.passage_tokens > prompts.max_tokens:
            raise ConfigurationError(
                f"passage_tokens={self.passage_tokens} is more than the {prompts.max_tokens} "
                "tokens that the model accepts; lower passage_tokens"
            )


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Settings for ranking channels: the text decides all but which verses are drawn."""

    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)


def _channels(model: LanguageModel, text: Text, ranking: Ranking) -> bytes:
    return orjson.dumps(ranked_channels(model, text.passages(model.prompts, ranking.seed)))


def _networks(model: LanguageModel, text: Text, training: HashTraining) -> bytes:
    passages = text.passages(model.prompts, training.seed)
    return _safetensors(trained_networks(model, passages, training))


def _gates(model: LanguageModel, text: Text, training: GateTraining) -> bytes:
    passages = training.passages(model.prompts, **vars(text))
    gates = trained_gates(model, passages, training)
    rows = ("\t".join(f"{gate:.4f}" for gate in row) for row in gates.tolist())
    return "".join(f"{row}\n" for row in rows).encode()


@dataclass(frozen=True, kw_only=True)
class _Method:
    settings: Any
    """The dataclass of its settings, whose fields are options."""
    content: Callable[[LanguageModel, Text, Any], bytes]
    """Fits it and returns its file."""
    key: str
    """The key of the configuration that names another file."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Other defaults of the fields of Text."""

    @property
    def options(self) -> list[str]:
        """The names that KEY=VALUE may set."""
        return [*Text.__dataclass_fields__, "output", *self.settings.__dataclass_fields__]


_METHODS = {
    "double_sparsity": _Method(
        settings=Ranking,
        content=_channels,
        key="sparse_attention.maskers.double_sparsity.channels",
    ),
    "hash_attention": _Method(
        settings=HashTraining,
        content=_networks,
        key="sparse_attention.maskers.hash_attention.weights",
    ),
    "duo_attention": _Method(
        settings=GateTraining,
        content=_gates,
        key="sparse_attention.evict.duo_attention.heads",
        defaults={"passage_tokens": 1536},
    ),
}


def calibrate(method: str, arguments: Sequence[str]) -> Path:
    """Fit a method to a model and write the file.

    Args:
        method: double_sparsity, hash_attention or duo_attention.
        arguments: `model=NAME`, other overrides of the model group, and KEY=VALUE options.

    Raises:
        ConfigurationError: if an argument is wrong; names the value and the way out.
    """
    if method not in _METHODS:
        raise ConfigurationError(
            f"sah calibrate: {method!r} cannot be calibrated; choose {' or '.join(_METHODS)}"
        )
    chosen = _METHODS[method]
    overrides, options = _split(arguments, chosen.options)
    text = _build(Text, {**chosen.defaults, **options})
    settings = _build(chosen.settings, options)
    source = _model(overrides)
    path = _output(options, method, source.name)
    started = time.perf_counter()
    model = source.load()
    text.require_accepted(model.prompts)
    _write(path, chosen.content(model, text, settings))
    logger.info("wrote %s after %.0f s", path, time.perf_counter() - started)
    return path


def convert(method: str, arguments: Sequence[str]) -> Path:
    """Convert published weights of a method and write the file.

    Args:
        method: hash_attention.
        arguments: the published file, `model=NAME`, and optionally `output=FILE`.

    Raises:
        ConfigurationError: if an argument is wrong; names the value and the way out.
    """
    if method != "hash_attention":
        raise ConfigurationError(
            f"sah convert: {method!r} has no published weights; choose hash_attention"
        )
    files = [argument for argument in arguments if "=" not in argument]
    if len(files) != 1:
        raise ConfigurationError(
            f"sah convert {method} takes exactly one published file, got {files}; for example: "
            f"sah convert {method} weights.pt model=llama"
        )
    overrides, options = _split([a for a in arguments if a not in files], ("output",))
    path = _output(options, method, _model(overrides).name)
    _write(path, _safetensors(converted_networks(Path(files[0]))))
    logger.info("wrote %s", path)
    return path


def overrides_for(method: str, arguments: Sequence[str]) -> list[str]:
    """Return the overrides of an experiment that uses the file of a method.

    Args:
        method: one that `calibrate` or `convert` has written the file of.
        arguments: what it was given.
    """
    chosen = _METHODS[method]
    given = [argument for argument in arguments if "=" in argument]
    overrides, options = _split(given, chosen.options)
    file = [f"{chosen.key}={options['output']}"] if options.get("output") is not None else []
    return [*overrides, f"attention={method}", *file]


def _safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    # Cloned, as tensors of a published file may share memory, which safetensors refuses.
    return safetensors.torch.save(
        {
            name: tensor.clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
    )


def _split(arguments: Sequence[str], known: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Separate overrides of the model group from options."""
    overrides, chosen = [], []
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if name.lstrip("+~").partition(".")[0] == "model":
            overrides.append(argument)
        elif equals and name in known:
            chosen.append(argument)
        else:
            raise ConfigurationError(
                f"{argument} is not an option; use model=NAME, overrides of the model such as "
                f"model.device=cpu, and {'=, '.join(known)}="
            )
    options = OmegaConf.to_container(OmegaConf.from_dotlist(chosen))
    assert isinstance(options, dict)
    return overrides, {str(name): value for name, value in options.items()}


def _build(kind: Any, options: Mapping[str, Any]) -> Any:
    names = kind.__dataclass_fields__
    try:
        return kind(**{name: value for name, value in options.items() if name in names})
    except ValueError as error:
        raise ConfigurationError(str(error)) from error


def _model(overrides: Sequence[str]) -> ModelSource:
    """Build the model source of these overrides; it is not loaded yet."""
    if not any(override.startswith("model=") for override in overrides):
        models = sorted(path.stem for path in (config_folder() / "model").glob("*.yaml"))
        raise ConfigurationError(
            f"no model is given; add model=NAME, where NAME is one of {', '.join(models)}"
        )
    source: ModelSource = build(compose(overrides), "model")
    return source


def _output(options: Mapping[str, Any], method: str, model: str) -> Path:
    output = options.get("output")
    return calibration_path(method, model) if output is None else Path(str(output))


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise ConfigurationError(
            f"{path} cannot be written: {error.strerror}; choose another path with output=FILE"
        ) from error
