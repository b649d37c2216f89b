"""Rescoring stored answers without the model."""

import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sah.errors import ConfigurationError, DamagedResults
from sah.execution.experiment import Experiment
from sah.results.aggregate import summarise
from sah.results.excerpts import origins
from sah.results.provenance import provenance
from sah.results.schema import SCHEMA
from sah.results.store import CONFIG, OVERRIDES, PREDICTIONS, ResultStore, read_result

logger = logging.getLogger(__name__)


def rescore(folder: Path) -> tuple[float | None, float | None]:
    """Score an experiment's answers again and return the score before and after.

    Everything else in results.json is kept; provenance records when and with which code the
    answers were rescored. The examples are generated again, which needs the data and the
    tokenizer, but not the weights.

    Raises:
        ConfigurationError: if the experiment is not complete, or an earlier version wrote it.
        DamagedResults: if the answers do not belong to the benchmark's examples, or the data
            set has another commit here.
        Busy: if another process works on this experiment.
    """
    result = read_result(folder, folder.name)
    if result is None:
        raise ConfigurationError(f"{folder} is not complete; run it to the end first")
    if result.schema != SCHEMA:
        raise ConfigurationError(
            f"results.json has schema {result.schema}, which this version reports but does not "
            "rescore; rescore it with the version that wrote it, or run the experiment again"
        )
    config = OmegaConf.load(folder / CONFIG)
    assert isinstance(config, DictConfig)
    # As typed: an interpolation in them belongs to the whole configuration.
    typed = OmegaConf.to_container(OmegaConf.load(folder / OVERRIDES), resolve=False)
    overrides = [str(item) for item in typed or ()]
    experiment = Experiment.from_config(config)
    store = ResultStore(folder, folder.name)
    with store.claimed(config, overrides, resume=True):
        examples = experiment.benchmark.examples(experiment.model.prompts(), experiment.seed)
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
        predictions = [store.predictions[example.id] for example in examples]
        scores = experiment.benchmark.score(examples, predictions)
        summary = summarise(predictions, scores, load_seconds=result.timing.load_seconds)
        stamp = {"finished": datetime.now(UTC).isoformat(), **_code()}
        rescored = replace(
            result, **vars(summary), provenance=replace(result.provenance, rescored=stamp)
        )
        store.complete(rescored, scores)
    return result.score, rescored.score


def _code() -> dict[str, Any]:
    current = provenance()
    return {name: current[name] for name in ("git_commit", "git_dirty")}
