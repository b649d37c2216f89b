"""The pages of the site that docs/site/ generates; `make docs` builds all of it."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("mkdocs")
pytest.importorskip("griffe")

ROOT = Path(__file__).resolve().parents[2]


def hook(name: str) -> ModuleType:
    """A hook of MkDocs, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "site" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


options = hook("options")
offline = hook("offline")


@pytest.mark.parametrize("group", options.GROUPS)
def test_every_key_of_every_option_is_explained(group):
    """If this fails: a comment above the key in its yaml, or a docstring below its field."""
    assert options.options_of(group)
    unexplained = [
        f"{path.stem}: {'.'.join(key.path)}"
        for path in options.options_of(group)
        for key in options.keys_of(path)
        if not key.meaning
    ]
    assert not unexplained


def test_every_key_of_the_experiment_is_explained():
    assert not [key.path for key in options.experiment_keys() if not key.meaning]


def test_every_option_has_a_heading_on_the_page_of_its_group():
    for group in options.GROUPS:
        page = options.group_page(group)
        for path in options.options_of(group):
            assert f"\n## {path.stem}\n" in page


def test_every_group_of_conf_has_a_page():
    folders = {group.folder.split("/")[0] for group in options.GROUPS.values()}
    assert folders == {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}


@pytest.mark.parametrize(
    ("name", "content", "is_foreign"),
    [
        ("a.html", '<script src="https://example.org/a.js"></script>', True),
        ("a.html", '<link rel="stylesheet" href="//example.org/a.css">', True),
        ("a.html", '<a href="https://example.org/">a link to click</a>', False),
        ("a.html", '<img src="figures/a.svg">', False),
        ("a.css", "@font-face { src: url(https://example.org/a.woff2) }", True),
        ("a.css", "a { background: url(a.svg) }", False),
    ],
)
def test_a_page_that_loads_from_another_host_is_found(tmp_path, name, content, is_foreign):
    (tmp_path / name).write_text(content)
    assert bool(offline.foreign(tmp_path)) == is_foreign
