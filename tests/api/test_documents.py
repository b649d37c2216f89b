"""docs/python.md, the notebook and the example do what they show."""

import ast
import json
import re
import runpy
import sys
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])


def comparable(text):
    """Round numbers, and leave out what changes with any option of the configuration."""
    text = re.sub(r"\b[0-9a-f]{12}\b", "FINGERPRINT", text)
    return re.sub(r"\d+\.\d+", lambda found: f"{float(found[0]):.2f}", text).split()


def test_the_guide_prints_what_it_shows(capsys):
    text = (ROOT / "docs/python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", text, flags=re.DOTALL)
    assert len(blocks) == 7
    names: dict[str, object] = {}
    with pl.Config(tbl_formatting="ASCII_MARKDOWN"):
        for code, shown in blocks:
            exec(code, names)  # noqa: S102 - our own document
            assert comparable(capsys.readouterr().out) == comparable(shown)


def test_the_notebook_runs_and_holds_its_outputs(capsys):
    notebook = json.loads((EXAMPLES / "first_steps.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in cells:
        code = "".join(cell["source"])
        # The same cells on a model that takes seconds.
        for given, quick in (
            ('"smollm2"', '"tiny"'),
            ("benchmark.samples=3", "benchmark=mock"),
            ("benchmark.context_tokens=512", "benchmark.limit=2"),
        ):
            code = code.replace(given, quick)
        exec(compile(code, "cell", "exec"), names)  # noqa: S102 - our own notebook
        printed = bool(capsys.readouterr().out)
        shows = isinstance(ast.parse(code).body[-1], ast.Expr) and not printed
        assert [one["output_type"] for one in cell["outputs"]] == ["stream"] * printed + [
            "execute_result"
        ] * shows


def test_the_example_attaches_measures_and_sweeps_its_method(capsys, monkeypatch):
    quick = ("model=tiny", "benchmark=mock", "benchmark.limit=2")
    monkeypatch.setattr(sys, "argv", ["own_method.py", *quick])
    runpy.run_path(str(EXAMPLES / "own_method.py"), run_name="__main__")
    _, measured, dense, *swept = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"density 0\.\d{3}, rows read 0\.\d{3}", measured)
    assert dense.startswith("dense ")
    small, large = (float(line.split()[2]) for line in swept)
    assert 0 < small < large < 1
