"""The forecast of a sweep: tokens and seconds of every job."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sah.errors import ConfigurationError, SahError
from sah.execution.experiment import Experiment
from sah.launching.bundles import Bundle
from sah.launching.forecast.rates import Rates
from sah.launching.forecast.workload import (
    PromptSizes,
    bound_prompts,
    count_prompts,
    prefills,
    require_bounded,
)
from sah.results.identity import resolved


@dataclass(frozen=True, kw_only=True)
class JobForecast:
    """What one job will do."""

    bundle: Bundle
    experiments: Sequence[Experiment]
    """Those of its arms."""
    sizes: PromptSizes | None = None
    """Of one arm; None if unknown."""
    prefill_tokens: int | None = None
    """Of all prefills of the job."""
    new_tokens: int | None = None
    """Of all arms."""
    rates: Rates
    seconds: float | None = None
    """A lower bound if the rates are bounds."""
    unknown: str = ""
    """Why numbers are None; empty if none is."""


class Forecaster:
    """Forecasts the jobs of a sweep; prompts and rates that jobs share are looked up once."""

    def __init__(
        self, rates_of: Callable[[Mapping[str, Any], Experiment, int], Rates], *, count: bool
    ) -> None:
        """Prepare.

        Args:
            rates_of: returns the rates of a model, given its configuration, an experiment, and how
                many answers are decoded together.
            count: whether to count tokens with the tokenizer instead of bounding them.
        """
        self._rates_of = rates_of
        self._count = count
        self._sizes: dict[str, PromptSizes | SahError] = {}
        self._rates: dict[str, Rates] = {}

    def job(self, bundle: Bundle) -> JobForecast:
        """Forecast a job."""
        configs = [cell.config for cell in bundle.cells]
        experiments = [Experiment.from_config(config) for config in configs]
        first = experiments[0]
        sizes = self._sizes_of(first)
        rows = first.generation.batch_rows if isinstance(sizes, SahError) else sizes.batch_rows
        key = repr((first.model, rows))
        if key not in self._rates:
            self._rates[key] = self._rates_of(resolved(configs[0].model), first, rows)
        job = JobForecast(bundle=bundle, experiments=experiments, rates=self._rates[key])
        if isinstance(sizes, SahError):
            return replace(job, unknown=str(sizes))
        try:
            job = replace(job, sizes=sizes, new_tokens=len(experiments) * sizes.new_tokens)
            tokens = prefills(experiments) * require_bounded(sizes, first.benchmark.name)
            job = replace(job, prefill_tokens=tokens)
            return replace(job, seconds=_seconds(job, sizes, tokens))
        except SahError as error:
            return replace(job, unknown=str(error))

    def _sizes_of(self, experiment: Experiment) -> PromptSizes | SahError:
        parts = (experiment.model, experiment.benchmark, experiment.generation, experiment.seed)
        key = repr(parts)
        if key not in self._sizes:
            try:
                self._sizes[key] = (count_prompts if self._count else bound_prompts)(experiment)
            except SahError as error:
                self._sizes[key] = error
        return self._sizes[key]


def _seconds(job: JobForecast, sizes: PromptSizes, prefill_tokens: int) -> float:
    """Return the seconds of a job at its rates.

    Raises:
        ConfigurationError: if they are unknown.
    """
    if not sizes.new_tokens:
        raise ConfigurationError(
            "the time to read continuations does not follow from rates of prefill and decoding"
        )
    rates = job.rates
    decode = [rates.decode_of(one.sparse_attention.name) for one in job.experiments]
    if rates.prefill is None or None in decode:
        raise ConfigurationError(rates.unknown)
    answering = sum(sizes.new_tokens / rate for rate in decode if rate is not None)
    return rates.load_seconds + prefill_tokens / rates.prefill + answering


def seconds_with_slots(seconds: Sequence[float], slots: int) -> float:
    """Return when the last job ends if each starts, in order, as soon as a slot is free."""
    free = [0.0] * slots
    for duration in seconds:
        heapq.heapreplace(free, free[0] + duration)
    return max(free)
