"""The wheel contains the configuration and works from any folder."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment with the wheel; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*build, str(ROOT)], check=True, capture_output=True)
    (wheel,) = folder.glob("sah-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {"sah/conf/config.yaml", "sah/references.bib"} <= set(names)
    assert "sah/calibration/shipped/double_sparsity/smollm2.json" in names
    assert "sah/calibration/shipped/duo_attention/smollm2.tsv" in names
    assert "sah/calibration/shipped/hash_attention/smollm2.safetensors" in names
    assert not [
        name for name in names if name.startswith(("tests/", "conf/", "experiments/", "outputs/"))
    ]
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site)]
    subprocess.run([*pip, str(wheel)], check=True)
    # The dependencies of this environment, without its editable install of the checkout.
    dependencies = sysconfig.get_paths()["purelib"]
    (site / "dependencies.pth").write_text(f"import sys; sys.path.append({dependencies!r})\n")
    return environment


def call(environment: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.argv[0] = 'sah'; from sah.cli.main import main; main()"
    return subprocess.run(
        [str(environment / "bin" / "python"), "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )


def test_installed_wheel_composes_from_another_folder(installed, tmp_path):
    code = "import sah; print(sah.__file__)"
    where = subprocess.run(
        [str(installed / "bin" / "python"), "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(installed) in where.stdout, "the checkout must not shadow the wheel"
    done = call(installed, tmp_path, "model=tiny", "attention=streaming_llm", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "name: streaming_llm" in done.stdout


def test_installed_wheel_composes_a_study_from_another_folder(installed, tmp_path):
    options = ("--config-name", "llama31_8b_longbench", "sparse_attention=kept/snapkv")
    done = call(installed, tmp_path, "run", *options, "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "name: snapkv" in done.stdout


def test_installed_wheel_runs_an_experiment(installed, tmp_path):
    done = call(installed, tmp_path, "model=tiny", "benchmark=mock", "attention=dense")
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("outputs/tiny/dense/mock_all/*/results.json"))) == 1


def test_benchmarks_are_listed_with_their_subsets(installed, tmp_path):
    done = call(installed, tmp_path, "benchmarks")
    assert done.returncode == 0, done.stderr
    assert "ruler" in done.stdout
    assert "niah_multiquery" in done.stdout
