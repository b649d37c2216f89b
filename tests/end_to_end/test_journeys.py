"""Five journeys of a new user, each a script of one page, and the guide of the first hour.

A line `# > TEXT` of a script is expected in its output, in this order; `...` stands for any text,
and spaces count once.
"""

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

JOURNEYS = Path(__file__).parent / "journeys"
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "first_hour.md"


def check_output(path, output):
    """Every expected line is a line of the output, in this order."""
    expected = re.findall(r"^# > (.*)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert expected, f"{path.name} says nothing about its output"
    check_lines(expected, output)


def check_lines(expected, output):
    printed = iter([" ".join(line.split()) for line in output.splitlines()])
    for line in expected:
        pattern = ".*".join(re.escape(part) for part in " ".join(line.split()).split("..."))
        assert any(re.fullmatch(pattern, one) for one in printed), f"not printed: {line}\n{output}"


@pytest.mark.parametrize("name", ["first_hour", "own_method"])
def test_script_prints_what_it_says(script, name):
    path = JOURNEYS / f"{name}.sh"
    done = script(path)
    assert done.returncode == 0, done.stdout
    check_output(path, done.stdout)


def test_guide_of_the_first_hour_prints_what_it_shows(script, tmp_path):
    text = GUIDE.read_text(encoding="utf-8")
    commands, shown = (
        re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)
        for language in ("sh", "text")
    )
    path = tmp_path / "guide.sh"
    path.write_text("".join(commands), encoding="utf-8")
    done = script(path)
    assert done.returncode == 0, done.stdout
    check_lines(
        without_measurements("".join(shown)).splitlines(), without_measurements(done.stdout)
    )


def without_measurements(text):
    """Drop times, speeds, fingerprints and names of sweeps, and the mark of a busy machine."""
    measured = (
        *(r"\[\d\d:\d\d:\d\d\]", r"\d+\.\d tokens/s", r"\b\d+\.\d m?s\b", r"\(crowded\)"),
        *(r"\b[0-9a-f]{12}\b", r"\b\d{8}-\d{6}\b"),
    )
    text = re.sub("|".join(measured), "", text)
    return "\n".join(line for line in text.splitlines() if not re.fullmatch("─*", line))


def test_tables_of_a_sweep_are_valid_latex(script, tmp_path):
    path = JOURNEYS / "paper.sh"
    done = script(path)
    assert done.returncode == 0, done.stdout
    check_output(path, done.stdout)
    for name in ("scores.tex", "differences.tex"):
        check_table((tmp_path / name).read_text(encoding="utf-8"))
    if shutil.which("pdflatex") is None:
        return
    compile_it = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    compiled = subprocess.run(compile_it, cwd=tmp_path, capture_output=True, text=True)
    assert compiled.returncode == 0, compiled.stdout
    assert "Overfull" not in compiled.stdout


def check_table(text):
    """Environments and braces are balanced, and every row has as many cells as columns."""
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    body = "\n".join(lines)
    assert re.findall(r"\\(begin|end){(\w+)}", body) == [("begin", "tabular"), ("end", "tabular")]
    bare = re.sub(r"\\[{}]", "", body)
    assert bare.count("{") == bare.count("}")
    (columns,) = re.findall(r"\\begin{tabular}{([lr]+)}", body)
    rows = [line for line in lines if line.endswith(r"\\")]
    assert len(rows) > 2
    assert {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows} == {len(columns)}


def test_notebook_prints_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = JOURNEYS / "own_model.py"
    runpy.run_path(str(path), run_name="__main__")
    check_output(path, capsys.readouterr().out)


@pytest.mark.slurm
def test_sweep_on_slurm_prints_what_it_says(script, cluster):
    path = JOURNEYS / "slurm.sh"
    done = script(path, environment=cluster.environment)
    assert done.returncode == 0, done.stdout
    check_output(path, done.stdout)
