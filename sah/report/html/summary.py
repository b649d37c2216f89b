"""What a reader asks first: a sentence per claim, and the scores of all methods on all tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from sah.errors import ConfigurationError
from sah.report.figures.series import Point, panels, points, task_estimates
from sah.report.reading.order import natural
from sah.report.statistics.comparison import Comparison, Settings, compare
from sah.report.statistics.estimates import Estimate
from sah.report.statistics.pairing import Match, match
from sah.report.tables.comparison_table import p_value, shown_verdict, signed
from sah.report.tables.table import number
from sah.results.schema import Result

POOLED = ("seed", "benchmark.subset")
"""Experiments that differ only here are compared together."""

Colour = Literal["", "within", "worse", "alarm", "undecided", "uninformative"]
"""Colour of a claim or a cell; empty without a comparison."""

_MARKS: Mapping[Colour, str] = {
    "": "",
    "within": "=",
    "worse": "▼",
    "alarm": "▲",
    "undecided": "?",
    "uninformative": "○",
}
_RANKS: Sequence[Colour] = ("alarm", "worse", "within", "undecided", "uninformative")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A comparison of one method with dense attention, as a sentence."""

    colour: Colour
    text: str


@dataclass(frozen=True, kw_only=True)
class ScoreCell:
    """A score of a matrix."""

    text: str
    colour: Colour
    mark: str
    """The colour as a character, for print and for the colour-blind."""
    detail: str
    """Interval, difference and number of answers."""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Scores of methods (rows) on the tasks of a benchmark (columns), averaged over seeds."""

    title: str
    tasks: Sequence[str]
    rows: Sequence[tuple[str, str, Sequence[ScoreCell]]]
    """Method, its density, and a cell per task, then one for their average."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The first view of the page."""

    claims: Sequence[Claim]
    matrices: Sequence[Matrix]
    tests: int
    """Number of comparisons of the claims, which their p-values are corrected for."""
    task_tests: int
    """Number of comparisons of the cells of single tasks."""
    pooled: Sequence[str]
    """Keys whose values share a comparison, among POOLED."""
    problem: str
    """Why there are no claims; empty if there are."""
    left_out: Sequence[str]
    """Experiments that could not be compared, with the reason."""


@dataclass(frozen=True, kw_only=True)
class _Comparisons:
    overall: Mapping[Result, Comparison] = field(default_factory=dict)
    by_task: Mapping[tuple[Result, str], Comparison] = field(default_factory=dict)
    pooled: Sequence[str] = ()
    problem: str = ""
    left_out: Sequence[str] = ()

    @property
    def tests(self) -> int:
        return len({id(one) for one in self.overall.values()})

    @property
    def task_tests(self) -> int:
        return len({id(one) for one in self.by_task.values()})


def abstract(results: Sequence[Result]) -> str:
    """Say what the results are of, in numbers."""
    methods = {point.name for point in points(results)}
    counts = {
        "experiment": len(results),
        "model": len({result.model for result in results}),
        "method": len(methods),
        "benchmark": len({(result.benchmark, result.subset_name) for result in results}),
        "seed": len({result.settings.get("seed") for result in results}),
        "answer": sum(result.n for result in results),
    }
    parts = [f"{count:,} {name}{'' if count == 1 else 's'}" for name, count in counts.items()]
    dates = sorted(
        date[:10]
        for result in results
        for date in (result.provenance.started, result.provenance.finished)
        if date
    )
    when = "" if not dates else f"; run {' to '.join(dict.fromkeys((dates[0], dates[-1])))}"
    return f"{parts[0]}: {', '.join(parts[1:-1])}, {parts[-1]}{when}."


def summary(results: Sequence[Result]) -> Summary:
    """Compare every method with dense attention, with seeds and subsets pooled."""
    found = points(results, POOLED)
    compared = _compared(results)
    claims = [claim for point in found for claim in _claims(point, compared)]
    return Summary(
        claims=sorted(claims, key=lambda claim: _RANKS.index(claim.colour)),
        matrices=[_matrix(title, group, compared) for title, group in panels(found).items()],
        tests=compared.tests,
        task_tests=compared.task_tests,
        pooled=compared.pooled,
        problem=compared.problem,
        left_out=compared.left_out,
    )


def _compared(results: Sequence[Result]) -> _Comparisons:
    known = {key for result in results for key in result.settings}
    try:
        pool = [key for key in POOLED if key in known]
        matches, unmatched = match(results, {"attention": ["dense"]}, pool)
    except ConfigurationError as error:
        return _Comparisons(problem=str(error))
    if not matches and not unmatched:
        return _Comparisons(
            problem="Every experiment is dense; add a method, for example attention=dense,quest."
        )
    overall, refused = compare(matches, Settings())
    per_task, _ = compare(matches, Settings(), per_task=True)
    missing = [*((Match(results=[one], baselines=[]), why) for one, why in unmatched), *refused]
    return _Comparisons(
        overall={result: one for one in overall for result in one.match.results},
        by_task={
            (result, one.task): one
            for one in per_task
            for result in one.match.results
            if one.task is not None
        },
        pooled=pool,
        problem="" if overall else "No experiment can be compared with dense attention.",
        left_out=[
            f"{one.results[0].attention} on {one.results[0].benchmark} "
            f"{one.results[0].fingerprint}: {why}"
            for one, why in missing
        ],
    )


