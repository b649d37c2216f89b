"""The types exchanged by benchmarks, models and results. Standard library only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True, kw_only=True)
class FollowUp:
    """A second request with the answer to the first; its own answer is the one that is scored.

    A new conversation of one message: `before`, the first answer, `after`. The first context is in
    it only if it is repeated.
    """

    before: str
    after: str
    max_new_tokens: int


@dataclass(frozen=True, kw_only=True)
class Example:
    """One question about one context."""

    id: str
    """Unique within the experiment; the same for every model and attention."""
    question_id: str | None = None
    """Id of the question, equal for all its repeats; None if it is asked once."""
    task: str
    context: str
    """Prefilled once for all examples with the same context."""
    question: str
    """Follows the context directly, so it includes the separator."""
    references: tuple[str, ...]
    max_new_tokens: int
    """Answer limit of this example; `generation.max_new_tokens` may lower it."""
    answer_prefix: str = ""
    """Beginning of the answer, placed at the start of the model's turn."""
    extras: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the scorer; `groups` names further groups to average the score over."""
    may_cut: bool = False
    """Whether a context that is too long loses its middle; otherwise it is an error."""
    max_tokens: int | None = None
    """Longest prompt plus answer, in tokens; the limit of the model applies too."""
    chat_template: bool = True
    """Whether the prompt is written with the model's chat template, if it has one."""
    is_continuation: bool = False
    """Whether the question is a continuation of the context: its loss is measured, nothing is
    generated, and no chat template is applied."""
    follow_up: FollowUp | None = None
    """What is asked once this is answered; None scores the answer itself."""
    origin: str = ""
    """Data set and commit, or folder, that it was read from; empty if it was generated."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What analyses may want to know, kept in examples.jsonl; nothing is computed from it."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The answer of one attention method to one example."""

    example_id: str
    task: str
    text: str
    """What is scored: the answer after the thought, empty if the thought did not end. With a
    follow-up, its answer."""
    input_hash: str
    """Hash of all input token ids; two arms are comparable where it is equal."""
    finish_reason: str
    """`eos`, `length`, or `given` for a continuation."""
    context_tokens: int
    question_tokens: int
    new_tokens: int
    """Generated tokens, those of the thought and the end-of-sequence token included."""
    prefill_seconds: float | None
    """None if an earlier example with the same context was charged for the prefill."""
    decode_seconds: float
    """Question and answer."""
    density: float | None
    """Mean of selected / visible keys over layers, heads and queries; None if no query of this
    example ran under the attention. Layers that are kept dense count as 1."""
    rows_read: float | None = None
    """Mean share of the visible key-value rows that any query head of a group selects, over layers,
    groups and queries; None as for the density, and in answers of early versions."""
    prefill_density: float | None = None
    """Share of the visible pairs of query and key that the context's queries read in the prefill:
    the mean over heads and layers, 1 without a pattern. None without a context, and in answers of
    early versions."""
    keys_read: float | None = None
    """Number of keys read in one layer, summed over the queries of question and answer: the mean
    over query heads and layers. A query that is computed densely, such as those of the question
    under `question_dense`, reads all keys that it sees. None in answers of early versions."""
    truncated: bool = False
    """Whether the context lost its middle to fit."""
    output_error: float | None = None
    """Mean over layers, heads and the queries that were measured, with 0 for layers that are kept
    dense; None if none was measured."""
    recall: float | None = None
    """Mean as for output_error, with 1 for layers that are kept dense."""
    queries: int | None = None
    """Queries that ran under the attention, each counted in every layer that its density counts."""
    measured_queries: int | None = None
    """Those of `queries` in output_error and recall; None if neither metric is enabled."""
    context_hash: str | None = None
    """Hash of the context's token ids, or of all input ids if the context is empty; answers with
    the same one are not independent."""
    references_hash: str | None = None
    """Hash of what the scorer read of the example when it was answered; see `references_hash`."""
    token_limit: int | None = None
    """Maximum number of new tokens; None for a continuation."""
    index_bytes: Mapping[str, float] = field(default_factory=dict)
    """Size of each masker's key index, in bytes per key and layer."""
    resident: float | None = None
    """Bytes held of the context as a share of its dense cache: what is left of the cache (packed,
    where it is rewritten), and key indexes. None without a context, and in answers of early
    versions. Where keys are evicted while decoding: of the whole sequence, at the end of the
    answer."""
    dense_agreement: Mapping[str, Any] | None = None
    """What teacher forcing measured, token by token; None for free decoding."""
    prefill_seconds_saved: float | None = None
    """Prefill time this arm saved because another arm of its job was charged for it."""
    decode_cpu_seconds: float | None = None
    """CPU time of all threads of the process during decode_seconds."""
    decode_thread_seconds: float | None = None
    """CPU time of the thread that decodes, during decode_seconds."""
    loss: float | None = None
    """Mean next-token loss of a continuation, in nats; None for answers."""
    chat_template: bool | None = None
    """Whether the prompt was written with the chat template; None if it was not recorded."""
    thought: str | None = None
    """What a thinking model wrote before its answer, without marks; None if it did not think."""
    thought_tokens: int | None = None
    """Number of tokens of the thought."""
    unfinished_thought: bool = False
    """Whether the thought did not end, so that there is no answer."""
    first_answer: str | None = None
    """The answer that a follow-up was made of, to which tokens, seconds and densities belong; None
    without one."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The score of one prediction."""

    example_id: str
    task: str
    score: float | None
    """In [0, 1]; None if the references are not public."""
    references_hash: str | None = None
    """Hash of what the scorer read of the example; set when it is stored."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further numbers on the same answer; results.json has their means."""
    groups: tuple[str, ...] = ()
    """Groups within the task that this example belongs to, such as `length 8k+`."""
    question_id: str | None = None
    """As in the example."""
    answer: str | None = None
    """The final answer that was found in the text, in normal form, for the majority vote; empty if
    there is none, None if the task looks for none."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much a benchmark asks for, at most, as far as that is known without a tokenizer."""

    contexts: int
    """Prefills under one attention."""
    token_limits: Sequence[int]
    """Limit of each answer in tokens, repeats included; 0 for a continuation."""
    follow_ups: int = 0
    """Answers with a second request, whose context the model reads too."""


