"""The table of `sah compare`."""

from collections.abc import Sequence

from sah.report.reading.caveats import caveats
from sah.report.reading.differences import METHOD, differing_keys, method_settings, short_names
from sah.report.reading.order import natural
from sah.report.reading.select import shown_value, value_of
from sah.report.statistics.answer_costs import AT_LIMIT, LONGER, AnswerCosts
from sah.report.statistics.comparison import CEILING, FLOOR, Comparison, Settings
from sah.report.statistics.estimates import differs_from_one, known_mean
from sah.report.statistics.pairing import Match
from sah.report.tables.table import Cell, Column, Table, label, number
from sah.results.schema import Result

_NUMBERS = (
    *("baseline_score", "score", "difference", "difference_low", "difference_high"),
    *("p_value", "adjusted_p_value", "equivalence_p_value", "gained", "lost"),
    *("pairs", "different_inputs", "different_references", "different_limits", "unanswered"),
    *("differing_contexts", "needed_low", "needed_high"),
    *("baseline_answer_tokens", "answer_tokens", "answer_length_p_value"),
    *("baseline_keys_read", "keys_read", "baseline_density", "density", "ended_at_limit"),
    *("baseline_resident", "resident", "baseline_prefill_density", "prefill_density"),
)

# Shown if a method differs from dense attention in them.
_SHARES = (
    Column(name="resident", header="resident", importance=2),
    Column(name="prefill_density", header="prefill", importance=2),
)

_VERDICTS = {"within": "yes", "worse": "no: worse", "better": "ALARM: better"}


def compare_table(
    comparisons: Sequence[Comparison],
    left_out: Sequence[tuple[Match, str]],
    settings: Settings,
    *,
    baseline: str,
    pooled: Sequence[str] = (),
    wide: bool = False,
) -> Table:
    """Return a table with one row per comparison.

    Args:
        comparisons: at least one.
        left_out: matches that could not be compared, each with the reason.
        settings: settings of the comparisons.
        baseline: the condition that chose the baselines.
        pooled: keys whose values were pooled; they do not become columns.
        wide: for programs: every number in its own column.
    """
    firsts = [comparison.match.results[0] for comparison in comparisons]
    keys = [key for key in differing_keys(firsts) if key not in pooled]
    of_method = [key for key in keys if key.startswith(METHOD)]
    names = ["model", "benchmark", "subset", "protocol"]
    common = [
        name for name in names if not wide and len({value_of(one, name) for one in firsts}) <= 1
    ]
    shown = [
        *(name for name in names if name not in common),
        *(key for key in keys if key not in of_method),
    ]
    headers = short_names(shown)
    columns = [Column(name=key, header=headers[key], numeric=False) for key in shown]
    if any(comparison.task for comparison in comparisons):
        columns.append(Column(name="task", header="task", numeric=False))
    columns.append(Column(name="method", header="method", numeric=False))
    measured = _measured_columns(comparisons, wide)
    shares = [column.name for column in _SHARES if column in measured]
    named = len(columns)
    columns += measured
    spelled = method_settings(firsts, of_method)
    rows, names_of_rows = [], []
    for comparison, first, setting in zip(comparisons, firsts, spelled, strict=True):
        cells = [label(shown_value(value_of(first, key))) for key in shown]
        if any(one.task for one in comparisons):
            cells.append(label(comparison.task))
        cells.append(label(f"{first.attention} {setting}".strip()))
        names_of_rows.append(" ".join(cell.text for cell in cells))
        rows.append(_styled([*cells, *_measured(comparison, wide, shares)], comparison))
    rows.sort(key=lambda row: [natural(cell.value) for cell in row[:named]])
    caption = "  ".join(
        str(value_of(firsts[0], name))
        for name in common
        if (name, value_of(firsts[0], name)) != ("protocol", "default")
    )
    return Table(
        columns=columns,
        rows=rows,
        caption=f"{caption}  against {baseline}".strip(),
        notes=_notes(comparisons, names_of_rows, left_out, settings),
    )


