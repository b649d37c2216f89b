"""`sah benchmarks`: what there is to measure on, and docs/benchmarks.md from the same facts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sah.types import Benchmark


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One option of the benchmark group, as it is described."""

    name: str
    aliases: tuple[str, ...]
    title: str
    licence: str
    source: str
    offline: bool
    """Whether its data come with the packages, or are generated."""
    is_here: bool
    revision: str
    """Whether its data are pinned to a commit; empty for what does not come from the Hub."""
    subsets: tuple[str, ...]
    answer_limits: Mapping[str, int]
    """Limits of the answers by subset, where they are fixed."""
    scores: Mapping[str, str]
    """Names of the scorers by subset, where they are fixed."""


def listed_benchmarks(folder: Path) -> Iterator[Listed]:
    """Describe each benchmark of a config folder."""
    nodes: dict[str, Any] = {
        path.stem: OmegaConf.to_container(OmegaConf.load(path))
        for path in sorted(folder.glob("*.yaml"))
    }
    # A file that names another one and nothing else is a name of it.
    named = {name: node["defaults"] for name, node in nodes.items() if set(node) == {"defaults"}}
    for name, node in nodes.items():
        if name not in named:
            yield _listed(name, node, tuple(other for other in named if named[other] == [name]))


def show_benchmarks(folder: Path) -> None:
    """Show all benchmarks, each with where its data come from and with its subsets."""
    console = Console(highlight=False)
    for item in listed_benchmarks(folder):
        name = Text(" or ".join((item.name, *item.aliases)), style="bold")
        console.print(name, Text(item.title))
        console.print(Text(f"  data: {item.source} ({_where(item)}); licence: {item.licence}"))
        if item.revision:
            console.print(Text(f"  {item.revision}"), soft_wrap=True)
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=False)
        for row in _grouped(item):
            table.add_row("  ", *row)
        if item.subsets:
            console.print(table)


def markdown_table(folder: Path) -> str:
    """The table of docs/benchmarks.md."""
    lines = [
        "| `benchmark=` | what | tasks | score | data | licence | without a network |",
        "|---|---|---|---|---|---|---|",
    ]
    for item in listed_benchmarks(folder):
        scores = ", ".join(f"`{name}`" for name in dict.fromkeys(item.scores.values()))
        tasks = ", ".join(f"`{name}`" for name in item.subsets) or "those in the file"
        offline = "yes" if item.offline else "with its files"
        names = ", ".join(f"`{name}`" for name in (item.name, *item.aliases))
        lines.append(
            f"| {names} | {item.title} | {tasks} | {scores} | {item.source} | "
            f"{item.licence} | {offline} |"
        )
    return "\n".join(lines) + "\n"


def _listed(name: str, node: Any, aliases: tuple[str, ...]) -> Listed:
    kind: type[Benchmark] = get_class(node["_target_"])
    datasets: tuple[str, ...] = ()
    is_here, revision = True, ""
    # A benchmark with a mandatory value, such as a path, cannot be made without it.
    if "???" not in node.values():
        every = {key: None if key == "subset" else value for key, value in node.items()}
        benchmark: Benchmark = instantiate(every, _convert_="all")
        datasets = benchmark.hub_datasets()
        is_here, revision = benchmark.is_here(), benchmark.revision_note()
    return Listed(
        name=name,
        aliases=aliases,
        title=kind.title or _first_line(kind),
        licence=kind.licence,
        source=_some(datasets) if datasets else kind.data,
        offline=not datasets,
        is_here=is_here,
        revision=revision,
        subsets=kind.subsets(),
        answer_limits=kind.answer_limits(),
        scores=kind.score_names(),
    )


def _grouped(item: Listed) -> Iterator[tuple[str, str, str]]:
    """Subsets that are answered and scored alike, in one row."""
    groups: dict[tuple[str, str], list[str]] = {}
    for subset in item.subsets:
        tokens = item.answer_limits.get(subset)
        limit = "" if tokens is None else f"{tokens} tokens"
        score = item.scores.get(subset, item.scores.get("", ""))
        groups.setdefault((limit, score), []).append(subset)
    for (limit, score), subsets in groups.items():
        yield " ".join(subsets), limit, score


def _where(item: Listed) -> str:
    if item.offline:
        return "always here"
    return "on this machine" if item.is_here else f"sah fetch benchmark={item.name}"


def _first_line(benchmark: Any) -> str:
    return (benchmark.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} more"