class PromptTokenizer(Protocol):
    """What a benchmark may use of the experiment's tokenizer."""

    max_tokens: int | None
    """Longest sequence that the model takes; None if unknown."""

    @property
    def has_chat_template(self) -> bool:
        """Whether the model has a chat template."""

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text on its own, without special tokens."""

    def prompt_length(self, example: Example) -> int:
        """Count the tokens of the whole prompt as the model sees it, chat template included."""


class Benchmark(Protocol):
    """A source of examples and the rule that scores their answers; see `BaseBenchmark`."""

    title: ClassVar[str]
    """What it is, for lists; if empty, the first line of the class's docstring."""
    licence: ClassVar[str]
    """Licence of the data."""
    data: ClassVar[str]
    """Origin of the data, if they are not from `hub_datasets`."""

    @property
    def name(self) -> str:
        """The name used in output directories, tables and messages."""

    @property
    def subset(self) -> str | Sequence[str] | None:
        """The subset or subsets asked for; None means all available ones."""

    @property
    def limit(self) -> int | None:
        """Maximum number of questions; None means all."""

    @property
    def repeats(self) -> int | None:
        """Answers to each question, sampled independently; None means one."""

    @property
    def context_tokens(self) -> int | None:
        """Longest prompt plus answer that the configuration asks for; None if it sets none."""

    @classmethod
    def subsets(cls) -> tuple[str, ...]:
        """Return all subsets, in order; empty if only the data tell."""

    @classmethod
    def answer_limits(cls) -> Mapping[str, int]:
        """Return the default answer limit by subset, where there is one."""

    @classmethod
    def score_names(cls) -> Mapping[str, str]:
        """Return the name of the score by subset; the key "" stands for all others."""

    @classmethod
    def without_chat_template(cls) -> tuple[str, ...]:
        """Return the subsets whose prompts have no chat template unless it is asked for."""

    def available_subsets(self) -> tuple[str, ...]:
        """Return the subsets that `subset: null` and `subset='*'` run, as configured."""

    def hub_datasets(self) -> tuple[str, ...]:
        """Return the Hugging Face data sets that the chosen subsets are read from."""

    def is_here(self) -> bool:
        """Whether the chosen subsets can be read without a network."""

    def check_data(self) -> None:
        """Check local data before anything expensive runs; raises DatasetError."""

    def revision_note(self) -> str:
        """Say whether the data are pinned to a commit; empty if they are not from the Hub."""

    def fetch(self) -> str:
        """Download the data of the chosen subsets; return a note on what was fetched."""

    def with_one_sample(self) -> "Benchmark":
        """Return a copy that generates one sample per subset, if it generates samples."""

    def size(self, seed: int) -> Size:
        """Return how much `examples` asks for; raises SahError if only a tokenizer would tell."""

    def examples(self, tokenizer: PromptTokenizer, seed: int) -> list[Example]:
        """Return the examples of this experiment, the same for the same tokenizer and seed."""

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[Score]:
        """Return one score per example, in order; `predictions` is aligned with `examples`."""
