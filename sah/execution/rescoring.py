"""Rescoring stored answers without the model."""

import functools
import logging
from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from sah.errors import ConfigurationError, DamagedResults
from sah.execution.answering import inputs_of
from sah.execution.experiment import Experiment
from sah.execution.groups.grouping import encoded_contexts
from sah.paths import config_folder
from sah.results import fingerprint
from sah.results.aggregate import summarise
from sah.results.excerpts import origins
from sah.results.files import damaged, read_file
from sah.results.identity import check_config, is_interpolated
from sah.results.provenance import provenance
from sah.results.schema import SCHEMA
from sah.results.store import CONFIG, OVERRIDES, ResultStore, read_result
from sah.results.stored_lines import PREDICTIONS, with_references

logger = logging.getLogger(__name__)


def rescore(
    folder: Path, *, allow: Collection[str] = (), trust_remote_code: bool = False
) -> tuple[float | None, float | None]:
    """Score an experiment's answers again and return the score before and after.

    Everything else in results.json is kept; provenance records when and with which code the
    answers were rescored. The examples are generated again, which needs the data and the
    tokenizer, but not the weights.

    The prompts and limits must be those of the answers. References may have been corrected in the
    benchmark's code since: provenance counts them, and each score names those it was computed
    with, so that `sah compare` never pairs two scores of different references. An interrupted
    `rescore` is completed by another.

    Results may come from somebody else, so that their config.yaml only chooses among classes that
    the configuration of this package names, and runs no code of a model.

    Args:
        folder: the experiment's directory.
        allow: further classes that config.yaml may name.
        trust_remote_code: run code that comes with the model, if config.yaml asks for it too.

    Raises:
        ConfigurationError: if the experiment is not complete, or an earlier version wrote it; if
            its config.yaml is not the one that the directory is named after, or would run code
            that was not allowed.
        DamagedResults: if the answers do not belong to the benchmark's examples, files are
            damaged, or the data set has another commit here.
        Busy: if another process works on this experiment.
    """
    result = read_result(folder, folder.name, with_scores=False)
    if result is None:
        raise ConfigurationError(f"{folder} is not complete; run it to the end first")
    if result.schema != SCHEMA:
        raise ConfigurationError(
            f"results.json has schema {result.schema}, which this version reports but does not "
            "rescore; rescore it with the version that wrote it, or run the experiment again"
        )
    check_config(result)
    config = _load_yaml(folder / CONFIG)
    if not isinstance(config, DictConfig):
        raise damaged(folder / CONFIG, "it is not a mapping")
    # As typed: an interpolation in them belongs to the whole configuration.
    typed = OmegaConf.to_container(_load_yaml(folder / OVERRIDES), resolve=False)
    overrides = [str(item) for item in typed or ()]
    _check_harmless(config, folder, frozenset(allow), trust_remote_code)
    # The attention has answered already; what it names, such as a press, is not imported.
    scored: Any = config.copy()
    scored.sparse_attention = OmegaConf.load(config_folder() / "sparse_attention" / "dense.yaml")
    experiment = Experiment.from_config(scored)
    store = ResultStore(folder, folder.name)
    with store.claimed(config, overrides, resume=True):
        prompts = experiment.model.prompts()
        examples = experiment.benchmark.examples(prompts, experiment.seed)
        store.check_examples([example.id for example in examples])
        missing = [item.id for item in examples if item.id not in store.predictions]
        if missing:
            raise DamagedResults(
                f"{folder / PREDICTIONS} has no answer to {missing[0]!r} and {len(missing) - 1} "
                "others: the benchmark's code or data changed since; run it again with resume=false"
            )
        answered, read = result.provenance.data, origins(examples)
        if answered and answered != read:
            raise DamagedResults(
                f"{folder} answered {', '.join(answered)}, but this machine reads "
                f"{', '.join(read)}, whose references may differ; run it again with resume=false"
            )
        for asked in encoded_contexts(experiment, prompts, examples):
            inputs = {
                example.id: inputs_of(experiment, example, prompt)
                for example, prompt in zip(asked.examples, asked.prompts, strict=True)
            }
            store.check_inputs(inputs, references=False)
        predictions = [store.predictions[example.id] for example in examples]
        scores = with_references(experiment.benchmark.score(examples, predictions), examples)
        corrected = sum(
            score.references_hash != prediction.references_hash
            for score, prediction in zip(scores, predictions, strict=True)
        )
        if corrected:
            logger.warning(
                "%s: %d of %d examples have other references than when they were answered; "
                "`sah compare` leaves them out against results of the old ones",
                *(folder, corrected, len(examples)),
            )
        summary = summarise(predictions, scores, load_seconds=result.timing.load_seconds)
        stamp = {
            "finished": datetime.now(UTC).isoformat(),
            **_code(),
            "other_references": corrected,
        }
        rescored = replace(
            result, **vars(summary), provenance=replace(result.provenance, rescored=stamp)
        )
        store.complete(rescored, scores)
    return result.score, rescored.score


def _load_yaml(path: Path) -> DictConfig | ListConfig:
    try:
        return OmegaConf.create(read_file(path).decode())
    except (FileNotFoundError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise damaged(path, " ".join(str(error).split())) from error


def _check_harmless(
    config: DictConfig, folder: Path, allow: frozenset[str], trust_remote_code: bool
) -> None:
    """Check that a stored configuration is the one that was run, and names no foreign code."""
    content = OmegaConf.to_container(config, resolve=False)
    for path, value in _values(content, ""):
        key = path.rpartition(".")[2]
        if key == "_target_" and value not in _own_classes() | allow:
            raise ConfigurationError(
                f"{folder / CONFIG} names the class {path}={value!r}, which is not in the "
                f"configuration of sah; add --allow {value} if you know what it does"
            )
        if key == "trust_remote_code" and value is not False and not trust_remote_code:
            raise ConfigurationError(
                f"{folder / CONFIG} has {path}={value!r}: code that comes with the model would "
                "run; add --trust-remote-code if you trust its author"
            )
    # Interpolations are resolved when a configuration is stored.
    for path, value in _values(content, ""):
        if isinstance(value, str) and is_interpolated(value):
            raise ConfigurationError(
                f"{folder / CONFIG} has an interpolation in {path}, which no run writes: it was "
                "edited"
            )
    try:
        found = fingerprint(config)
    except OmegaConfBaseException as error:
        raise damaged(folder / CONFIG, " ".join(str(error).split())) from error
    if found != folder.name:
        raise ConfigurationError(
            f"{folder / CONFIG} has the fingerprint {found}, not that of its directory: it was "
            "edited, copied or moved, or another version wrote it; run the experiment again"
        )


@functools.cache
def _own_classes() -> frozenset[str]:
    """Return the classes that the configuration of this package names."""
    loaded = [OmegaConf.load(path) for path in config_folder().rglob("*.yaml")]
    contents = [OmegaConf.to_container(config, resolve=False) for config in loaded]
    return frozenset(
        value
        for content in contents
        for path, value in _values(content, "")
        if path.rpartition(".")[2] == "_target_"
    )


def _values(content: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Return every plain value in a configuration, with its dotted key."""
    if isinstance(content, dict):
        for key, child in content.items():
            yield from _values(child, f"{path}.{key}".lstrip("."))
    elif isinstance(content, list):
        for number, child in enumerate(content):
            yield from _values(child, f"{path}.{number}")
    else:
        yield path, content


def _code() -> dict[str, Any]:
    current = provenance()
    return {name: current[name] for name in ("git_commit", "git_dirty")}
