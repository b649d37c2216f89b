"""The table shown at the end of an experiment, and what to type next."""

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sah.results.disturbance import disturbances
from sah.results.schema import MeanScore, Result, Summary
from sah.terminal import plain


def show_result(result: Result) -> None:
    """Show the scores of an experiment and the path of its files, in 80 columns."""
    console = Console(highlight=False)
    console.print(Text(plain(result.title), style="bold"))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in ("task", "score", "stderr", "n"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for name, task in result.tasks.items():
        # Text, not markup: task names may come from a user's data set.
        table.add_row(Text(plain(name)), *_cells(task))
    if len(result.tasks) > 1:
        table.add_section()
        table.add_row("all (mean of tasks)", *_cells(result))
    console.print(table)
    console.print(
        f"density {_number(result.density)}   rows read {_number(result.rows_read)}   "
        f"output error {_number(result.output_error)}   recall {_number(result.recall)}"
    )
    if result.resident is not None and abs(result.resident - 1) >= 0.0005:
        console.print(f"resident {_number(result.resident)} of the dense cache")
    if result.own_indexer is not None:
        console.print(f"the model's own indexer was {result.own_indexer}")
    if result.prefill_density is not None and abs(result.prefill_density - 1) >= 0.0005:
        console.print(f"prefill density {_number(result.prefill_density)}")
    if (matched := result.matched) is not None:
        metric = matched["metric"]
        console.print(
            f"{metric} {_number(getattr(result, metric))}, matched to {matched['target']:g} "
            f"({_number(matched['measured'])} on the tuning split)"
        )
    agreement = result.dense_agreement
    if agreement is not None:
        console.print(
            f"dense agreement: KL {agreement.kl:.4f} nats   "
            f"top token agrees {_number(agreement.top_agreement)}   "
            f"({agreement.tokens} tokens)"
        )
    if result.unfinished_thoughts:
        console.print(
            f"{result.unfinished_thoughts} of {result.n} answers empty: unfinished thoughts "
            "(see generation.thinking_tokens)"
        )
    timing = result.timing
    console.print(
        f"prefill {_rate(timing.context_tokens, timing.prefill_seconds)}   "
        f"decode {_rate(timing.new_tokens, timing.decode_seconds)}{_condition(result)}"
    )
    # Neither wrapped nor truncated, so that the path can be copied.
    console.print(Text(plain(_shortest(result.directory))), soft_wrap=True)


def show_next(result: Result) -> None:
    """Say what to type after a single experiment: its dense baseline, a comparison, or a table."""
    Console(highlight=False).print(Text(plain(f"next: {_next_step(result)}")), soft_wrap=True)


def _next_step(result: Result) -> str:
    folder = folder_argument([result.directory.parents[3]])
    typed = sys.argv[1:]
    # A study may set values that dense attention does not have.
    if result.attention == "dense" or any(word.startswith("--config-n") for word in typed):
        return f"sah report{folder}"
    of_model, benchmark = result.directory.parents[2], result.directory.parent.name
    if any((of_model / "dense" / benchmark).glob("*/results.json")):
        return f"sah compare{folder}"
    kept = [word for word in typed if not re.match(r"[^=]*\b(sparse_)?attention\b", word)]
    return f"{command_line([*kept, 'attention=dense'])}    # the baseline"


def folder_argument(roots: Sequence[Path]) -> str:
    """Return output roots as an argument of `sah report`: empty for its default, `outputs`."""
    if [root.absolute() for root in roots] == [Path("outputs").absolute()]:
        return ""
    return "".join(f" {shlex.quote(_shortest(root))}" for root in roots)


def command_line(words: Sequence[str]) -> str:
    """Return the command that runs with these words what was typed, without resume=."""
    program = Path(sys.argv[0]).name
    start = ["python", sys.argv[0]] if program.endswith(".py") else [program, "run"]
    return shlex.join([*start, *(w for w in words if not w.lstrip("+").startswith("resume="))])


def _cells(mean: MeanScore | Summary) -> tuple[str, str, str]:
    return _number(mean.score), _number(mean.stderr), str(mean.n)


def _shortest(folder: Path) -> str:
    """Return the path relative to the current directory if it lies below, else absolute."""
    folder = folder.absolute()
    return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _condition(result: Result) -> str:
    """Say why the speed is hard to compare, if it is."""
    found = disturbances(result)
    return f" ({', '.join(found)})" if found else ""


def _rate(tokens: int, seconds: float) -> str:
    return f"{tokens / seconds:.1f} tokens/s" if seconds > 0 else "-"
