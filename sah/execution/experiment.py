"""The experiment: a composed configuration as a validated object. Loads no model or data."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from omegaconf import DictConfig

from sah.attention import DenseAttention, Matched, SparseAttention
from sah.attention.eviction.witness import Witness
from sah.benchmarks.requirements import require_context
from sah.errors import ConfigurationError
from sah.execution.building import build, build_section, nearest
from sah.execution.protocol import Protocol as AttentionProtocol
from sah.metric_logging import MetricLogging
from sah.models.generation import Generation
from sah.paths import STAGES
from sah.results.identity import NOT_IDENTITY
from sah.types import Benchmark
from sah.validation import wrong_fields

if TYPE_CHECKING:
    from sah.models.language_model import LanguageModel
    from sah.models.loading.outline import ModelOutline
    from sah.models.prompts import PromptEncoder


class ModelSource(Protocol):
    """What an option of the model group describes: a model that is not loaded yet."""

    name: str

    def known_max_tokens(self) -> int | None:
        """The longest sequence the model takes; None if only loading the model would tell."""

    def outline(self, dtype: torch.dtype) -> "ModelOutline":
        """Make the model without weights, from files on this machine; raises SahError."""

    def load(self) -> "LanguageModel":
        """Load the model and its tokenizer."""

    def prompts(self) -> "PromptEncoder":
        """Load the tokenizer alone."""

    def fetch(self) -> str:
        """Download what `load` reads; return what is on this machine now."""


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
        if self.timeout_minutes is not None and self.timeout_minutes <= 0:
            raise ValueError(
                f"timeout_minutes must be positive or null, got {self.timeout_minutes!r}"
            )
        attention = self.sparse_attention
        if self.protocol.question == "dense" and isinstance(attention, SparseAttention):
            if self.witness is not None and self.witness.reconstructions:
                raise ValueError(
                    f"sparse_attention={attention.name} scores the keys of a context by repeating "
                    f"it, before the question is known, but with protocol={self.protocol.name} "
                    "keys are evicted after the question; use protocol=default"
                )
        if self.protocol.question == "dense" and attention.uses_indexer:
            raise ValueError(
                f"sparse_attention={attention.name} reads context, question and answer by the "
                f"model's own indexer, but protocol={self.protocol.name} reads the question with "
                "dense attention; use protocol=default"
            )
        if isinstance(attention, SparseAttention) and attention.matched is not None:
            _require_same(attention.name, attention.matched, self.model.name, self.benchmark.name)
        repeats = self.benchmark.repeats
        greedy = self.generation.greedy_setting
        if repeats is not None and repeats > 1 and greedy is not None:
            raise ValueError(
                f"benchmark.repeats={repeats} samples several answers to each question, but "
                f"generation.{greedy} is greedy: all of them would be equal; set "
                "generation.temperature above 0 (and top_k above 1), or leave repeats null"
            )
        if self.benchmark.context_tokens is not None:
            require_context(self.benchmark.context_tokens, self.model.known_max_tokens())

    @property
    def witness(self) -> Witness | None:
        """What eviction and rewriting need of the prefill; None without them."""
        attention = self.sparse_attention
        return attention.witness if isinstance(attention, SparseAttention) else None

    @classmethod
    def from_config(cls, config: DictConfig) -> "Experiment":
        """Build an experiment from a composed configuration.

        Raises:
            ConfigurationError: naming the key, the value and what it must be, or an unknown key.
        """
        _check_keys(config)
        values = {"seed": config.seed, "timeout_minutes": config.timeout_minutes}
        for name, problem in wrong_fields(cls, values):
            raise ConfigurationError(f"{name} {problem}")
        groups = ("model", "sparse_attention", "benchmark", "metric_logging", "protocol")
        parts = {name: build(config, name) for name in groups}
        generation = build_section(config, "generation", Generation)
        try:
            return cls(**parts, generation=generation, **values)
        except ValueError as error:
            raise ConfigurationError(str(error)) from error


def _require_same(name: str, matched: Matched, model: str, benchmark: str) -> None:
    """Check that a budget is used where it was matched."""
    if (matched.model, matched.benchmark) != (model, benchmark):
        raise ValueError(
            f"sparse_attention={name} was matched to {matched.metric}={matched.target} with model="
            f"{matched.model} and benchmark={matched.benchmark}, not with model={model} and "
            f"benchmark={benchmark}; run `sah match` with these, or use the budget as it is with "
            "sparse_attention.matched=null and a sparse_attention.name of your own"
        )


def _check_keys(config: DictConfig) -> None:
    known = NOT_IDENTITY.union(Experiment.__dataclass_fields__)
    for key in map(str, config):
        if key in STAGES:
            raise ConfigurationError(
                f"{key}s belong to an attention: choose one with "
                f"+{key}@sparse_attention.{STAGES[key]}.NAME=OPTION"
            )
        if key not in known:
            raise ConfigurationError(
                f"{key} is not a key of an experiment, and a variable for the yaml of a study "
                f"belongs under study, as +study.{key}=VALUE; {nearest(key, known - {'hydra'})}"
            )
