"""Draw docs/figures/architecture.svg from the imports between the packages of sah/.

`python docs/figures/architecture.py` writes the file. Boxes and arrows come from the code,
positions from PLACES; a package without a position is an error.
"""

import ast
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FIGURE = Path(__file__).with_suffix(".svg")

# What is drawn as one box: the entry points, and what every package may import.
ENTRY, FLOOR = "api, cli, hydra_plugins", "foundations"
TOGETHER = {
    ENTRY: ("api", "cli", "hydra_plugins"),
    # Every box may import them: arrows to them would hide the others.
    FLOOR: ("errors", "types", "seeding", "validation", "paths", "terminal", "content"),
}


class Place(NamedTuple):
    """Where a box is, in pixels, and the text below its name."""

    x: int
    """Centre."""
    row: int
    text: tuple[str, ...]
    width: int = 140
    kind: str = "part"
    """Its colour."""


PLACES = {
    ENTRY: Place(475, 0, ("Python or argv in, tables out; what Hydra loads",), 310, "entry"),
    "calibration": Place(91, 1, ("fits methods to a model",), 166, "tool"),
    "matching": Place(245, 1, ("matches budgets",), 118, "tool"),
    "doctor": Place(391, 1, ("checks before a sweep",), 150, "tool"),
    "launching": Place(577, 1, ("plans a sweep, runs its jobs",), 196, "tool"),
    "report": Place(872, 2, ("statistics, tables,", "figures, HTML"), 150, "tool"),
    "execution": Place(480, 2, ("an experiment at work:", "prefill, answer, score"), 230, "work"),
    "patterns": Place(50, 3, ("prefill reads,", "one file each"), 94),
    "evictors": Place(152, 3, ("which keys stay,", "one file each"), 102),
    "rewriters": Place(258, 3, ("what they hold,", "one file each"), 102),
    "maskers": Place(359, 3, ("what is read,", "one file each"), 92),
    "models": Place(457, 3, ("load, prefill,", "decode, rewind"), 96),
    "metric_logging": Place(573, 3, ("micro metrics",), 126),
    "benchmarks": Place(703, 3, ("examples and scores",), 126),
    "tracking": Place(815, 3, ("copies results",), 90),
    "attention": Place(250, 4, ("inputs, mask, indexes, fold,", "session in transformers"), 220),
    "results": Place(850, 4, ("identity, claim,", "files of an experiment"), 160),
    FLOOR: Place(475, 5, (", ".join(TOGETHER[FLOOR]) + ": imported by all",), 910, "floor"),
}

WIDTH, ROW, TOP = 955, 112, 8
HEIGHTS = {1: 46, 2: 60}


def module_name(path: Path) -> str:
    """Return the name under which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, Path]:
    """Find every module of the project, by name."""
    files = [path for folder in ("sah", "hydra_plugins") for path in (ROOT / folder).rglob("*.py")]
    return {module_name(path): path for path in sorted(files)}


def box_of(module: str) -> str:
    """Return the box of a module: its package, or the key of TOGETHER that contains it."""
    parts = module.split(".")
    name = parts[1] if parts[0] == "sah" else parts[0]
    for together, members in TOGETHER.items():
        if name in members:
            return together
    return name


def imports(path: Path, known: Mapping[str, Path]) -> Iterable[str]:
    """Find the modules of this project that a file imports, at any level."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in known else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def graph() -> dict[str, set[str]]:
    """Map each box to the boxes that it imports."""
    known = modules()
    boxes: dict[str, set[str]] = {}
    for module, path in known.items():
        # sah/__init__.py holds the version and the names of the API.
        if module == "sah":
            continue
        imported = {box_of(name) for name in imports(path, known) if name in known.keys() - {"sah"}}
        boxes.setdefault(box_of(module), set()).update(imported)
    return {box: others - {box} for box, others in boxes.items()}


def reachable(box: str, arrows: Mapping[str, set[str]]) -> set[str]:
    """Return everything that a box imports, directly or through others."""
    found = set(arrows[box])
    for other in arrows[box]:
        found |= reachable(other, arrows)
    return found


