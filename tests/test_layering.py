"""Dependencies point one way, and what starts fast imports nothing heavy."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sah.cli.topics.screen import SUBCOMMANDS

ROOT = Path(__file__).resolve().parents[1]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted((ROOT / "sah").rglob("*.py"))}


def imports(path):
    """Every module that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            # `from sah import errors` imports the module sah.errors.
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in names}
    return found


def beneath(name, packages):
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def imported_by(package):
    return [
        (module, name)
        for module, path in MODULES.items()
        if beneath(module, [package])
        for name in sorted(imports(path))
    ]


def is_standard(name):
    return name.partition(".")[0] in sys.stdlib_module_names


# A package imports, and names, nothing of its own layer or of those above it.
LAYERS = (
    ("errors", "types", "seeding", "validation", "paths", "terminal"),
    ("content",),
    ("attention", "benchmarks", "results"),
    (
        "evictors",
        "maskers",
        "metric_logging",
        "models",
        "patterns",
        "report",
        "rewriters",
        "tracking",
    ),
    ("execution",),
    ("calibration", "doctor", "launching", "matching"),
    ("cli",),
    ("api",),
)

# Libraries that may be imported besides the standard one.
LIBRARIES = {
    "sah.types": [],
    "sah.seeding": [],
    "sah.errors": [],
    "sah.validation": ["beartype"],
    "sah.paths": [],
    "sah.terminal": [],
    "sah.content": ["huggingface_hub"],
    "sah.attention": ["numpy", "torch", "transformers", "jaxtyping"],
    "sah.evictors": ["torch", "jaxtyping"],
    "sah.patterns": ["torch", "jaxtyping"],
    "sah.rewriters": ["torch", "jaxtyping"],
    "sah.maskers": ["numpy", "torch", "jaxtyping", "safetensors", "beartype"],
}

# Benchmarks must be usable without the libraries that models need.
NEVER = {"sah.benchmarks": ["torch", "transformers"], "sah": ["hydra_plugins"]}


def test_the_modules_are_found():
    assert {"sah.types", "sah.attention.session", "sah.maskers.sink"} <= MODULES.keys()
    assert ("sah.attention.session", "sah.seeding") in imported_by("sah.attention")
    assert ("sah.maskers.sink", "sah.attention") in imported_by("sah.maskers")


def test_every_module_is_in_a_layer():
    top = {module.split(".")[1] for module in MODULES if module != "sah"}
    assert top == {name for layer in LAYERS for name in layer}


@pytest.mark.parametrize("height", range(len(LAYERS)))
def test_a_layer_imports_and_names_only_what_is_below_it(height):
    if height == 0:
        above = {name for layer in LAYERS[1:] for name in layer}
    else:
        above = {name for layer in LAYERS[height:] for name in layer}
    for package in LAYERS[height]:
        others = "|".join(sorted(above - {package}))
        named = re.compile(rf"\bsah\.(?:{others})\b" if others else r"(?!)")
        wrong = {
            module: sorted(set(named.findall(path.read_text(encoding="utf-8"))))
            for module, path in MODULES.items()
            if beneath(module, [f"sah.{package}"])
        }
        assert {module: names for module, names in wrong.items() if names} == {}


@pytest.mark.parametrize("package", LIBRARIES)
def test_a_package_imports_only_the_libraries_it_may(package):
    beyond = [
        (module, name)
        for module, name in imported_by(package)
        if not is_standard(name) and not beneath(name, ["sah", *LIBRARIES[package]])
    ]
    assert beyond == []


@pytest.mark.parametrize("package", NEVER)
def test_a_package_never_imports_what_it_must_not_need(package):
    wrong = [
        (module, name) for module, name in imported_by(package) if beneath(name, NEVER[package])
    ]
    assert wrong == []


PACKAGES = sorted(path.parent.name for path in (ROOT / "sah").glob("*/__init__.py"))


def test_the_figure_of_the_architecture_shows_the_packages_and_imports_there_are():
    """If this fails: python docs/figures/architecture.py."""
    script = ROOT / "docs" / "figures" / "architecture.py"
    figure = script.with_suffix(".svg").read_text(encoding="utf-8")
    assert set(re.findall(r'<g id="([a-z_]+)">', figure)) == {
        *(name for name in PACKAGES if name not in ("api", "cli", "content")),
        "foundations",
    }
    spec = importlib.util.spec_from_file_location("architecture", script)
    architecture = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(architecture)
    assert architecture.draw() == figure


PLUGINS = sorted(module_name(path) for path in (ROOT / "hydra_plugins").rglob("*.py"))


def test_what_hydra_loads_at_every_start_is_light():
    """Without torch a command answers in a fraction of a second; with it, in three."""
    light = [
        "sah",
        *PLUGINS,
        "sah.execution.checks",
        "sah.results.show",
        "sah.cli.main",
        *(f"sah.cli.{name}" for name in SUBCOMMANDS),
    ]
    assert "hydra_plugins.sah.config" in light
    program = (
        "import importlib, sys\n"
        "for module in sys.argv[1:]:\n"
        "    importlib.import_module(module)\n"
        "    heavy = {'torch', 'transformers', 'datasets', 'numpy'} & sys.modules.keys()\n"
        "    assert not heavy, f'{module} imports {heavy}'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *light], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
