"""The README's commands are run, and its masker and benchmark are added, word for word."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[tuple[str, str]]:
    """Code blocks of a language, each with the paragraph before it."""
    return re.findall(rf"([^\n]*)\n\n```{language}\n(.*?)```", README, flags=re.DOTALL)


COMMANDS = [line for _, block in blocks("sh") for line in block.splitlines()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with the README's masker and benchmark in it."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("sah", "conf", "hydra_plugins", "tests"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("run.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    written = 0
    for before, content in blocks("python") + blocks("yaml"):
        (path,) = re.findall(r"`([\w/.]+\.(?:py|yaml))`", before)
        (folder / path).write_text(content, encoding="utf-8")
        written += 1
    assert written == 6, "a masker takes one file, one yaml and one test, and so does a benchmark"
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_command_works(command, checkout, hub_cache):
    program, *arguments = shlex.split(command)
    programs = {
        "python": [sys.executable],
        "sah": [sys.executable, "-c", "from sah.cli.main import main; main()"],
    }
    done = subprocess.run(
        [*programs[program], *arguments],
        cwd=checkout,
        env={**os.environ, **hub_cache, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout or "experiments" in done.stderr


@pytest.mark.parametrize(("folder", "name"), [("maskers", "strided"), ("benchmarks", "lockers")])
def test_example_passes_its_own_and_the_contract_tests(checkout, folder, name):
    command = [sys.executable, "-m", "pytest", "-n", "0", f"tests/{folder}", "-k", name]
    done = subprocess.run(
        command,
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) > 5, "the contract tests found the new option by themselves"


def test_readme_names_every_option_of_every_group():
    groups = ("model", "sparse_attention", "masker", "benchmark", "metric_logging", "protocol")
    for group in (*groups, "tracker"):
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            assert f"`{path.stem}`" in README, f"{group}={path.stem} is missing in the README"


def test_every_paper_of_a_masker_can_be_cited():
    entries = (ROOT / "docs/references.bib").read_text(encoding="utf-8")
    papers = {
        number
        for path in (ROOT / "sah/maskers").glob("*.py")
        for number in re.findall(r"arXiv:(\d+\.\d+)", path.read_text(encoding="utf-8"))
    }
    assert len(papers) > 5
    for paper in papers:
        assert f"eprint = {{{paper}}}" in entries, paper
