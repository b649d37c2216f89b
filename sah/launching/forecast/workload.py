"""How many tokens a job prefills and decodes."""

from collections.abc import Sequence
from dataclasses import dataclass

from sah.attention import DenseAttention, SparseAttention
from sah.errors import ConfigurationError
from sah.execution.experiment import Experiment
from sah.execution.groups.grouping import encoded_contexts, grouped
from sah.models.generation import Generation


@dataclass(frozen=True, kw_only=True)
class PromptSizes:
    """What one arm asks for. Token numbers are upper bounds unless `is_counted`."""

    contexts: int
    answers: int
    context_tokens: int | None
    """Of all contexts together; None if only the tokenizer tells."""
    new_tokens: int
    """The sum of the answer limits, at which few answers end; 0 for continuations."""
    longest: int | None
    """Tokens of the longest prompt with its answer."""
    is_counted: bool
    """Whether `context_tokens` and `longest` were counted with the tokenizer."""
    batch_rows: int
    """Most answers that are decoded together; of prompts at their limit unless `is_counted`."""
    follow_ups: int = 0
    """Answers with a second request; its context is in none of these numbers."""


def bound_prompts(experiment: Experiment) -> PromptSizes:
    """Bound the sizes of the prompts, as the configuration and local data tell.

    Raises:
        SahError: if only the tokenizer tells how many answers there are and how long they may be.
    """
    size = experiment.benchmark.size(experiment.seed)
    generation = experiment.generation
    thought = generation.thinking_tokens or 0
    limits = [
        generation.token_limit(limit) + thought if limit else 0 for limit in size.token_limits
    ]
    longest = experiment.benchmark.context_tokens
    return PromptSizes(
        contexts=size.contexts,
        answers=len(limits),
        context_tokens=None if longest is None else longest * size.contexts,
        new_tokens=sum(limits),
        longest=longest,
        is_counted=False,
        batch_rows=_bound_rows(generation, longest, shares_contexts=size.contexts < len(limits)),
        follow_ups=size.follow_ups,
    )


def _bound_rows(generation: Generation, longest: int | None, *, shares_contexts: bool) -> int:
    # Rows about one long context may take turns in its cache, which counts once.
    if longest is None or shares_contexts:
        return generation.batch_rows
    return generation.rows_together(longest)


def count_prompts(experiment: Experiment) -> PromptSizes:
    """Make all prompts with the model's tokenizer and count their tokens.

    Raises:
        SahError: if tokenizer or data cannot be read, or a prompt does not fit.
    """
    prompts = experiment.model.prompts()
    examples = experiment.benchmark.examples(prompts, experiment.seed)
    generation = experiment.generation
    contexts = context_tokens = new_tokens = longest = rows = 0
    for group in grouped(
        encoded_contexts(experiment, prompts, examples),
        batch_rows=generation.batch_rows,
        batch_tokens=generation.batch_tokens,
    ):
        rows = max(rows, *map(len, group.batches))
        for asked in group.contexts:
            contexts += 1
            context_tokens += len(asked.context_ids)
            longest = max(longest, asked.longest)
            for example, room in zip(asked.examples, asked.rooms, strict=True):
                new_tokens += 0 if example.is_continuation else room
    return PromptSizes(
        contexts=contexts,
        answers=len(examples),
        context_tokens=context_tokens,
        new_tokens=new_tokens,
        longest=longest,
        is_counted=True,
        batch_rows=rows,
        follow_ups=sum(one.follow_up is not None for one in examples),
    )


def prefills(experiments: Sequence[Experiment]) -> int:
    """Count how often a job reads each context: once for every way in which its arms read it.

    A pass in which the model repeats the context (KVzip) counts as one more.
    """
    dense = "dense"
    ways: dict[str, set[object]] = {}
    for experiment in experiments:
        attention = experiment.sparse_attention
        way = dense
        if attention.uses_indexer:
            way = "indexer"
        elif isinstance(attention, SparseAttention) and attention.pattern is not None:
            way = repr((attention.pattern, attention.dense_layers, attention.layers))
        ways.setdefault(way, set()).update(_repetitions(attention))
        if experiment.protocol.answer == "forced":
            ways.setdefault(dense, set())
    return len(ways) + sum(map(len, ways.values()))


def _repetitions(attention: DenseAttention | SparseAttention) -> Sequence[object]:
    if isinstance(attention, DenseAttention) or attention.witness is None:
        return ()
    return tuple(attention.witness.reconstructions)


def require_bounded(sizes: PromptSizes, name: str) -> int:
    """Return the tokens of all contexts.

    Raises:
        ConfigurationError: if they are unknown.
    """
    if sizes.context_tokens is None:
        raise ConfigurationError(
            f"{name} sets no benchmark.context_tokens; count its prompts with --count"
        )
    return sizes.context_tokens
