"""Find the budget of each attention that measures as asked; the attentions share prefills."""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from sah.errors import ConfigurationError
from sah.execution.attempts import compute_arms
from sah.execution.building import compose, section
from sah.execution.checks import check
from sah.execution.experiment import Experiment
from sah.matching.budget_option import BudgetOption, Metric, find_budget
from sah.matching.search import Search
from sah.matching.tuning_split import of_config
from sah.results import Result, ResultStore

logger = logging.getLogger(__name__)

FOLDER = ".tuning"
"""Folder of all evaluations in the output root; hidden, so that no report reads it."""


_ACCEPTABLE = 20
"""Largest distance from a target, in percent, that a message offers to accept."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What to match, and how closely."""

    metric: Metric
    value: float
    tolerance: float
    """Largest relative distance from the value."""
    contexts: int
    """Contexts per task in the tuning split."""


class Candidate:
    """An attention whose budget is searched."""

    def __init__(
        self,
        config: DictConfig,
        overrides: Sequence[str],
        quiet: DictConfig,
        target: Target,
        *,
        budget: str | None,
        seeds: Sequence[int],
    ) -> None:
        """Find the budget of a composed experiment and prepare its evaluations.

        Args:
            config: the measured experiment.
            overrides: that compose it.
            quiet: a configuration without micro metrics and tracker.
            target: what to match.
            budget: path of the option, if the user names it.
            seeds: of the measured experiments.

        Raises:
            ConfigurationError: if it has none.
        """
        self.config = config
        attention = section(config, "sparse_attention")
        experiment = Experiment.from_config(config)
        known = experiment.benchmark.context_tokens or experiment.model.known_max_tokens()
        self.name = str(attention["name"])
        self.option: BudgetOption = find_budget(
            attention, target.metric, path=budget, longest=known or 2**17
        )
        is_share = isinstance(self.option.value, float)
        self.search = Search(
            target=target.value,
            tolerance=target.tolerance,
            first=min(target.value, 1.0) if is_share else self.option.value,
            default=self.option.value,
            least=self.option.least,
            most=self.option.most,
        )
        self._evaluation = _evaluation(config, quiet, target, seeds)
        self._overrides = overrides
        self.result: Result | None = None
        """Of the evaluation that came closest."""

    def at(self, value: float) -> tuple[DictConfig, list[str]]:
        """Return the evaluation of a value, and its overrides."""
        config = self._evaluation.copy()
        OmegaConf.update(config, self.option.path, value)
        return config, [*self._overrides, f"{self.option.path}={value:g}"]

    def add(self, value: float, result: Result, metric: Metric) -> None:
        """Take an evaluation.

        Raises:
            ConfigurationError: if the metric was not measured.
        """
        measured = getattr(result, metric)
        if measured is None:
            raise ConfigurationError(
                f"{self.name}: {metric} was not measured, because no query of {result.benchmark} "
                "ran under the attention, or its contexts are empty; choose another target"
            )
        self.search.measured[value] = measured
        if self.search.best == value:
            self.result = result

    @property
    def contexts(self) -> list[str]:
        """Hashes of the contexts in the tuning split."""
        assert self.result is not None, "an evaluation was measured"
        store = ResultStore(self.result.directory, self.result.fingerprint)
        store.load()
        return sorted({str(one.context_hash) for one in store.predictions.values()})

    def explain(self, metric: Metric) -> str:
        """Say why the target cannot be met, with the range that was measured."""
        search, option = self.search, self.option
        start = f"{self.name} cannot measure {metric}={search.target:g}"
        reason = next(reversed(search.refused.values()), "")
        if search.best is None:
            return f"{start}: {reason}"
        low, high = min(search.measured), max(search.measured)
        values = search.measured.values()
        text = (
            f"{start}: {option.name} from {low:g} to {high:g} measured {min(values):.4g} to "
            f"{max(values):.4g}"
        )
        if search.refused:
            text += f", and {next(reversed(search.refused)):g} is refused ({reason})"
        best = search.measured[search.best]
        text += f"; the closest is {best:.4g} at {search.best:g}: choose a target in this range"
        off = math.ceil(1000 * abs(best - search.target) / search.target) / 10
        return text if off > _ACCEPTABLE else f"{text}, or accept it with --tolerance {off:.1f}"


