"""The types of results.json and error.json, and the names of micro metrics."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from sah.content import by_content
from sah.terminal import plain

# Checked when a file is read.
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Amount = Annotated[float, msgspec.Meta(ge=0)]

SCHEMA = 3
"""Written to every results.json; those of schema 1 and 2 are read too (`sah.results.upgrade`)."""

DENSITY = "research_attention_density"
ROWS_READ = "research_attention_rows_read"
OUTPUT_ERROR = "research_attention_output_error"
RECALL = "research_attention_recall"

_MATCHED = "sparse_attention.matched"
_MATCHED_METRICS = ("resident", "density", "rows_read")


@dataclass(frozen=True, kw_only=True)
class MeanScore:
    """The mean score of some answers."""

    score: Share | None
    """In [0, 1]; None if the references are not public."""
    stderr: Amount | None
    """Standard error, clustered by context; None with fewer than two contexts."""
    n: Count
    """Number of answers."""
    contexts: Count
    """Number of different contexts."""


@dataclass(frozen=True, kw_only=True)
class TaskResult(MeanScore):
    """The mean score of one task, of its groups, and the means of its scorer's other metrics."""

    metrics: Mapping[str, float | None] = field(default_factory=dict)
    groups: Mapping[str, MeanScore] = field(default_factory=dict)
    chat_template: bool | None = None
    """Whether its prompts were written with the chat template; None if some were, or unknown."""


@dataclass(frozen=True, kw_only=True)
class DenseAgreement:
    """Agreement with the dense answer, token by token, measured under teacher forcing."""

    kl: float
    """KL divergence from the dense distribution, in nats."""
    kl_stderr: float | None
    top_agreement: float
    """Share of tokens for which the most likely token is the dense one."""
    top_agreement_stderr: float | None
    tokens: int
    output_error_by_layer: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """What output error and recall were measured on.

    A query counts once in each layer that attends to every earlier token. In layers that are kept
    dense it needs no measurement and counts as measured, unless its example has none.
    """

    examples: int
    """Answers with a measured query."""
    of_examples: int
    """Answers with a query under the attention."""
    queries: int
    """Measured queries."""
    of_queries: int
    """Queries under the attention."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Wall time of the experiment's own work and of the work it shared with other arms."""

    load_seconds: Amount
    prefill_seconds: Amount
    prefill_seconds_saved: Amount
    """Prefill time that another arm of the same bundle had already spent."""
    decode_seconds: Amount
    """Question and answer."""
    decode_cpu_seconds: Amount | None = None
    """CPU time of all threads of the process during decode_seconds."""
    decode_thread_seconds: Amount | None = None
    """CPU time of the thread that decodes; less than decode_seconds if it had to wait for a
    core."""
    context_tokens: Count
    """Prefilled tokens; each context counts once."""
    new_tokens: Count


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Code, libraries, data and machine behind the numbers."""

    git_commit: str | None = None
    """None outside a git checkout."""
    git_dirty: bool | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    host: str | None = None
    slurm_job: str | None = None
    cuda_visible_devices: str | None = None
    threads: int | None = None
    model_commit: str | None = None
    device: str | None = None
    dtype: str | None = None
    data: Sequence[str] = field(default_factory=list)
    """Data sets that were read, each with its commit or digest."""
    content: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Local files, commits and packages that were read, by key of the configuration."""
    starts: int | None = None
    """Number of processes that answered examples."""
    answered_by: Sequence[Mapping[str, Any]] | None = None
    """The different lines of starts.jsonl; None if every start had the same."""
    load_per_core: float | None = None
    """Processes that wanted to run in the minute before a start, per core; the highest of all
    starts. None where the system does not tell."""
    peak_memory_bytes: int | None = None
    started: str | None = None
    finished: str | None = None
    rescored: Mapping[str, Any] | None = None
    """When and by which code the answers were rescored."""


