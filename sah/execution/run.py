"""How an experiment runs: load, prefill each context, answer under each arm, score, complete."""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from sah.errors import ConfigurationError, DatasetError
from sah.execution.answering import context_hash
from sah.execution.arm import Arm
from sah.execution.groups.grouping import encoded_contexts
from sah.execution.groups.sharing import answer_group, at_work, groups_of, together
from sah.models.language_model import LanguageModel
from sah.models.loading.kept_model import KeptModel
from sah.results.aggregate import summarise
from sah.results.contents import describe_contents
from sah.results.excerpts import origins, shown
from sah.results.identity import model_key
from sah.results.provenance import device_name, load_per_core, provenance
from sah.results.schema import Provenance, Result
from sah.results.stored_lines import with_references
from sah.types import Example

logger = logging.getLogger(__name__)


def run(arms: Sequence[Arm], models: KeptModel) -> None:
    """Answer the pending examples of each arm, score all answers, and complete its results.

    Several arms, which differ only in sparse attention and metric logging, share the model and
    one prefill per context. Each attempt ends with `finish` or `fail`, independently of the
    others.

    Args:
        arms: at least one.
        models: where the model is loaded, or held from before.
    """
    # Asked at the start: a commit made while this runs is not the code that runs.
    started, code, load = datetime.now(UTC), provenance(), load_per_core()
    try:
        with together(arms):
            load_started = time.perf_counter()
            model = models.load(arms[0].experiment.model, model_key(arms[0].config))
            load_seconds = time.perf_counter() - load_started
            examples = _examples(arms[0], model)
            contexts = _contexts_if_matched(arms, model, examples)
            groups = groups_of(arms, model, examples)
        for arm in arms:
            arm.memory.bytes = models.with_loading(arm.memory.bytes)
        if not at_work(arms):
            return
        if model.prompts.marks is not None:
            logger.info(
                "a thought before an answer ends at %r and is not scored; model.thinking=null "
                "scores all that the model writes",
                model.prompts.marks.end,
            )
        made_by = _made_by(model, code) | {"load_per_core": load}
        for arm in arms:
            with arm.alone():
                _require_untouched(arm, contexts)
                arm.begin(model, examples, made_by=made_by, alone=len(arms) == 1)
        saved_seconds = sum(answer_group(arms, model, group) for group in groups)
        if saved_seconds:
            logger.info(
                "%d arms shared their prefills: %.1f s saved over separate runs",
                *(len(arms), saved_seconds),
            )
        for arm in at_work(arms):
            with arm.alone():
                _complete(
                    arm, model, examples, code=code, started=started, load_seconds=load_seconds
                )
    finally:
        for arm in arms:
            arm.end_attempt()


def _complete(
    arm: Arm,
    model: LanguageModel,
    examples: Sequence[Example],
    *,
    code: Mapping[str, Any],
    started: datetime,
    load_seconds: float,
) -> None:
    """Score an arm's answers and write its results."""
    experiment = arm.experiment
    predictions = [arm.store.predictions[example.id] for example in examples]
    scores = with_references(experiment.benchmark.score(examples, predictions), examples)
    arm.store.write_examples([shown(example) for example in examples])
    result = Result(
        directory=arm.store.directory,
        fingerprint=arm.store.fingerprint,
        model=experiment.model.name,
        attention=experiment.sparse_attention.name,
        benchmark=experiment.benchmark.name,
        subset=experiment.benchmark.subset,
        protocol=experiment.protocol.name,
        cache_bytes_per_token=model.cache_bytes_per_token,
        own_indexer=_own_indexer(arm, model),
        **vars(summarise(predictions, scores, load_seconds=load_seconds)),
        provenance=Provenance(
            **{**code, **_made_by(model, code)},
            **_starts(arm.store.starts()),
            data=origins(examples),
            content=describe_contents(arm.store.config),
            peak_memory_bytes=arm.memory.bytes,
            started=started.isoformat(),
            finished=datetime.now(UTC).isoformat(),
        ),
        config=arm.store.config,
    )
    arm.finish(arm.store.complete(result, scores))


def _own_indexer(arm: Arm, model: LanguageModel) -> Literal["on", "off"] | None:
    if not model.has_indexer:
        return None
    return "on" if arm.experiment.sparse_attention.uses_indexer else "off"


def _made_by(model: LanguageModel, code: Mapping[str, Any]) -> dict[str, Any]:
    """Code, libraries and device; where they differ between two starts, answers may differ too."""
    return {
        "git_commit": code["git_commit"],
        "git_dirty": code["git_dirty"],
        "versions": code["versions"],
        "model_commit": model.commit,
        "device": device_name(model.device),
        "dtype": str(model.model.dtype).removeprefix("torch."),
    }


def _starts(starts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Count the starts, find the highest load, and list code and devices where they differ."""
    loads = [start["load_per_core"] for start in starts if start.get("load_per_core") is not None]
    # Content is the same in one directory, whatever its path and date.
    ignored = ("time", "typed", "content", "load_per_core")
    differing = [key for key in (starts[0] if starts else ()) if key not in ignored]
    made_by = [{key: start.get(key) for key in differing} for start in starts]
    different = [one for n, one in enumerate(made_by) if one not in made_by[:n]]
    return {
        "starts": len(starts),
        "answered_by": different if len(different) > 1 else None,
        "load_per_core": max(loads, default=None),
    }


def _examples(arm: Arm, model: LanguageModel) -> list[Example]:
    benchmark = arm.experiment.benchmark
    examples = benchmark.examples(model.prompts, arm.experiment.seed)
    if not examples:
        raise DatasetError(
            f"benchmark {benchmark.name!r} has no example for subset={benchmark.subset!r} and "
            f"limit={benchmark.limit!r}"
        )
    (repeated, times), *_ = Counter(example.id for example in examples).most_common(1)
    if times > 1:
        ids = len({example.id for example in examples})
        raise DatasetError(
            f"benchmark {benchmark.name!r}: {len(examples)} examples have only {ids} different "
            f"ids; {times} of them have the id {repeated!r}: give each its own"
        )
    return examples


def _contexts_if_matched(
    arms: Sequence[Arm], model: LanguageModel, examples: Sequence[Example]
) -> dict[str, str]:
    """Return the hash of each example's context by id; nothing if no budget was matched."""
    if all(arm.matched is None for arm in arms):
        return {}
    return {
        example.id: context_hash(example, prompt)
        for asked in encoded_contexts(arms[0].experiment, model.prompts, examples)
        for example, prompt in zip(asked.examples, asked.prompts, strict=True)
    }


def _require_untouched(arm: Arm, contexts: Mapping[str, str]) -> None:
    """Check that no context was in the tuning split of the arm's budget."""
    seen = set() if arm.matched is None else set(arm.matched.contexts)
    tuned = [example for example, context in contexts.items() if context in seen]
    if tuned:
        raise ConfigurationError(
            f"sparse_attention={arm.experiment.sparse_attention.name} was matched on the context "
            f"of {len(tuned)} of these examples (the first is {tuned[0]}), so that they cannot "
            "measure it; run `sah match` with the benchmark, limit and seeds that are measured, or "
            "measure other seeds"
        )
