"""The commands of the README and the guides are run, and their files are added, word for word.

Those of docs/first_hour.md are in test_journeys.py.
"""

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
GUIDES = ("sweeps", "compare", "extending", "numbers", "installation", "calibration")
TEXTS = [README, *((ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in GUIDES)]


def blocks(language: str) -> list[tuple[str, str]]:
    """Code blocks of a language, each with the paragraph before it."""
    pattern = re.compile(rf"([^\n]*)\n\n```{language}\n(.*?)```", flags=re.DOTALL)
    return [block for text in TEXTS for block in pattern.findall(text)]


# A command that stands in two documents is run once.
COMMANDS = list(dict.fromkeys(line for _, block in blocks("sh") for line in block.splitlines()))


def path_of(before: str, content: str) -> str:
    """The path of a file: in its own first line, or in the sentence before it."""
    (path,) = re.findall(r"^# ([\w/.]+\.yaml)\b", content) or re.findall(
        r"`([\w/.]+\.(?:py|yaml))`", before
    )
    return path


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout with all files of the documents in it."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("sah", "conf", "hydra_plugins", "tests"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("run.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    written = []
    for before, content in blocks("python") + blocks("yaml"):
        path = folder / path_of(before, content)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        written.append(path.relative_to(folder).as_posix())
    examples = ("maskers/small_keys", "evictors/large_values", "patterns/strided")
    for name in (*examples, "benchmarks/lockers"):
        package, _, option = name.partition("/")
        assert f"sah/{name}.py" in written
        assert f"conf/{package.removesuffix('s')}/{option}.yaml" in written
        assert f"tests/{package}/test_{option}.py" in written
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_documented_command_works(command, checkout, hub_cache):
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
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout or "experiments" in done.stderr


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        *(("maskers", "small_keys"), ("evictors", "large_values"), ("patterns", "strided")),
        ("benchmarks", "lockers"),
    ],
)
def test_example_passes_its_own_and_the_contract_tests(checkout, folder, name):
    command = [sys.executable, "-m", "pytest", "-n", "0", f"tests/{folder}", "-k", name]
    done = subprocess.run(
        command,
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) > 5, "the contract tests found the new option by themselves"


def test_readme_names_every_option_of_every_group():
    groups = ("model", "sparse_attention", "masker", "evictor", "rewriter", "pattern")
    for group in (*groups, "benchmark", "metric_logging", "protocol", "tracker"):
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            assert f"`{path.stem}`" in README, f"{group}={path.stem} is missing in the README"


def test_every_paper_of_a_method_can_be_cited():
    entries = (ROOT / "docs/references.bib").read_text(encoding="utf-8")
    papers = {
        number
        for folder in ("sah/maskers", "sah/evictors", "sah/rewriters", "sah/patterns")
        for path in (ROOT / folder).rglob("*.py")
        for number in re.findall(r"arXiv:(\d+\.\d+)", path.read_text(encoding="utf-8"))
    }
    assert len(papers) > 5
    for paper in papers:
        assert f"eprint = {{{paper}}}" in entries, paper


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "AGENTS.md"])
def test_every_link_of_a_document_leads_to_a_file(document):
    """Links inside docs/ are checked by the build of the site."""
    text = (ROOT / document).read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_the_breakpoint_of_the_architecture_page_is_at_the_line_it_shows():
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    ((path, number, line),) = re.findall(r"-c 'b ([\w/.]+):(\d+)'.*\n.*\n +-> (.*)\n", text)
    assert (ROOT / path).read_text(encoding="utf-8").splitlines()[int(number) - 1].strip() == line
