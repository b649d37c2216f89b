"""The plan of a sweep on a terminal of 80 columns, and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import orjson
from rich.console import Console
from rich.text import Text

from sah.cli.arguments.parser import wrapped
from sah.cli.planning.planned_jobs import PlannedJob
from sah.doctor.finding import counted, sized
from sah.launching.forecast.composing import PlannedSweep
from sah.launching.forecast.forecast import JobForecast, seconds_with_slots
from sah.report.tables.layout import show
from sah.report.tables.state_table import duration
from sah.report.tables.table import Cell, Column, Table, compact, label
from sah.results.show import folder_argument
from sah.terminal import plain

_MOST_JOBS = 20
_UNKNOWN = "unknown"
_ATTENTION = ("attention", "sparse_attention")
_LONGER = 2.0
"""How much longer than the measured prompts those of a job may be without a note."""


def show_plan(
    sweep: PlannedSweep, jobs: Sequence[PlannedJob], command: str, console: Console
) -> None:
    """Show how many experiments do what, the jobs, totals, and the next command.

    Args:
        sweep: the planned sweep.
        jobs: of its bundles, in order.
        command: the command that starts it.
        console: where it is shown.
    """
    lines = [_counts(sweep)]
    for plan in sweep.plans:
        if plan.problems:
            lines += [f"{plan.refused} refused, so that nothing would start:"]
            lines += [plan.describe_problems()]
    console.print(Text(plain("\n".join(lines))), soft_wrap=True)
    if jobs:
        console.print()
        show(_table(jobs), console, advice="--json has every value")
        if len(jobs) > _MOST_JOBS:
            console.print(Text(f"and {len(jobs) - _MOST_JOBS} more; --json has every job"))
        console.print()
        for line in _totals(sweep, jobs):
            console.print(Text(wrapped(plain(line), indent="  ")), soft_wrap=True)
    if any(plan.problems for plan in sweep.plans):
        command = "correct what is refused, and plan again"
    elif not jobs:
        command = f"sah report{folder_argument([sweep.output_root])}"
    console.print(Text(plain(f"next: {command}")), soft_wrap=True)


def _counts(sweep: PlannedSweep) -> str:
    def count(cells: str) -> int:
        return sum(len(getattr(plan, cells)) for plan in sweep.plans)

    refused = sum(plan.refused for plan in sweep.plans)
    total = count("cells") + refused
    parts = [
        f"{number} {name}"
        for number, name in (
            (count("finished"), "complete"),
            (count("repeated"), "duplicate"),
            (refused, "refused"),
            (count("pending"), "to run"),
        )
        if number
    ]
    jobs = counted(len(sweep.bundles), "job")
    at_once = "could start now" if sweep.launcher == "slurm" else "at a time"
    how = f" in {jobs}, {sweep.slots} {at_once}" if sweep.bundles else ""
    return f"{counted(total, 'experiment')}: {', '.join(parts)}{how}"


def _table(jobs: Sequence[PlannedJob]) -> Table:
    settings = _differing(jobs)
    columns = [
        *(Column(name=name, header=name, numeric=False) for name in settings[0]),
        Column(name="arms", header="arms", numeric=False),
        Column(name="contexts", header="contexts"),
        Column(name="answers", header="answers", importance=1),
        Column(name="prefill_tokens", header="prefill"),
        Column(name="new_tokens", header="decode"),
        Column(name="memory", header="memory"),
        Column(name="time", header="time"),
    ]
    rows = [
        [*map(label, values.values()), *_numbers(job)]
        for job, values in zip(jobs[:_MOST_JOBS], settings, strict=False)
    ]
    # What is unknown of every job is said below.
    kept = [n for n in range(len(columns)) if any(row[n].text != _UNKNOWN for row in rows)]
    return Table(
        columns=[columns[n] for n in kept],
        rows=[[row[n] for n in kept] for row in rows],
        caption=_title(jobs),
    )


def _title(jobs: Sequence[PlannedJob]) -> str:
    """Name model, benchmark and subset where all jobs have the same."""
    cells = [job.forecast.bundle.cells[0].planned for job in jobs]
    names = [{cell.model for cell in cells}, {cell.benchmark for cell in cells}]
    names += [{cell.subset for cell in cells}] if len(names[1]) == 1 else []
    return "  ".join(name for (name, *others) in names if not others and name != "all")


def _numbers(job: PlannedJob) -> list[Cell]:
    one, sizes = job.forecast, job.forecast.sizes
    return [
        label(_arms(job)),
        _known(None if sizes is None else sizes.contexts, is_bound=False),
        _known(None if sizes is None else sizes.answers, is_bound=False),
        _known(one.prefill_tokens, is_bound=sizes is None or not sizes.is_counted),
        _known(one.new_tokens, is_bound=True),
        label(_UNKNOWN if job.memory is None else sized(job.memory.total)),
        label(_UNKNOWN if one.seconds is None else _time_of(one)),
    ]


def _time_of(job: JobForecast) -> str:
    return f"{'≥ ' if job.rates.bound else ''}{duration(job.seconds or 0.0)}"


def _arms(job: PlannedJob) -> str:
    cells = job.forecast.bundle.cells
    return cells[0].planned.attention if len(cells) == 1 else str(len(cells))


def _known(number: int | None, *, is_bound: bool) -> Cell:
    if number is None:
        return Cell(text=_UNKNOWN)
    shown = compact(number)
    return Cell(text=f"≤ {shown.text}" if is_bound and number else shown.text, value=number)


def _differing(jobs: Sequence[PlannedJob]) -> list[dict[str, str]]:
    """Return, for each job, the overrides that tell it from others: those that its arms share."""
    given: list[dict[str, str]] = []
    for job in jobs:
        texts = [cell.planned.overrides for cell in job.forecast.bundle.cells]
        shared = [word for word in texts[0] if all(word in text for text in texts)]
        parts = [word.lstrip("+~").partition("=") for word in shared]
        given.append({key: value for key, _, value in parts})
    keys = dict.fromkeys(key for one in given for key in one if key not in _ATTENTION)
    differing = [key for key in keys if len({one.get(key) for one in given}) > 1]
    ends = [key.rpartition(".")[2] for key in differing]
    headers = {
        key: end if ends.count(end) == 1 else key for key, end in zip(differing, ends, strict=True)
    }
    return [{headers[key]: one.get(key, "") for key in differing} for one in given]


def _totals(sweep: PlannedSweep, jobs: Sequence[PlannedJob]) -> list[str]:
    arms = [cell.planned.attention for job in jobs for cell in job.forecast.bundle.cells]
    lines = [
        f"arms: {', '.join(dict.fromkeys(arms))}",
        *_total(jobs, "prefill", [job.forecast.prefill_tokens for job in jobs]),
        *_total(jobs, "decode", [job.forecast.new_tokens for job in jobs]),
        *_memory(jobs),
        *_time(sweep, jobs),
    ]
    reasons = [job.forecast.unknown for job in jobs] + [job.memory_unknown for job in jobs]
    for reason in dict.fromkeys(filter(None, reasons)):
        lines.append(f"unknown: {reason}")
    follow_ups = sum(
        len(job.forecast.experiments) * job.forecast.sizes.follow_ups
        for job in jobs
        if job.forecast.sizes is not None
    )
    if follow_ups:
        lines.append(f"not counted: the second requests of {counted(follow_ups, 'answer')}")
    return lines


def _total(jobs: Sequence[PlannedJob], verb: str, numbers: Sequence[int | None]) -> list[str]:
    known = [number for number in numbers if number is not None]
    if not known:
        return []
    sizes = [job.forecast.sizes for job in jobs if job.forecast.sizes is not None]
    is_exact = verb == "prefill" and all(one.is_counted for one in sizes)
    rest = len(numbers) - len(known)
    but = f", and {counted(rest, 'job')} of unknown size" if rest else ""
    return [f"to {verb}: {'' if is_exact else 'at most '}{sum(known):,} tokens{but}"]


def _memory(jobs: Sequence[PlannedJob]) -> list[str]:
    known = [(job.memory, job) for job in jobs if job.memory is not None]
    if not known:
        return []
    needed, job = max(known, key=lambda one: one[0].total)
    together = f", rows side by side {sized(needed.side_by_side)}" if needed.side_by_side else ""
    return [
        f"memory: the largest job needs about {sized(needed.total)} ({job.dtype} weights "
        f"{sized(needed.weights)}, cache {sized(needed.cache)}{together})"
    ]


def _time(sweep: PlannedSweep, jobs: Sequence[PlannedJob]) -> list[str]:
    seconds = [job.forecast.seconds for job in jobs if job.forecast.seconds is not None]
    if not seconds:
        return []
    is_bound = any(job.forecast.rates.bound for job in jobs)
    whole = f"{'at least' if is_bound else 'about'} {duration(sum(seconds))}"
    if len(seconds) < len(jobs):
        whole += f" for the {counted(len(seconds), 'job')} whose time is known"
    whole += f" if every {'prompt and answer' if is_bound else 'answer'} reaches its limit"
    if sweep.launcher != "slurm" and sweep.slots > 1 and len(seconds) > 1:
        shorter = duration(seconds_with_slots(seconds, sweep.slots))
        whole += f", {shorter} with {sweep.slots} jobs at a time"
    if len(seconds) > 1:
        whole += f"; the longest job {duration(max(seconds))}"
    by_model: dict[str, list[PlannedJob]] = {}
    for job in jobs:
        if job.forecast.seconds is not None:
            by_model.setdefault(repr(job.first.model), []).append(job)
    return [f"time: {whole}", *map(_rates_used, by_model.values())]


def _rates_used(jobs: Sequence[PlannedJob]) -> str:
    """Describe the rates of one model, and whether its prompts are longer than those measured."""
    model, rates = jobs[0].first.model.name, jobs[0].forecast.rates
    decode = rates.decode_by_attention.values() or [rates.decode or 0.0]
    shown = dict.fromkeys(compact(value).text for value in (min(decode), max(decode)))
    if rates.bound:
        fastest = max(job.forecast.rates.decode or 0.0 for job in jobs)
        return (
            f"a lower bound, not a forecast: {model} prefills at most "
            f"{compact(rates.prefill).text} and decodes at most {compact(fastest).text} "
            f"tokens/s at the peak of {rates.device} ({rates.bound}), by its weights alone"
        )
    speed = (
        f"rates of {model}: prefill {compact(rates.prefill).text}, decode {' to '.join(shown)} "
        "tokens/s"
    )
    if not rates.experiments:
        return f"{speed}, as given"
    source = f"{speed}, from {counted(rates.experiments, 'finished experiment')} on {rates.device}"
    sizes = [job.forecast.sizes for job in jobs]
    planned = max((one.longest for one in sizes if one is not None and one.longest), default=0)
    measured = rates.longest_prompt
    if measured is not None and planned > _LONGER * measured:
        source += (
            f"; at most {measured:,.0f} tokens a prompt, and {planned:,} take longer per token"
        )
    return source


def plan_json(sweep: PlannedSweep, jobs: Sequence[PlannedJob]) -> str:
    """Return the plan as JSON; what is unknown is null, with its reason."""
    content = {
        "complete": sum(len(plan.finished) for plan in sweep.plans),
        "duplicate": sum(len(plan.repeated) for plan in sweep.plans),
        "to_run": sum(len(plan.pending) for plan in sweep.plans),
        "refused": [
            {"reason": reason, "overrides": cells}
            for plan in sweep.plans
            for reason, cells in plan.problems.items()
        ],
        "slots": sweep.slots,
        "jobs": [_job_json(job) for job in jobs],
    }
    return orjson.dumps(content, option=orjson.OPT_INDENT_2).decode()


def _job_json(job: PlannedJob) -> dict[str, Any]:
    one, sizes, memory = job.forecast, job.forecast.sizes, job.memory
    return {
        "arms": [
            {"attention": cell.planned.attention, "overrides": cell.planned.overrides}
            for cell in one.bundle.cells
        ],
        "model": job.first.model.name,
        "benchmark": job.first.benchmark.name,
        "sizes_of_one_arm": None if sizes is None else asdict(sizes),
        "prefill_tokens": one.prefill_tokens,
        "new_tokens": one.new_tokens,
        "memory_bytes": None if memory is None else asdict(memory) | {"total": memory.total},
        "dtype": job.dtype,
        "seconds": one.seconds,
        "rates": asdict(one.rates),
        "unknown": list(filter(None, (one.unknown, job.memory_unknown))),
    }
