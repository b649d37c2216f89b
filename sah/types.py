"""The types shared by benchmarks, models and results. Standard library only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Example:
    """One question about one context."""

    id: str
    """Unique within the experiment; the same for every model and attention."""
    task: str
    context: str
    """Prefilled once and shared by all examples with the same context."""
    question: str
    """Appended to the context directly, so it starts with its own separator."""
    references: tuple[str, ...]
    max_new_tokens: int
    """Limit of this example's answer; `generation.max_new_tokens` can lower it."""
    answer_prefix: str = ""
    """Beginning of the answer, placed after the chat template's assistant turn."""
    extras: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the scorer; `groups` lists subsets that get a mean score too."""
    may_cut: bool = False
    """Whether an overlong context may be cut in the middle; otherwise it is an error."""
    max_tokens: int | None = None
    """Limit of prompt plus answer; the model's own limit applies too."""
    is_continuation: bool = False
    """Whether the question is a continuation of the context: the model's loss on it is measured,
    nothing is generated, and no chat template is applied."""
    origin: str = ""
    """Data set and commit, or folder, of the example; empty if it is generated."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer of one attention method to one example."""

    example_id: str
    task: str
    text: str
    input_hash: str
    """Hash of all input token ids; answers of two arms are compared only if it is equal."""
    finish_reason: str
    """`eos`, `length`, or `given` for a continuation."""
    context_tokens: int
    question_tokens: int
    new_tokens: int
    """Generated tokens, the end-of-sequence token included."""
    prefill_seconds: float | None
    """None if the prefill was done for an earlier example of the same context."""
    decode_seconds: float
    density: float | None
    """Mean over layers, heads and queries of selected / visible keys; None if no query of this
    example was computed by the attention."""
    truncated: bool = False
    """Whether the context was cut to fit into the model."""
    output_error: float | None = None
    """Mean of the logged research_attention_output_error; None if none was logged."""
    recall: float | None = None
    """Mean of the logged research_attention_recall; None if none was logged."""
    context_hash: str | None = None
    """Hash of the context's token ids; answers to the same context are not independent."""
    index_bytes: Mapping[str, float] = field(default_factory=dict)
    """Memory of each masker's index of keys, in bytes per key and layer."""
    dense_agreement: Mapping[str, Any] | None = None
    """Agreement with the dense answer, token by token; None unless `protocol=forced`."""
    prefill_seconds_saved: float | None = None
    """Prefill time saved because another arm of the bundle had prefilled the context."""
    loss: float | None = None
    """Mean next-token loss of a continuation, in nats; None for answers."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The score of one prediction."""

    example_id: str
    task: str
    score: float | None
    """In [0, 1]; None if the references are not public."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further metrics of the same answer; results.json reports their means."""
    groups: tuple[str, ...] = ()
    """Subsets of the task that the example belongs to, such as `length 8k+`."""


class PromptTokenizer(Protocol):
    """The part of the model's tokenizer that benchmarks use."""

    max_tokens: int | None
    """Longest sequence that the model accepts; None if unknown."""

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, without special tokens."""

    def prompt_length(self, example: Example) -> int:
        """Count the tokens of the whole prompt, chat template included."""


class Benchmark(Protocol):
    """A source of examples and the rule that scores their answers."""

    name: str
    subset: str | None
    limit: int | None

    @classmethod
    def subsets(cls) -> tuple[str, ...]:
        """The names that `subset` may take."""

    def available_subsets(self) -> tuple[str, ...]:
        """Those that work as configured; what `subset: null` and `subset='*'` stand for."""

    def examples(self, tokenizer: PromptTokenizer, seed: int) -> list[Example]:
        """The examples of this experiment, the same for the same tokenizer and seed."""

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[Score]:
        """One score for each example, in order; `predictions` is aligned with `examples`."""
