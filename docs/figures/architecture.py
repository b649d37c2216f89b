"""Draws docs/figures/architecture.svg from the imports between the packages of sah/.

`python docs/figures/architecture.py` writes the file. Places are given here; boxes and arrows come
from the code, and a package without a place is an error.
"""

import ast
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FIGURE = Path(__file__).with_suffix(".svg")

# Modules that are not packages are drawn together.
TOGETHER = {
    "run.py, sah, Hydra": ("cli", "hydra_plugins"),
    "foundations": ("errors", "types", "seeding", "validation", "paths", "terminal"),
}

# What every box may import; its arrows would hide the others.
FLOOR = "foundations"


class Place(NamedTuple):
    """Where a box is, in pixels, and what is said below its name."""

    x: int
    """Centre."""
    row: int
    text: tuple[str, ...]
    width: int = 140


PLACES = {
    "run.py, sah, Hydra": Place(430, 0, ("command line and plugins",), 240),
    "calibration": Place(100, 1, ("fits methods to a model",), 160),
    "doctor": Place(280, 1, ("looks before a sweep",)),
    "launching": Place(560, 1, ("plans a sweep, runs its jobs",), 190),
    "maskers": Place(100, 2, ("the methods, a file each",), 160),
    "execution": Place(430, 2, ("an experiment at work:", "prefill, answer, score, resume"), 230),
    "report": Place(770, 2, ("tables, comparisons,", "figures, page")),
    "models": Place(275, 3, ("load, prefill,", "decode, rewind"), 120),
    "metric_logging": Place(410, 3, ("micro metrics",), 130),
    "benchmarks": Place(550, 3, ("examples and scores",), 130),
    "tracking": Place(670, 3, ("copies results",), 94),
    "results": Place(600, 4, ("identity, claim,", "store, state"), 120),
    "attention": Place(220, 4, ("inputs, mask, indexes, fold,", "session in transformers"), 210),
    FLOOR: Place(430, 5, (", ".join(TOGETHER[FLOOR]) + ": for all of them",), 820),
}

WIDTH, ROW, TOP = 860, 112, 8
HEIGHTS = {1: 46, 2: 60}


def module_name(path: Path) -> str:
    """The name under which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, Path]:
    """Every module of the project by name."""
    files = [path for folder in ("sah", "hydra_plugins") for path in (ROOT / folder).rglob("*.py")]
    return {module_name(path): path for path in sorted(files)}


def box_of(module: str) -> str:
    """The box that a module is drawn in: its package, or what it is drawn together with."""
    parts = module.split(".")
    name = parts[1] if parts[0] == "sah" else parts[0]
    for together, members in TOGETHER.items():
        if name in members:
            return together
    return name


def imports(path: Path, known: Mapping[str, Path]) -> Iterable[str]:
    """The modules of this project that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in known else str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def graph() -> dict[str, set[str]]:
    """Which box imports which others."""
    known = modules()
    boxes: dict[str, set[str]] = {}
    for module, path in known.items():
        # sah/__init__.py holds the version and nothing else.
        if module == "sah":
            continue
        imported = {box_of(name) for name in imports(path, known) if name in known.keys() - {"sah"}}
        boxes.setdefault(box_of(module), set()).update(imported)
    return {box: others - {box} for box, others in boxes.items()}


def reachable(box: str, arrows: Mapping[str, set[str]]) -> set[str]:
    """All that a box imports, directly or through others."""
    found = set(arrows[box])
    for other in arrows[box]:
        found |= reachable(other, arrows)
    return found


def shown_arrows() -> list[tuple[str, str]]:
    """The arrows without those that follow from two others, and without those to the floor."""
    arrows = {box: others - {FLOOR} for box, others in graph().items()}
    return [
        (box, other)
        for box, others in sorted(arrows.items())
        for other in sorted(others)
        if not any(other in reachable(between, arrows) for between in others - {other})
    ]


def height(place: Place) -> int:
    """Pixels of a box."""
    return HEIGHTS[len(place.text)]


def top(place: Place) -> int:
    """The upper edge of a box; those of a row are centred."""
    return TOP + place.row * ROW + (60 - height(place)) // 2


def port(box: str, other: str, neighbours: list[str]) -> float:
    """Where on its edge a box's arrow to or from another one is: as the others lie."""
    place = PLACES[box]
    in_order = sorted(neighbours, key=lambda name: PLACES[name].x)
    share = (in_order.index(other) + 1) / (len(in_order) + 1)
    return place.x + (share - 0.5) * place.width * 0.8


def arrow(source: str, target: str, arrows: list[tuple[str, str]]) -> str:
    """A curve from the lower edge of one box to the upper edge of another."""
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
    """A box with its name and what it is for."""
    place = PLACES[name]
    y = top(place)
    lines = [
        f'<text x="{place.x}" y="{y + 35 + 14 * number}" class="what">{escape(line)}</text>'
        for number, line in enumerate(place.text)
    ]
    return "\n".join(
        [
            f'<g id="{escape(name)}">',
            f'<rect x="{place.x - place.width / 2:g}" y="{y}" width="{place.width}" '
            f'height="{height(place)}" rx="6"/>',
            f'<text x="{place.x}" y="{y + 19}" class="name">{escape(name)}</text>',
            *lines,
            "</g>",
        ]
    )


def draw() -> str:
    """The figure.

    Raises:
        ValueError: if the code has another list of packages than PLACES, or imports upwards.
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