def shown_arrows() -> list[tuple[str, str]]:
    """Return the arrows that do not follow from two others, without those to the foundations."""
    arrows = {box: others - {FLOOR} for box, others in graph().items()}
    return [
        (box, other)
        for box, others in sorted(arrows.items())
        for other in sorted(others)
        if not any(other in reachable(between, arrows) for between in others - {other})
    ]


def height(place: Place) -> int:
    """Return the height of a box in pixels."""
    return HEIGHTS[len(place.text)]


def top(place: Place) -> int:
    """Return the upper edge of a box; boxes of a row are centred on one line."""
    return TOP + place.row * ROW + (60 - height(place)) // 2


def port(box: str, other: str, neighbours: list[str]) -> float:
    """Return the x of a box's arrow to or from another one; arrows keep the order of their ends."""
    place = PLACES[box]
    in_order = sorted(neighbours, key=lambda name: PLACES[name].x)
    share = (in_order.index(other) + 1) / (len(in_order) + 1)
    return place.x + (share - 0.5) * place.width * 0.8


def arrow(source: str, target: str, arrows: list[tuple[str, str]]) -> str:
    """Draw a curve from the lower edge of one box to the upper edge of another."""
    start = port(source, target, [other for box, other in arrows if box == source])
    end = port(target, source, [box for box, other in arrows if other == target])
    begin = top(PLACES[source]) + height(PLACES[source])
    stop = top(PLACES[target]) - 5
    bend = (stop - begin) * 0.7
    return (
        f'<path d="M{start:.0f},{begin} C{start:.0f},{begin + bend:.0f} '
        f'{end:.0f},{stop - bend:.0f} {end:.0f},{stop}"/>'
    )


def box(name: str) -> str:
    """Draw a box with its name and its purpose."""
    place = PLACES[name]
    y = top(place)
    lines = [
        f'<text x="{place.x}" y="{y + 35 + 14 * number}" class="what">{escape(line)}</text>'
        for number, line in enumerate(place.text)
    ]
    return "\n".join(
        [
            f'<g id="{escape(name)}">',
            f'<rect class="{place.kind}" x="{place.x - place.width / 2:g}" y="{y}" '
            f'width="{place.width}" height="{height(place)}" rx="6"/>',
            f'<text x="{place.x}" y="{y + 19}" class="name">{escape(name)}</text>',
            *lines,
            "</g>",
        ]
    )


def draw() -> str:
    """Draw the figure.

    Raises:
        ValueError: if the packages of the code differ from PLACES, or one imports upwards.
    """
    found = graph().keys()
    if found != PLACES.keys():
        raise ValueError(
            f"{Path(__file__).name}: PLACES and the code differ in {sorted(found ^ PLACES.keys())}"
        )
    arrows = shown_arrows()
    for source, target in arrows:
        if PLACES[source].row >= PLACES[target].row:
            raise ValueError(f"{source} imports {target}, which is not below it in PLACES")
    size = f"{WIDTH} {TOP + 5 * ROW + 60 + TOP}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img" '
            'aria-label="Packages of sah and what they import">',
            "<style>",
            "text { font-family: DejaVu Sans, Helvetica, Arial, sans-serif; text-anchor: middle }",
            ".name { font-size: 14px; font-weight: bold; fill: #1a1a1a }",
            ".what { font-size: 11px; fill: #444 }",
            "rect { fill: #eef3f9; stroke: #6b8bb0 }",
            "rect.entry { fill: #e3e8ee; stroke: #5d6b7c }",
            "rect.tool { fill: #f6f1e7; stroke: #b59a5e }",
            "rect.work { fill: #d5e4f5; stroke: #3f6ea5; stroke-width: 1.6 }",
            "rect.floor { fill: #f2f2f2; stroke: #999 }",
            "path { fill: none; stroke: #56708f; stroke-width: 1.4; marker-end: url(#head) }",
            "</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="3" refY="4" markerWidth="6" '
            'markerHeight="6" orient="auto"><polygon points="0,0 8,4 0,8" fill="#56708f"/>'
            "</marker></defs>",
            '<rect width="100%" height="100%" style="fill: white; stroke: none"/>',
            *(arrow(source, target, arrows) for source, target in arrows),
            *(box(name) for name in PLACES),
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    FIGURE.write_text(draw(), encoding="utf-8")
