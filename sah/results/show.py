"""The small table at the end of an experiment."""

from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sah.terminal import plain


def show_results(results: dict[str, Any], folder: Path) -> None:
    """Show the scores of one experiment and where its files are; fits 80 columns."""
    console = Console(highlight=False)
    console.print(Text(plain(_title(results)), style="bold"))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in ("task", "score", "stderr", "n"):
        table.add_column(column, justify="left" if column == "task" else "right")
    for task, values in results["tasks"].items():
        # Text, not markup: a data set of one's own names its tasks.
        table.add_row(
            Text(plain(task)), _number(values["score"]), _number(values["stderr"]), str(values["n"])
        )
    if len(results["tasks"]) > 1:
        table.add_section()
        overall = (_number(results["score"]), _number(results["stderr"]), str(results["n"]))
        table.add_row("all (mean of tasks)", *overall)
    console.print(table)
    timing = results["timing"]
    measured = {name: _number(results[name]) for name in ("density", "output_error", "recall")}
    console.print(
        f"density {measured['density']}   output error {measured['output_error']}   "
        f"recall {measured['recall']}"
    )
    agreement = results.get("dense_agreement")
    if agreement is not None:
        console.print(
            f"dense agreement: KL {agreement['kl']:.4f} nats   "
            f"top token agrees {_number(agreement['top_agreement'])}   "
            f"({agreement['tokens']} tokens)"
        )
    console.print(
        f"prefill {_rate(timing['context_tokens'], timing['prefill_seconds'])}   "
        f"decode {_rate(timing['new_tokens'], timing['decode_seconds'])}"
    )
    # Never folded or cut: a path is there to be copied.
    console.print(Text(plain(_shortest(folder))), soft_wrap=True)


def _shortest(folder: Path) -> str:
    """Relative below the current directory, absolute elsewhere."""
    folder = folder.absolute()
    return str(folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder)


def _title(results: dict[str, Any]) -> str:
    subset = results["subset"]
    if isinstance(subset, list):
        subset = ", ".join(subset)
    return (
        f"{results['model']}  {results['attention']}  {results['benchmark']}"
        + (f" {subset}" if subset else "")
        + ("" if results["protocol"] == "default" else f"  ({results['protocol']})")
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _rate(tokens: int, seconds: float) -> str:
    return f"{tokens / seconds:.1f} tokens/s" if seconds > 0 else "-"
