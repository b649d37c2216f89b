"""MkDocs hook: fail the build if a page would load anything from another host."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError

# What a browser loads on its own; links that are only followed when clicked may lead anywhere.
LOADED_BY_HTML = re.compile(
    r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*\b(?:src|srcset)=[\"']?((?:https?:)?//[^\"'\s>]+)"
    r"|<link\b(?![^>]*rel=[\"']?canonical)[^>]*\bhref=[\"']?((?:https?:)?//[^\"'\s>]+)"
)
LOADED_BY_CSS = re.compile(r"(?:url\(|@import\s+)[\"']?((?:https?:)?//[^\"')\s]+)")


def foreign(folder: Path) -> list[str]:
    """List what pages and style sheets of a folder load from other hosts, with the file."""
    found = []
    for path in sorted(folder.rglob("*")):
        pattern = {".html": LOADED_BY_HTML, ".css": LOADED_BY_CSS}.get(path.suffix)
        if pattern is None:
            continue
        for match in pattern.finditer(path.read_text(encoding="utf-8")):
            address = next(group for group in match.groups() if group)
            found.append(f"{path.relative_to(folder)}: {address}")
    return found


def on_post_build(config: MkDocsConfig) -> None:
    """Check the whole site.

    Raises:
        PluginError: naming each page and address.
    """
    found = foreign(Path(config.site_dir))
    if found:
        raise PluginError("the site must load nothing from another host:\n" + "\n".join(found))
