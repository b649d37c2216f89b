"""From a composed configuration to a validated experiment; loads and imports no model code."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import hydra
import orjson
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from sah.attention import DenseAttention, SparseAttention
from sah.benchmarks.checks import require_context
from sah.errors import ConfigurationError
from sah.execution.protocol import Protocol as AttentionProtocol
from sah.metric_logging import MetricLogging
from sah.models.generation import Generation
from sah.paths import config_folder
from sah.types import Benchmark

if TYPE_CHECKING:
    from sah.models.language_model import LanguageModel
    from sah.models.prompts import PromptEncoder


def compose(overrides: Sequence[str]) -> DictConfig:
    """The configuration that a command line would compose, for what is not run by Hydra.

    Raises:
        HydraException: for an unknown group, option or key.
    """
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        return hydra.compose("config", list(overrides))


class ModelSource(Protocol):
    """What the model group composes: knows how to load a model, and has not yet."""

    name: str

    def known_max_tokens(self) -> int | None:
        """The longest sequence the model takes, as far as that is known without loading it."""

    def load(self) -> "LanguageModel":
        """Load the model and its tokenizer."""

    def prompts(self) -> "PromptEncoder":
        """Load the tokenizer alone."""

    def fetch(self) -> str:
        """Bring what `load` reads onto this machine; return what there is now."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A validated experiment. Construction loads nothing and writes nothing."""

    model: ModelSource
    sparse_attention: DenseAttention | SparseAttention
    benchmark: Benchmark
    metric_logging: MetricLogging
    generation: Generation
    protocol: AttentionProtocol
    seed: int
    timeout_minutes: float | None

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise ValueError(f"seed must be a whole number, got {self.seed!r}")
        timeout = self.timeout_minutes
        is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
        # Written so that NaN is refused too.
        if timeout is not None and not (is_number and timeout > 0):
            raise ValueError(f"timeout_minutes must be positive or null, got {timeout!r}")

        if self.generation.batch_questions is not None and self.protocol.answer == "forced":
            raise ValueError(
                f"generation.batch_questions={self.generation.batch_questions} decodes free "
                f"answers; protocol={self.protocol.name} compares token by token: leave it null"
            )
        if self.benchmark.context_tokens is not None:
            require_context(self.benchmark.context_tokens, self.model.known_max_tokens())

    @classmethod
    def from_config(cls, config: DictConfig) -> "Experiment":
        """Build an experiment from a composed configuration.

        Raises:
            ConfigurationError: naming the part of the configuration and what is wrong.
        """
        parts = {}
        for name in ("model", "sparse_attention", "benchmark", "metric_logging", "protocol"):
            parts[name] = _build(config, name)
        generation = _section(config, "generation")
        try:
            return cls(
                **parts,
                generation=Generation(**generation),
                seed=config.seed,
                timeout_minutes=config.timeout_minutes,
            )
        except (TypeError, ValueError) as error:
            raise ConfigurationError(str(error)) from error


def check_bundling(bundle: Any, bundle_max: Any) -> None:
    """Check how cells of a sweep are to be put together.

    Raises:
        ConfigurationError: naming the value and what it may be.
    """
    if bundle not in ("attention", "none"):
        raise ConfigurationError(f"bundle must be attention or none, got {bundle!r}")
    is_number = isinstance(bundle_max, int) and not isinstance(bundle_max, bool)
    if bundle_max is not None and not (is_number and bundle_max >= 1):
        raise ConfigurationError(f"bundle_max must be at least 1 or null, got {bundle_max!r}")


def _section(config: DictConfig, name: str) -> dict[str, Any]:
    section = config[name]
    if not isinstance(section, DictConfig):
        raise ConfigurationError(
            f"{name} has keys and values of its own, got {name}={section!r}; set one of them with "
            f"{name}.KEY=VALUE"
        )
    container: dict[str, Any] = OmegaConf.to_container(section, resolve=True)  # type: ignore[assignment]
    return container


def _build(config: DictConfig, name: str) -> Any:
    container = _section(config, name)
    try:
        return _build_once(name, orjson.dumps(container))
    except orjson.JSONEncodeError:
        # Keys that are no strings: nothing to remember it by.
        return _instantiated(name, container)


@functools.lru_cache(maxsize=1024)
def _build_once(name: str, part: bytes) -> Any:
    """Parts are immutable, and a sweep of thousands of cells has few different ones."""
    return _instantiated(name, orjson.loads(part))


def _instantiated(name: str, container: Any) -> Any:
    if "_target_" not in container:
        raise ConfigurationError(
            f"{name} has no _target_, the class that it configures; leave it as the option has it"
        )
    try:
        return instantiate(OmegaConf.create(container), _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__ or error
        raise ConfigurationError(f"{name}: {cause}") from error
