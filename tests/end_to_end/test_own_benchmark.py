"""A benchmark of another package: a class on PYTHONPATH, and a yaml in any folder."""

import json
import os
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

MODULE = '''
from dataclasses import dataclass
from sah.benchmarks.mock import Mock


@dataclass(frozen=True, kw_only=True)
class Theirs(Mock):
    """A benchmark of another package."""

    words: int
    title = "brought by a package"
'''
OPTION = """
_target_: their_benchmarks.Theirs
name: theirs
subset: null
limit: 2
max_new_tokens: 3
words: 5
"""


@pytest.fixture
def package(tmp_path):
    """A package with a module and a folder of configurations; returns its environment."""
    folder = tmp_path / "package"
    options = folder / "their_conf" / "benchmark"
    options.mkdir(parents=True)
    (folder / "their_benchmarks.py").write_text(MODULE)
    (folder / "their_conf" / "__init__.py").touch()
    (options / "theirs.yaml").write_text(OPTION)
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize(
    "source",
    [("--config-dir", "package/their_conf"), ("hydra.searchpath=[pkg://their_conf]",)],
)
def test_a_benchmark_of_a_package_needs_only_a_yaml(run, package, result_folders, source):
    choice = (*source, "model=tiny", "benchmark=theirs", "benchmark.words=7")
    done = run(*choice, environment=package)
    assert done.returncode == 0, done.stderr
    (folder,) = result_folders()
    assert OmegaConf.load(folder / "config.yaml").benchmark.words == 7
    results = json.loads((folder / "results.json").read_text())
    assert (results["benchmark"], results["n"]) == ("theirs", 2)


def test_benchmarks_of_a_config_dir_are_listed(package, tmp_path):
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from sah.cli.main import main; main()"),
            *("benchmarks", "--config-dir", "package/their_conf"),
        ],
        cwd=tmp_path,
        env={**os.environ, **package},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "theirs brought by a package" in done.stdout
    assert "longbench" in done.stdout
