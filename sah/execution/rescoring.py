"""Scoring stored answers again, without the model."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sah.errors import ConfigurationError, DamagedResults
from sah.execution.experiment import Experiment
from sah.results.aggregate import summarise
from sah.results.excerpts import origins
from sah.results.provenance import provenance
from sah.results.store import CONFIG, OVERRIDES, PREDICTIONS, ResultStore, read_results

logger = logging.getLogger(__name__)


def rescore(folder: Path) -> tuple[float | None, float | None]:
    """Score an experiment's answers again; return the score before and after.

    Everything else in results.json stays, with a note of when and by which code it was
    rescored. The examples are made again: data and tokenizer must be here, weights need not.

    Raises:
        ConfigurationError: if the experiment is not complete.
        DamagedResults: if the answers are not those of the benchmark's examples, or the data
            set is at another commit here.
        Busy: if another process computes this experiment.
    """
    results = read_results(folder, folder.name)
    if results is None:
        raise ConfigurationError(f"{folder} is not complete; run it to the end first")
    config = OmegaConf.load(folder / CONFIG)
    assert isinstance(config, DictConfig)
    overrides = [str(item) for item in OmegaConf.load(folder / OVERRIDES)]
    experiment = Experiment.from_config(config)
    store = ResultStore(folder, folder.name)
    with store.claimed(config, overrides, resume=True):
        examples = experiment.benchmark.examples(experiment.model.prompts(), experiment.seed)
        store.check_examples([example.id for example in examples])
        missing = [item.id for item in examples if item.id not in store.predictions]
        if missing:
            raise DamagedResults(
                f"{folder / PREDICTIONS} has no answer to {missing[0]!r} and {len(missing) - 1} "
                "others: the benchmark's code or data changed since; run it with resume=false"
            )
        answered, read = results["provenance"].get("data", []), origins(examples)
        if answered and answered != read:
            raise DamagedResults(
                f"{folder} answered {', '.join(answered)}, but what is read here is "
                f"{', '.join(read)}: other references would be compared; run it with resume=false"
            )
        predictions = [store.predictions[example.id] for example in examples]
        scores = experiment.benchmark.score(examples, predictions)
        load_seconds = results["timing"]["load_seconds"]
        stamp = {"finished": datetime.now(UTC).isoformat(), **_code()}
        renewed = {
            **results,
            **summarise(predictions, scores, load_seconds=load_seconds),
            "provenance": {**results["provenance"], "rescored": stamp},
        }
        store.complete(renewed, scores)
    return results["score"], renewed["score"]


def _code() -> dict[str, Any]:
    current = provenance()
    return {name: current[name] for name in ("git_commit", "git_dirty")}
