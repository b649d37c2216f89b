"""The report as one HTML file that needs nothing else: no network, no server."""

import base64
import gzip
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import orjson
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from sah.report.html.page_data import PageData, page_data
from sah.report.reading.collect import Run
from sah.report.tables.overview import warnings

TEMPLATES = "sah.report.html.templates"


def write_page(runs: Sequence[Run], target: Path) -> None:
    """Write the report. Everything that a model or a file said is data in it, never markup."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(render_page(page_data(runs), warnings(runs)), encoding="utf-8")


def render_page(data: PageData, notes: Sequence[str]) -> str:
    """The page's text."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_source), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html.j2").render(
        notes=notes,
        runs=len(data.overview["runs"]),
        data=_script_json(data.overview),
        blobs={name: _packed(value) for name, value in data.details.items()},
        style=Markup(_source("report.css")),
        script=Markup(
            "\n".join(_source(name) for name in ("dom.js", "figures.js", "run.js", "report.js"))
        ),
        # Not run before a figure is looked at; a string in it must not end the element.
        plotly=Markup(get_plotlyjs().replace("</script", "<\\/script")),
    )


def _source(name: str) -> str:
    return resources.files(TEMPLATES).joinpath(name).read_text(encoding="utf-8")


def _script_json(value: Any) -> Markup:
    """JSON for a script element: no character in it can end the element."""
    text = orjson.dumps(value).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _packed(value: Any) -> str:
    """Compressed, in characters that mean nothing to HTML; unpacked when it is looked at."""
    # Without the time, so that the same results make the same file.
    return base64.b64encode(gzip.compress(orjson.dumps(value), mtime=0)).decode()
