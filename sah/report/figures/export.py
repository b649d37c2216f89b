"""Figures as SVG, PDF and PNG files, and as SVG elements of an HTML page."""

import io
import logging
import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sah.report.figures.axes import HOVER, style
from sah.report.figures.draw import CostAxis, drawings
from sah.report.figures.head_maps import head_drawings
from sah.report.saving import save
from sah.results.schema import Result

logger = logging.getLogger(__name__)


def write_figures(
    results: Sequence[Result], folder: Path, axis: CostAxis | None = None
) -> list[Path]:
    """Write every figure that has data as SVG, PDF and PNG, and return the files.

    Raises:
        SahError: if a file cannot be written.
    """
    written = []
    with style():
        for drawing in chain(drawings(results, axis), head_drawings(results)):
            if drawing.figure is None:
                logger.info("no data for the figure %s", drawing.name)
                continue
            contents = {
                # Links lead into the HTML page, which a file is not part of.
                "svg": _without_links(svg(drawing.figure)).encode(),
                "pdf": _rendered(drawing.figure, "pdf", metadata={"CreationDate": None}),
                "png": _rendered(drawing.figure, "png", dpi=200),
            }
            for suffix, content in contents.items():
                save(folder / f"{drawing.name}.{suffix}", content)
                written.append(folder / f"{drawing.name}.{suffix}")
    return written


def _rendered(figure: Figure, file_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=file_format, **options)
    return buffer.getvalue()


def svg(figure: Figure) -> str:
    """Render a figure as SVG, with hover titles on its points; call inside `style`."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    # Matplotlib writes ids, but no titles; both are escaped alike.
    return re.sub(rf'<g id="{HOVER}([^"]*)">', r"<g><title>\1</title>", buffer.getvalue())


_PAGE_COLOURS = {
    "#ffffff": "var(--paper)",
    "#000000": "var(--ink)",
    "#dddddd": "var(--grid)",
    "#cccccc": "var(--grid)",
}
"""Colours that follow the colour scheme of the page."""


def svg_element(figure: Figure, name: str) -> str:
    """Render a figure as an SVG element whose ids begin with `name`, for use in HTML.

    Black, white and the grey of grids become the page's variables --ink, --paper and --grid.
    """
    # A hundredth of a point is less than any screen shows.
    text = re.sub(r"(\d\.\d\d)\d+(?=[ \",)\n])", r"\1", svg(figure))
    for colour, variable in _PAGE_COLOURS.items():
        # As a value of a style, since texts may contain a colour, too.
        text = re.sub(rf"(fill|stroke): {colour}(?=[;\"])", rf"\1: {variable}", text)
    text = re.sub(r"(?s)<metadata>.*?</metadata>", "", text[text.index("<svg") :])
    # Matplotlib's links open a new tab; these lead elsewhere in the same page.
    text = text.replace(' target="_blank"', "")
    return re.sub(r'(\bid="|xlink:href="#|url\(#)(?!/)', rf"\g<1>{name}-", text)


def _without_links(text: str) -> str:
    return re.sub(r"</?a\b[^>]*>", "", text)