def _measured_columns(comparisons: Sequence[Comparison], wide: bool) -> list[Column]:
    if wide:
        texts = ("verdict", "longer_answers", "fingerprint", "baseline_fingerprint")
        return [
            *(Column(name=name, header=name) for name in _NUMBERS),
            *(Column(name=name, header=name, numeric=False) for name in texts),
        ]
    # Of equal lengths, the keys read follow from the density.
    importance = 9 if any(comparison.costs.is_longer for comparison in comparisons) else 1
    return [
        Column(name="baseline_score", header="base", importance=5),
        Column(name="score", header="score", importance=4),
        Column(name="difference", header="diff"),
        Column(name="difference_interval", header="95 % CI"),
        Column(name="flips", header="flips", importance=8),
        Column(name="p_value", header="p", importance=7),
        Column(name="adjusted_p_value", header="Holm p", importance=6),
        Column(name="length_ratio", header="length", importance=importance),
        Column(name="keys_ratio", header="keys", importance=importance),
        *(column for column in _SHARES if _differs_from_one(comparisons, column.name)),
        Column(name="pairs", header="n", importance=3),
        Column(name="verdict", header="within?", numeric=False),
    ]


def _differs_from_one(comparisons: Sequence[Comparison], name: str) -> bool:
    return any(differs_from_one(comparison.match.results, name) for comparison in comparisons)


def _measured(comparison: Comparison, wide: bool, shares: Sequence[str]) -> list[Cell]:
    interval, costs = comparison.interval, comparison.costs
    if wide:
        values = (
            comparison.baseline_score,
            comparison.score,
            comparison.difference,
            interval.low if interval else None,
            interval.high if interval else None,
            comparison.p_value,
            comparison.adjusted_p_value,
            comparison.equivalence_p_value,
            comparison.gained,
            comparison.lost,
            comparison.pairs,
            comparison.different_inputs,
            comparison.different_references,
            comparison.different_limits,
            comparison.unanswered,
            comparison.differing_contexts,
            *(comparison.needed or (None, None)),
            costs.baseline_tokens,
            costs.tokens,
            costs.p_value,
            costs.baseline_keys_read,
            costs.keys_read,
            costs.baseline_density,
            costs.density,
            costs.at_limit,
            *(
                known_mean(getattr(one, column.name) for one in results)
                for column in _SHARES
                for results in (comparison.match.baselines, comparison.match.results)
            ),
            comparison.verdict,
            "yes" if costs.is_longer else "",
            "+".join(one.fingerprint for one in comparison.match.results),
            "+".join(one.fingerprint for one in comparison.match.baselines),
        )
        return [Cell(text=str(value), value=value) for value in values]
    limits = "–"
    if interval is not None:
        limits = f"{signed(interval.low)} to {signed(interval.high)}"
        limits += "*" if comparison.few_differing else ""
    return [
        number(comparison.baseline_score, 1, 100),
        number(comparison.score, 1, 100),
        label(signed(comparison.difference)),
        label(limits),
        label(f"+{comparison.gained} −{comparison.lost}"),
        label(p_value(comparison.p_value)),
        label(p_value(comparison.adjusted_p_value)),
        number(costs.length_ratio, 2),
        number(costs.keys_ratio, 2),
        *(
            number(known_mean(getattr(one, name) for one in comparison.match.results))
            for name in shares
        ),
        Cell(text=str(comparison.pairs), value=comparison.pairs),
        label(shown_verdict(comparison) + (" †" if costs.is_longer else "")),
    ]


def shown_verdict(comparison: Comparison) -> str:
    """Return the verdict in a few words."""
    if comparison.uninformative is not None:
        return f"at {comparison.uninformative}"
    if comparison.verdict != "undecided":
        return _VERDICTS[comparison.verdict]
    if comparison.direction is not None:
        return f"? {comparison.direction}"
    if comparison.needed is None:
        return "too few"
    low, high = map(_rounded, comparison.needed)
    return f"? n≈{low}" if low == high else f"? n≈{low}–{high}"


def _styled(cells: list[Cell], comparison: Comparison) -> list[Cell]:
    style = ""
    if comparison.suspicious:
        style = "alarm"
    elif comparison.uninformative is not None:
        style = "dim"
    elif comparison.significant:
        style = "bold"
    return [Cell(text=cell.text, value=cell.value, style=style) for cell in cells]  # type: ignore[arg-type]