def match(
    attentions: Sequence[str],
    overrides: Sequence[str],
    target: Target,
    *,
    seeds: Sequence[int],
    budgets: Mapping[str, str],
) -> list[Candidate]:
    """Search the budget of each attention on the tuning split of the benchmark.

    In every step the attentions that are still searched are the arms of one job, which prefills
    each context once. All evaluations are kept below `output_root`, so that a search that was
    interrupted goes on, and one that is complete computes nothing.

    Args:
        attentions: presets.
        overrides: of the measured experiments, without attention and seed.
        target: the same for all of them.
        seeds: of the measured experiments.
        budgets: path of the option by name of the attention; that of "" holds for all others.

    Raises:
        ConfigurationError: if an attention has no budget or the configuration is wrong, before
            anything is computed.
    """
    candidates = _candidates(attentions, overrides, target, seeds, budgets)
    while step := _proposals(candidates):
        outcomes = compute_arms([one.at(value) for one, value in step])
        for (one, value), outcome in zip(step, outcomes, strict=True):
            if outcome.result is not None:
                one.add(value, outcome.result, target.metric)
                shown = f"{one.search.measured[value]:.4g}"
            elif isinstance(outcome.error, ConfigurationError):
                one.search.refused[value] = shown = str(outcome.error)
            else:
                assert outcome.error is not None, "an outcome has a result or an error"
                raise outcome.error
            text = f"{one.option.name}={value:g} measures {target.metric}"
            logger.info("%s: %s %s", one.name, text, shown)
    return candidates


def _candidates(
    attentions: Sequence[str],
    overrides: Sequence[str],
    target: Target,
    seeds: Sequence[int],
    budgets: Mapping[str, str],
) -> list[Candidate]:
    """Compose and check each attention, and find its budget."""
    quiet = compose(["metric_logging=off"])
    candidates, unused = [], dict(budgets)
    for attention in attentions:
        typed = [*overrides, f"sparse_attention={attention}", f"seed={seeds[0]}"]
        config = compose(typed)
        check(config, typed)
        names = (attention, str(config.sparse_attention.name), "")
        found = next((name for name in names if name in budgets), None)
        unused.pop(found or "", None)
        path = None if found is None else budgets[found]
        candidates.append(Candidate(config, typed, quiet, target, budget=path, seeds=seeds))
    for name, path in unused.items():
        raise ConfigurationError(
            f"--budget {name}={path}: no attention of this name is matched; give one of "
            f"{', '.join(one.name for one in candidates)}, or the path alone for all of them"
        )
    _require_different_names(candidates)
    return candidates


def _proposals(candidates: Sequence[Candidate]) -> list[tuple[Candidate, float]]:
    proposed = [(one, one.search.propose()) for one in candidates]
    return [(one, value) for one, value in proposed if value is not None]


def _evaluation(
    config: DictConfig, quiet: DictConfig, target: Target, seeds: Sequence[int]
) -> DictConfig:
    """Return the experiment on the tuning split, without metrics and in a folder of its own."""
    changed = config.copy()
    with open_dict(changed):
        changed.benchmark = of_config(
            _contents(config, "benchmark"), seeds=seeds, contexts=target.contexts
        )
        changed.metric_logging = quiet.metric_logging
        changed.tracker = quiet.tracker
        changed.output_root = str(Path(config.output_root) / FOLDER)
        changed.resume = True
    return changed


def _contents(config: DictConfig, name: str) -> dict[str, Any]:
    container = OmegaConf.to_container(config[name], resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _require_different_names(candidates: Sequence[Candidate]) -> None:
    names = [one.name for one in candidates]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(
            f"attention= has {names.count(twice)} presets with the name {twice}, which would be "
            "saved under one name; match them one at a time, or give each its own name"
        )
