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
from sah.report.reading.caveats import caveats
from sah.report.saving import save
from sah.report.tables.table import Table
from sah.results.schema import Result
from sah.terminal import plain

TEMPLATES = "sah.report.html.templates"


def write_page(
    results: Sequence[Result],
    target: Path,
    groups: Table | None = None,
    axis: CostAxis = "density",
) -> None:
    """Write the report. Text from models and files enters it as data, never as markup.

    Args:
        results: at least one.
        target: the file; its folder is created.
        groups: a table of groups of the results, to show above them.
        axis: what figures draw the score against.

    Raises:
        SahError: if the file cannot be written.
    """
    save(target, render_page(results, groups, axis).encode())


def render_page(
    results: Sequence[Result], groups: Table | None = None, axis: CostAxis = "density"
) -> str:
    """Return the page as text."""
    data, notes = page_data(results), caveats(results)
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_without_controls,
    )
    return environment.get_template("page.html.j2").render(
        notes=notes,
        groups=groups,
        count=len(results),
        data=_script_json(data.overview),
        blobs={name: _packed(value) for name, value in data.details.items()},
        figures=_figures(results, axis),
        style=Markup(_source("report.css")),
        script=Markup("\n".join(_source(name) for name in ("dom.js", "detail.js", "report.js"))),
    )


def _figures(results: Sequence[Result], axis: CostAxis) -> list[dict[str, Any]]:
    with style():
        return [
            {
                "title": drawing.title,
                "remark": drawing.remark,
                # Matplotlib has escaped its texts.
                "svg": Markup(svg_element(drawing.figure, drawing.name)),
            }
            for drawing in drawings(results, axis)
            if drawing.figure is not None
        ]


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
