"""The jobs of a planned sweep: tokens, seconds and memory."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from sah.doctor.memory_estimate import MemoryEstimate, estimate_memory
from sah.errors import SahError
from sah.execution.experiment import Experiment
from sah.launching.forecast.bounds import Device
from sah.launching.forecast.composing import PlannedSweep
from sah.launching.forecast.forecast import Forecaster, JobForecast
from sah.launching.forecast.rates import Rates, measured_rates
from sah.models.hub import resolve_device_and_dtype
from sah.models.loading.outline import ModelOutline
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
    sweep: PlannedSweep, *, rates: tuple[float, float] | None, device: Device | None, count: bool
) -> list[PlannedJob]:
    """Forecast the jobs of a sweep.

    Args:
        sweep: the planned sweep.
        rates: tokens per second of prefill and decode; None measures them on finished experiments.
        device: whose peak numbers bound the time instead.
        count: whether to count the tokens of prompts with the tokenizer.
    """
    results: list[Result] = []
    if (rates, device) == (None, None) and sweep.bundles and sweep.output_root.is_dir():
        contents = find([sweep.output_root]).contents.values()
        results = [one for one in contents if isinstance(one, Result)]
    # A login node has no GPU.
    is_gpu = device is not None or (sweep.launcher == "slurm" and sweep.gpus_per_job > 0)
    outlines = _Outlines(is_gpu=is_gpu)

    def rates_of(model: Mapping[str, Any], experiment: Experiment, rows: int) -> Rates:
        if rates is not None:
            return Rates(prefill=rates[0], decode=rates[1])
        if device is None:
            return measured_rates(results, model, device=_device(sweep, experiment))
        try:
            outline = outlines.of(experiment)
        except SahError as error:
            return Rates(unknown=f"time of {experiment.model.name}: {error}")
        return device.rates(outline.model, rows=rows, gpus=max(1, sweep.gpus_per_job))

    forecaster = Forecaster(rates_of, count=count)
    jobs = [forecaster.job(bundle) for bundle in sweep.bundles]
    return [_with_memory(job, outlines) for job in jobs]


def _device(sweep: PlannedSweep, experiment: Experiment) -> str | None:
    """Return the device that a job will use; None on a cluster."""
    if sweep.launcher == "slurm":
        return None
    device, _ = resolve_device_and_dtype(_setting(experiment, "device"), "auto")
    return device_name(device)


class _Outlines:
    """Models without weights, each made once."""

    def __init__(self, *, is_gpu: bool) -> None:
        """Prepare; `is_gpu` says that jobs run on a GPU, whatever this machine has."""
        self._is_gpu = is_gpu
        self._made: dict[str, ModelOutline] = {}

    def dtype(self, experiment: Experiment) -> torch.dtype:
        """Return the type that the weights will have."""
        device, dtype = _setting(experiment, "device"), _setting(experiment, "dtype")
        if self._is_gpu and (device, dtype) == ("auto", "auto"):
            dtype = "bfloat16"
        return resolve_device_and_dtype(device, dtype)[1]

    def of(self, experiment: Experiment) -> ModelOutline:
        """Return a model's outline.

        Raises:
            SahError: if it cannot be made.
        """
        dtype = self.dtype(experiment)
        key = repr((experiment.model, dtype))
        if key not in self._made:
            self._made[key] = experiment.model.outline(dtype)
        return self._made[key]


def _with_memory(job: JobForecast, outlines: _Outlines) -> PlannedJob:
    first = job.experiments[0]
    name = str(outlines.dtype(first)).removeprefix("torch.")
    longest = None if job.sizes is None else job.sizes.longest
    if longest is None:
        return PlannedJob(forecast=job, memory=None, memory_unknown=job.unknown, dtype=name)
    try:
        attentions = [one.sparse_attention for one in job.experiments]
        memory = estimate_memory(outlines.of(first), attentions, longest, first.generation)
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