# Compared and hashed by identity: a result is a key of many mappings.
@dataclass(frozen=True, kw_only=True, eq=False)
class Summary:
    """Means over the answers of an experiment. What was not measured is None, never 0."""

    score: Share | None
    """Mean of the task scores, in [0, 1]; None if a task has none."""
    stderr: Amount | None
    """Standard error, clustered by context."""
    n: Count
    """Number of answers."""
    tasks: Mapping[str, TaskResult]
    density: Amount | None
    """Share of the visible keys that a query head selects. This and the next three are means over
    layers, heads and queries of an answer, then over the answers of a task, then over tasks."""
    density_stderr: Amount | None = None
    """Standard error, clustered by context; for the next three too."""
    rows_read: Amount | None = None
    """Share of the visible key-value rows that any query head of a group selects."""
    rows_read_stderr: Amount | None = None
    resident: Amount | None = None
    """Bytes held of a context, key indexes included, as a share of its dense cache: a mean over the
    answers of a task, then over tasks."""
    resident_stderr: Amount | None = None
    prefill_density: Amount | None = None
    """Share of the visible pairs of query and key that the context's own queries read, 1 without a
    pattern: a mean over the answers of a task, then over tasks."""
    prefill_density_stderr: Amount | None = None
    keys_read: Amount | None = None
    """Number of keys that an answer reads: `Prediction.keys_read`. This and the next are means
    over the answers of a task, then over tasks. None if any answer of the experiment lacks it."""
    keys_read_stderr: Amount | None = None
    answer_tokens: Amount | None = None
    """Length of an answer: generated tokens, those of a thought included."""
    answer_tokens_stderr: Amount | None = None
    output_error: Amount | None
    """Relative distance to the output of dense attention; 0 in layers that are kept dense."""
    output_error_stderr: Amount | None = None
    recall: Amount | None
    """Share of the softmax mass on the selected keys; 1 in layers that are kept dense."""
    recall_stderr: Amount | None = None
    sampled: Sampled | None = None
    """What output error and recall were measured on; None if neither was."""
    prompt_tokens: Amount | None
    """Mean length of context and question."""
    index_bytes: Mapping[str, float]
    """Memory of each masker's key index, in bytes per key and layer."""
    dense_agreement: DenseAgreement | None
    """None unless the protocol is teacher forcing."""
    truncated: Count
    """Number of examples whose context was cut to fit the model."""
    thought_tokens: float | None = None
    """Mean length of a thought; None if no answer had one."""
    unfinished_thoughts: Count = 0
    """Number of answers whose thought did not end: they are empty."""
    timing: Timing


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Result(Summary):
    """What results.json says about one complete experiment."""

    directory: Path
    """Output directory; not part of the file."""
    schema: int = SCHEMA
    """Schema of the file that was read."""
    fingerprint: str
    scores_digest: str | None = None
    """Digest of the scores.jsonl that the scores are the means of; None in earlier versions."""
    model: str
    attention: str
    """Name of the attention; its settings are in `config`."""
    benchmark: str
    subset: str | Sequence[str] | None
    protocol: str
    cache_bytes_per_token: int | None
    own_indexer: Literal["on", "off"] | None = None
    """Whether the model's own indexer was on (`attention=native`) or off; None if it has none."""
    provenance: Provenance
    config: Mapping[str, Any]
    """The resolved experiment, nested as in config.yaml."""

    def __repr__(self) -> str:
        """Return at most four lines: names, score, measured shares, and the directory."""
        score = "not known" if self.score is None else f"{self.score:.3f}"
        stderr = "" if self.stderr is None else f"stderr {self.stderr:.3f}, "
        lines = [self.title, f"score {score} ({stderr}n={self.n})"]
        shares = {"density": self.density, "rows read": self.rows_read, "resident": self.resident}
        known = [f"{name} {share:.3f}" for name, share in shares.items() if share is not None]
        lines += [", ".join(known)] * bool(known) + [str(self.directory)]
        return plain("\n ".join([f"<Result {lines[0]}", *lines[1:]])) + ">"

    @property
    def title(self) -> str:
        """Names of model, attention, benchmark and subset, and the protocol unless default."""
        subset = self.subset
        if subset is not None and not isinstance(subset, str):
            subset = ", ".join(subset)
        return (
            f"{self.model}  {self.attention}  {self.benchmark}"
            + (f" {subset}" if subset else "")
            + ("" if self.protocol == "default" else f"  ({self.protocol})")
        )

    @property
    def subset_name(self) -> str:
        """Name of the subset; several are joined by +, and all of them are `all`."""
        return subset_name(self.subset)

    @property
    def matched(self) -> Mapping[str, Any] | None:
        """What the budget was matched to: metric, target and measured; None if it was not."""
        attention = self.config.get("sparse_attention")
        found = attention.get("matched") if isinstance(attention, Mapping) else None
        # Not checked when the file is read, as nothing in `config` is.
        if not isinstance(found, Mapping) or found.get("metric") not in _MATCHED_METRICS:
            return None
        is_number = (isinstance(found.get(key), int | float) for key in ("target", "measured"))
        return found if all(is_number) else None

    @cached_property
    def settings(self) -> dict[str, Any]:
        """`config` flattened to dotted keys such as `benchmark.context_tokens`.

        Each masker is a key whose value is its class, so that two maskers of the same name
        differ, and what a budget was matched to is one key. Null values are left out and paths
        replaced by digests, as in the fingerprint.
        """
        return flat_settings(self.config)


@dataclass(frozen=True, kw_only=True)
class LastError:
    """What error.json says about the last failure of an experiment."""

    category: str = "unknown"
    """One of sah.errors.CATEGORIES."""
    type: str = ""
    message: str = ""
    traceback: str = ""
    attempt: int = 1
    """Number of failures so far."""
    time: str = ""
    examples: int | None = None
    """Number of the experiment's examples; None while unknown."""


# The names come first in the file.
_ORDER = ("fingerprint", "model", "attention", "benchmark", "subset", "protocol")


def to_document(result: Result) -> dict[str, Any]:
    """Return the content of results.json; nested dataclasses are left to orjson."""
    names = [one.name for one in fields(result) if one.name not in (*_ORDER, "directory")]
    names.remove("schema")
    return {"schema": SCHEMA} | {name: getattr(result, name) for name in (*_ORDER, *names)}


def subset_name(subset: Any) -> str:
    """Return the name of a `benchmark.subset`: `all` for None, several joined by +."""
    if subset is None:
        return "all"
    if isinstance(subset, Sequence) and not isinstance(subset, str):
        return "+".join(str(name) for name in subset)
    # The benchmark refuses what is not the name of a subset.
    return str(subset)


def flat_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten a resolved experiment as in `Result.settings`."""
    return dict(_flat(config, ""))


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if path == _MATCHED and isinstance(value, Mapping):
        yield path, f"{value.get('metric')}={value.get('target')}"
    elif isinstance(value, Mapping):
        for key, child in by_content(value).items():
            if key == "_target_":
                if path.startswith("sparse_attention."):
                    yield path, str(child).rpartition(".")[2]
                continue
            yield from _flat(child, f"{path}.{key}" if path else str(key))
    elif value is not None:
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        yield path, ",".join(str(item) for item in value) if is_list else value