def _claims(point: Point, compared: _Comparisons) -> list[Claim]:
    found = {id(one): one for one in map(compared.overall.get, point.results) if one is not None}
    return [Claim(colour=_colour(one), text=_sentence(point, one)) for one in found.values()]


def _sentence(point: Point, comparison: Comparison) -> str:
    cost = "" if point.density is None else f" at density {point.density:.3g}"
    statement, evidence = _statement(comparison), _evidence(comparison)
    if " points " not in statement:
        evidence = f"difference {signed(comparison.difference)}, {evidence}"
    return f"{point.name}{cost} {statement} on {point.panel} ({evidence})."


def _statement(comparison: Comparison) -> str:
    """Say how a method does beside dense attention, as far as the tests show it."""
    distance = f"{abs(100 * comparison.difference):.1f} points"
    if comparison.uninformative is not None:
        return (
            f"cannot be told apart from dense attention, which is at the {comparison.uninformative}"
        )
    if comparison.verdict == "within":
        return "is within 1 point of dense attention"
    if comparison.verdict == "worse":
        return f"loses {distance} against dense attention"
    if comparison.verdict == "better":
        return f"scores {distance} above dense attention (usually a bug)"
    if comparison.direction is not None:
        less_or_more = "below" if comparison.direction == "worse" else "above"
        doubt = "not significantly after correction"
        if comparison.significant:
            doubt = "perhaps by less than 1 point"
        return f"scores {distance} {less_or_more} dense attention, but {doubt},"
    if comparison.needed is None:
        return "has too few answers to be compared with dense attention"
    needed = shown_verdict(comparison).removeprefix("? ")
    return f"is not shown to be within 1 point of dense attention or to differ ({needed})"


def _evidence(comparison: Comparison) -> str:
    interval = comparison.interval
    limits = "no interval with fewer than two contexts"
    if interval is not None:
        limits = f"95 % CI {signed(interval.low)} to {signed(interval.high)}"
    p = comparison.adjusted_p_value
    test = "" if p is None else f", Holm p {p_value(p)}"
    flips = f"+{comparison.gained} −{comparison.lost}"
    return f"{limits}{test}, flips {flips}, n = {comparison.pairs}"


def _colour(comparison: Comparison | None) -> Colour:
    if comparison is None:
        return ""
    if comparison.suspicious:
        return "alarm"
    if comparison.uninformative is not None:
        return "uninformative"
    return "undecided" if comparison.verdict == "better" else comparison.verdict


def _matrix(title: str, group: Sequence[Point], compared: _Comparisons) -> Matrix:
    estimates = [task_estimates(point.results) for point in group]
    tasks = sorted({task for one in estimates for task in one}, key=natural)
    ordered = sorted(
        zip(group, estimates, strict=True), key=lambda item: item[0].attention != "dense"
    )
    rows = []
    for point, of_tasks in ordered:
        shown = point.results
        cells = [
            _cell(of_tasks.get(task), _only([compared.by_task.get((r, task)) for r in shown]))
            for task in tasks
        ]
        # The mean of some of the tasks is not comparable with that of all.
        whole = point.estimate if len(of_tasks) == len(tasks) else None
        cells.append(_cell(whole, _only([compared.overall.get(r) for r in shown])))
        density = "–" if point.density is None else f"{point.density:.3g}"
        rows.append((point.name, density, cells))
    return Matrix(title=title, tasks=tasks, rows=rows)


def _only(found: Sequence[Comparison | None]) -> Comparison | None:
    """Return the comparison of some results; None if they have none, or several."""
    distinct = {id(one): one for one in found if one is not None}
    return next(iter(distinct.values())) if len(distinct) == 1 else None


def _cell(estimate: Estimate | None, comparison: Comparison | None) -> ScoreCell:
    if estimate is None or estimate.score is None:
        return ScoreCell(text="–", colour="", mark="", detail="not measured")
    interval, detail = estimate.interval, f"n = {estimate.n}"
    if interval is not None:
        low, high = number(interval.low, 1, 100).text, number(interval.high, 1, 100).text
        detail = f"95 % CI {low}–{high}, {detail}"
    if comparison is not None:
        difference = f"{signed(comparison.difference)} against dense"
        verdict = shown_verdict(comparison).replace("? ", "undecided, ")
        detail += f"; {difference}: {verdict}, {_evidence(comparison)}"
    colour = _colour(comparison)
    text = number(estimate.score, 1, 100).text
    return ScoreCell(text=text, colour=colour, mark=_MARKS[colour], detail=detail)
