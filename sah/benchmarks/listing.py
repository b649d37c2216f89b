"""The list of benchmarks, for `sah benchmarks` and for the table in docs/benchmarks.md."""

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

from sah.content import CONTENT
from sah.types import Benchmark


@dataclass(frozen=True, kw_only=True)
class Listed:
    """The description of one option of the benchmark group."""

    name: str
    aliases: tuple[str, ...]
    title: str
    licence: str
    source: str
    offline: bool
    """Whether its data are generated or installed with packages."""
    is_here: bool
    revision: str
    """Whether its data are pinned to a commit; empty if they are not from the Hub."""
    subsets: tuple[str, ...]
    answer_limits: Mapping[str, int]
    """Default answer limit by subset, where there is one."""
    scores: Mapping[str, str]
    """Name of the score by subset; "" stands for all others."""
    without_chat_template: tuple[str, ...]
    """Subsets whose prompts have no chat template unless it is asked for."""


def listed_benchmarks(folder: Path) -> Iterator[Listed]:
    """Describe each benchmark of a folder of the group."""
    nodes: dict[str, Any] = {
        path.stem: OmegaConf.to_container(OmegaConf.load(path))
        for path in sorted(folder.glob("*.yaml"))
    }
    # A file with nothing but a default is an alias.
    named = {name: node["defaults"] for name, node in nodes.items() if set(node) == {"defaults"}}
    for name, node in nodes.items():
        if name not in named:
            yield _listed(name, node, tuple(other for other in named if named[other] == [name]))


def show_benchmarks(folder: Path) -> None:
    """Print all benchmarks with their data, licences and subsets."""
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
    """Return the table of docs/benchmarks.md."""
    lines = [
        "| `benchmark=` | what | tasks | score | chat template | data | licence | "
        "without a network |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for item in listed_benchmarks(folder):
        scores = ", ".join(f"`{name}`" for name in dict.fromkeys(item.scores.values()))
        tasks = ", ".join(f"`{name}`" for name in item.subsets) or "those in the file"
        offline = "yes" if item.offline else "with its files"
        names = ", ".join(f"`{name}`" for name in (item.name, *item.aliases))
        lines.append(
            f"| {names} | {item.title} | {tasks} | {scores} | {_templates(item)} | "
            f"{item.source} | {item.licence} | {offline} |"
        )
    return "\n".join(lines) + "\n"


def _listed(name: str, node: Any, aliases: tuple[str, ...]) -> Listed:
    kind: type[Benchmark] = get_class(node["_target_"])
    datasets: tuple[str, ...] = ()
    is_here, revision = True, ""
    # With a mandatory value missing, such as a path, only the class can be described.
    if "???" not in node.values():
        # Without its content: nothing is read.
        every = {key: None if key in ("subset", CONTENT) else value for key, value in node.items()}
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
        without_chat_template=kind.without_chat_template(),
    )


def _grouped(item: Listed) -> Iterator[tuple[str, str, str, str]]:
    """Yield one row for all subsets with the same answer limit, scorer and use of the template."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for subset in item.subsets:
        tokens = item.answer_limits.get(subset)
        limit = "" if tokens is None else f"{tokens} tokens"
        score = item.scores.get(subset, item.scores.get("", ""))
        template = "no chat template" if subset in item.without_chat_template else ""
        groups.setdefault((limit, score, template), []).append(subset)
    for row, subsets in groups.items():
        yield " ".join(subsets), *row


def _templates(item: Listed) -> str:
    """Say for which subsets the chat template is used."""
    without = item.without_chat_template
    if not without:
        return "yes"
    if set(without) == set(item.subsets):
        return "no"
    return f"not for {', '.join(f'`{name}`' for name in without)}"


def _where(item: Listed) -> str:
    if item.offline:
        return "no download needed"
    return "on this machine" if item.is_here else f"sah fetch benchmark={item.name}"


def _first_line(benchmark: Any) -> str:
    return (benchmark.__doc__ or "").strip().splitlines()[0].rstrip(".")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) < 4 else f"{names[0]} and {len(names) - 1} more"
