"""The report as one HTML file that needs neither network nor server."""

import base64
import gzip
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import orjson
from markupsafe import Markup

from sah.report.figures.axes import style
from sah.report.figures.draw import CostAxis, drawings
from sah.report.figures.export import svg_element
from sah.report.html.page_data import page_data
from sah.report.html.summary import abstract, summary
from sah.report.reading.caveats import caveats
from sah.report.saving import save
from sah.report.tables.table import Table
from sah.results.schema import Result
from sah.results.stored_lines import EXAMPLES, MICRO_METRICS, PREDICTIONS
from sah.terminal import plain

TEMPLATES = "sah.report.html.templates"
SCRIPTS = ("dom.js", "words.js", "heads.js", "detail.js", "table.js", "filters.js", "report.js")
"""In the order in which they run, as one script."""
PAGE_FILES = frozenset({PREDICTIONS, MICRO_METRICS, EXAMPLES})
"""What is read besides results.json."""
DEFAULT_TITLE = "Sparse attention"
# The others are folded away.
_CLAIMS_SHOWN = 12


def write_page(
    results: Sequence[Result],
    target: Path,
    groups: Table | None = None,
    axis: CostAxis | None = None,
    *,
    title: str = DEFAULT_TITLE,
    command: str = "",
) -> None:
    """Write the report. Text from models and files enters it as data, never as markup.

    Args:
        results: at least one.
        target: the file; its folder is created.
        groups: a table of groups of the results, to show above them.
        axis: what figures draw the score against; None for every share that differs.
        title: the heading.
        command: the command that writes the page, to show below the heading.

    Raises:
        SahError: if the file cannot be written.
    """
    save(target, render_page(results, groups, axis, title=title, command=command).encode())


def render_page(
    results: Sequence[Result],
    groups: Table | None = None,
    axis: CostAxis | None = None,
    *,
    title: str = DEFAULT_TITLE,
    command: str = "",
    version: str = "",
) -> str:
    """Return the page as text.

    Args:
        results: at least one.
        groups: as for `write_page`.
        axis: as for `write_page`.
        title: the heading.
        command: the command that makes the page.
        version: of a served page, which asks its server for newer ones; empty for a file.
    """
    data, notes = page_data(results), caveats(results)
    fronts, others = _figures(results, axis)
    # Only what the page opens with is there at once.
    packed = {f"svg-{figure['name']}": figure.pop("svg") for figure in others}
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            version=version,
            abstract=abstract(results),
            command=command,
            summary=summary(results),
            notes=notes,
            groups=groups,
            count=len(results),
            data=_script_json(data.overview),
            blobs={name: _packed(value) for name, value in (data.details | packed).items()},
            fronts=fronts,
            figures=others,
            claims_shown=_CLAIMS_SHOWN,
            style=Markup(_source("report.css")),
            script=_script([*SCRIPTS, *(["live.js"] if version else [])]),
        )
    )


def render_waiting(reason: str, *, title: str, command: str, version: str) -> str:
    """Return the served page while there is nothing to show; it says why, and is replaced then."""
    return (
        _environment()
        .get_template("waiting.html.j2")
        .render(
            title=title,
            reason=reason,
            command=command,
            version=version,
            style=Markup(_source("report.css")),
            script=_script(["dom.js", "live.js"]),
        )
    )


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_without_controls,
    )


def _script(names: Sequence[str]) -> Markup:
    return Markup("\n".join(_source(name) for name in names))


def _figures(
    results: Sequence[Result], axis: CostAxis | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Draw the figures: scores against costs, and all others."""
    drawn: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    with style():
        for drawing in drawings(results, axis):
            if drawing.figure is not None:
                drawn[not drawing.name.startswith("score_")].append(
                    {
                        "name": drawing.name,
                        "title": drawing.title,
                        "remark": drawing.remark,
                        # Matplotlib has escaped its texts.
                        "svg": Markup(svg_element(drawing.figure, drawing.name)),
                    }
                )
    return drawn


def _source(name: str) -> str:
    return resources.files(TEMPLATES).joinpath(name).read_text(encoding="utf-8")


def _script_json(value: Any) -> Markup:
    """Return JSON for a script element, escaped so that it cannot end the element.

    Control characters and those that change the reading direction are escaped too.
    """
    return Markup(
        re.sub(
            "[<>&\x7f-\x9f\u2028-\u202e\u2066-\u2069]",
            lambda found: f"\\u{ord(found[0]):04x}",
            orjson.dumps(value).decode(),
        )
    )


def _without_controls(value: Any) -> Any:
    """Escape control characters in everything that the template inserts, except in markup."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _packed(value: Any) -> str:
    """Compress JSON into base64; the page unpacks it when it is needed."""
    # Without a time stamp, so that the same results give the same file.
    return base64.b64encode(gzip.compress(orjson.dumps(value), mtime=0)).decode()
