"""The jobs of a planned sweep: tokens, seconds and memory."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from sah.doctor.memory_estimate import MemoryEstimate, estimate_memory
from sah.errors import SahError
from sah.execution.experiment import Experiment
from sah.launching.forecast.composing import PlannedSweep
from sah.launching.forecast.forecast import Forecaster, JobForecast
from sah.launching.forecast.rates import Rates, measured_rates
from sah.models.hub import resolve_device_and_dtype
from sah.report.reading.collect import find
from sah.results.provenance import device_name
from sah.results.schema import Result


@dataclass(frozen=True, kw_only=True)
class PlannedJob:
    """A job with its forecast and memory."""

    forecast: JobForecast
    memory: MemoryEstimate | None
    memory_unknown: str = ""
    """Why it is None."""
    dtype: str

    @property
    def first(self) -> Experiment:
        """The experiment of its first arm."""
        return self.forecast.experiments[0]


def forecast_jobs(
    sweep: PlannedSweep, *, rates: tuple[float, float] | None, count: bool
) -> list[PlannedJob]:
    """Forecast the jobs of a sweep.

    Args:
        sweep: the planned sweep.
        rates: tokens per second of prefill and decode; None measures them on finished experiments.
        count: whether to count the tokens of prompts with the tokenizer.
    """
    results: list[Result] = []
    if rates is None and sweep.bundles and sweep.output_root.is_dir():
        contents = find([sweep.output_root]).contents.values()
        results = [one for one in contents if isinstance(one, Result)]

    def rates_of(model: Mapping[str, Any], experiment: Experiment) -> Rates:
        if rates is not None:
            return Rates(prefill=rates[0], decode=rates[1])
        return measured_rates(results, model, device=_device(sweep, experiment))

    forecaster = Forecaster(rates_of, count=count)
    outlines: dict[str, Any] = {}
    jobs = [forecaster.job(bundle) for bundle in sweep.bundles]
    return [_with_memory(job, sweep, outlines) for job in jobs]


def _device(sweep: PlannedSweep, experiment: Experiment) -> str | None:
    """Return the device that a job will use; None on a cluster."""
    if sweep.launcher == "slurm":
        return None
    device, _ = resolve_device_and_dtype(_setting(experiment, "device"), "auto")
    return device_name(device)


def _with_memory(job: JobForecast, sweep: PlannedSweep, outlines: dict[str, Any]) -> PlannedJob:

    first = job.experiments[0]
    device, dtype = _setting(first, "device"), _setting(first, "dtype")
    if sweep.launcher == "slurm" and sweep.gpus_per_job and (device, dtype) == ("auto", "auto"):
        # A login node has no GPU.
        dtype = "bfloat16"
    _, resolved = resolve_device_and_dtype(device, dtype)
    name = str(resolved).removeprefix("torch.")
    longest = None if job.sizes is None else job.sizes.longest
    if longest is None:
        return PlannedJob(forecast=job, memory=None, memory_unknown=job.unknown, dtype=name)
    key = repr((first.model, resolved))
    try:
        if key not in outlines:
            outlines[key] = first.model.outline(resolved)
        attentions = [one.sparse_attention for one in job.experiments]
        memory = estimate_memory(outlines[key], attentions, longest)
        # On the first GPU, which has the whole cache.
        parts = getattr(first.model, "tensor_parallel", None) or 1
        memory = replace(memory, weights=math.ceil(memory.weights / parts))
    except SahError as error:
        reason = f"memory of {first.model.name}: {error}"
        return PlannedJob(forecast=job, memory=None, memory_unknown=reason, dtype=name)
    return PlannedJob(forecast=job, memory=memory, dtype=name)


def _setting(experiment: Experiment, name: str) -> str:
    # A model of your own may have no such option.
    return str(getattr(experiment.model, name, "auto"))
