"""MkDocs hook: add pages that are generated from conf/, and documents from outside docs/."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from options import GROUPS, experiment_page, group_page, methods_page

ROOT = Path(__file__).resolve().parents[2]

# Documents outside docs/, and their place in the site.
ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "sah/calibration/shipped/README.md": "calibration_shipped.md",
    **{
        f"experiments/{path.name}": f"experiments/{path.name}"
        for path in sorted((ROOT / "experiments").glob("*.md"))
    },
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those of docs/."""
    pages = {f"reference/{name}.md": group_page(name) for name in GROUPS}
    pages["reference/config.md"] = experiment_page()
    for group in ("masker", "pattern", "evictor", "rewriter"):
        pages[f"reference/api_{group}s.md"] = methods_page(group)
    for source, target in ELSEWHERE.items():
        # The README is the home page on GitHub; the site has its own.
        if source == "README.md":
            continue
        text = (ROOT / source).read_text(encoding="utf-8")
        # Links into docs/ become links from the page's place in the site.
        pages[target] = text.replace("](../docs/", "](../").replace("](docs/", "](")
    for target, content in pages.items():
        files.append(File.generated(config, target, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links out of docs/ into links to the page that the file has in the site."""
    for source, target in ELSEWHERE.items():
        markdown = markdown.replace(f"](../{source}", f"]({target}")
    return markdown