def _notes(
    comparisons: Sequence[Comparison],
    names: Sequence[str],
    left_out: Sequence[tuple[Match, str]],
    settings: Settings,
) -> list[str]:
    points = f"{100 * settings.margin:g} point{'' if settings.margin == 0.01 else 's'}"
    notes = [
        "Scores × 100, paired on identical inputs. CI and p are of the mean over tasks, from one "
        "distribution over contexts, not corrected: the CI excludes 0 exactly if p < .05. Holm p: "
        f"corrected for {len(comparisons)}; bold, worse and ALARM follow from it. flips: examples "
        "gained and lost. within?: yes if two one-sided tests at 5 % reject a difference beyond "
        f"{points}, ? if undecided; n≈: examples that show it with power .80 if the methods are "
        "equal. length, keys: tokens and keys read per answer, as multiples of the baseline's."
    ]
    if any(comparison.few_differing for comparison in comparisons):
        notes.append(
            "* Too few contexts differ (fewer than 10, or than half) for an exact test: CI and p "
            "allow for one more context that gains everything and one that loses everything."
        )
    alarms = sum(comparison.suspicious for comparison in comparisons)
    if alarms:
        notes.append(
            f"ALARM: {alarms} significantly better than the baseline. That is rare for a sparse "
            "method: look for a bug in the prompt or the mask first."
        )
    if any(comparison.uninformative for comparison in comparisons):
        notes.append(
            f"Grey, at floor or ceiling: the baseline scores at most {100 * FLOOR:g} or at least "
            f"{100 * CEILING:g}, so equal scores support no claim that methods are equally good."
        )
    notes += _length_notes(comparisons, names)
    pairs = sum(comparison.pairs for comparison in comparisons if comparison.task is None)
    # With one row per task, each row carries the counts of its whole match.
    matched = {id(comparison.match): comparison for comparison in comparisons}.values()
    uncompared = {
        "whose input tokens differ from the baseline's": sum(
            comparison.different_inputs for comparison in matched
        ),
        "whose references differ": sum(comparison.different_references for comparison in matched),
        "whose token limit differs": sum(comparison.different_limits for comparison in matched),
        "that only one side has": sum(comparison.unanswered for comparison in matched),
    }
    if any(uncompared.values()):
        counted = ", ".join(f"{count} {what}" for what, count in uncompared.items() if count)
        notes.append(f"WARNING: answers not compared: {counted}; compared: {pairs or 'see n'}.")
    notes += caveats(list(_results(comparisons)))
    for match, reason in left_out[:5]:
        notes.append(f"Not compared: {_shown(match)}: {reason}.")
    if len(left_out) > 5:
        notes.append(f"Not compared: {len(left_out) - 5} more.")
    return notes


def _length_notes(comparisons: Sequence[Comparison], names: Sequence[str]) -> list[str]:
    """Say which methods write longer answers, and what they read in total."""
    notes = []
    longer = [(one.costs, name) for one, name in zip(comparisons, names, strict=True)]
    longer = [(costs, name) for costs, name in longer if costs.is_longer]
    if longer:
        notes.append(
            f"† Longer answers: on average at least {LONGER:g} times as long as the baseline's to "
            "the same questions, p < .05 by the test of the scores (not corrected)."
        )
    notes += [f"† {name}: {_longer(costs)}." for costs, name in longer[:5]]
    if len(longer) > 5:
        notes.append(f"† {len(longer) - 5} more.")
    cut = sum(comparison.costs.is_cut for comparison in comparisons)
    if cut:
        notes.append(
            f"Lengths are cut in {cut} of {len(comparisons)} rows: more than {100 * AT_LIMIT:g} % "
            "of the answers of one side end at their token limit, so longer ones would not show."
        )
    return notes


def _longer(costs: AnswerCosts) -> str:
    density = "" if costs.density is None else f", at density {costs.density:.2f}"
    keys = "keys read in total were not recorded"
    if costs.keys_ratio is not None:
        keys = f"reads {costs.keys_ratio:.2f} of the baseline's keys in total"
    return f"{keys}{density}: its answers are {costs.length_ratio:.2f} times as long"


def _results(comparisons: Sequence[Comparison]) -> dict[Result, None]:
    matches = [comparison.match for comparison in comparisons]
    return dict.fromkeys(result for one in matches for result in (*one.results, *one.baselines))


def _shown(match: Match) -> str:
    one = match.results[0]
    return f"{one.model} {one.attention} {one.benchmark} {one.subset_name} {one.fingerprint}"


def signed(value: float) -> str:
    """Return a difference in points, with its sign."""
    text = f"{abs(100 * value):.1f}"
    return text if text == "0.0" else f"{'−' if value < 0 else '+'}{text}"


def p_value(value: float | None) -> str:
    """Return a p value to three digits, without the leading zero."""
    if value is None:
        return "–"
    return "<.001" if value < 0.001 else f"{value:.3f}"[1:] if value < 1 else "1"


def _rounded(value: int) -> str:
    """Round to two digits: it is an estimate."""
    digits = max(0, len(str(value)) - 2)
    return f"{round(value, -digits):,}"
