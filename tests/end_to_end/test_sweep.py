"""The matrix: models times attentions, finished cells skipped, mistakes refused up front."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MATRIX = ("-m", "model=llama,mistral", "attention=dense,sparse", "benchmark=mock")


@pytest.fixture(scope="module")
def finished(hub_cache, tmp_path_factory):
    """A folder in which the matrix has been computed."""
    folder = tmp_path_factory.mktemp("finished")
    run_matrix(folder, hub_cache)
    return folder


def run_matrix(folder, hub_cache):
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *MATRIX],
        cwd=folder,
        env={**os.environ, **hub_cache},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_matrix_makes_four_directories_and_a_second_run_computes_nothing(
    finished, hub_cache, answers
):
    results = sorted(finished.glob("outputs/*/*/*/*/results.json"))
    assert [(path.parts[-5], path.parts[-4]) for path in results] == [
        ("llama", "dense"),
        ("llama", "sparse"),
        ("mistral", "dense"),
        ("mistral", "sparse"),
    ]
    before = [path.stat().st_mtime_ns for path in results]
    second = run_matrix(finished, hub_cache)
    assert "4 finished already" in second.stderr
    assert [path.stat().st_mtime_ns for path in results] == before
    texts = [tuple(line["text"] for line in answers(path.parent)) for path in results]
    assert texts[0] != texts[2], "llama and mistral are different models"


def test_killed_sweep_goes_on_to_identical_predictions(
    finished, hub_cache, tmp_path, result_folders, answers
):
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *MATRIX],
        cwd=tmp_path,
        env={**os.environ, **hub_cache},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(list(tmp_path.glob("outputs/*/*/*/*/predictions.jsonl"))) < 2:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    complete = len(result_folders())
    assert complete < 4
    resumed = run_matrix(tmp_path, hub_cache)
    # The running arms may have finished between the count and their end.
    found = re.search(r"(\d) finished already, .* (\d) to run", resumed.stderr)
    assert found is not None
    assert complete <= int(found[1]) <= complete + 2
    assert int(found[1]) + int(found[2]) == 4
    for folder in result_folders():
        relative = folder.relative_to(tmp_path / "outputs")
        assert answers(folder) == answers(finished / "outputs" / relative)


def test_every_subset_named_in_a_sweep_is_a_cell(run, result_folders, answers):
    done = run(
        *("-m", "model=tiny", "benchmark=ruler", "benchmark.subset=niah_single_1,vt"),
        *("benchmark.samples=2", "benchmark.context_tokens=1200", "attention=dense"),
        *("generation.max_new_tokens=2", "hydra/launcher=basic"),
    )
    assert done.returncode == 0, done.stderr
    folders = {path.parts[-2]: path for path in result_folders()}
    assert set(folders) == {"ruler_niah_single_1", "ruler_vt"}
    for name, folder in folders.items():
        subset = name.removeprefix("ruler_")
        assert [line["task"] for line in answers(folder)] == [subset] * 2
        results = json.loads((folder / "results.json").read_text())
        assert (results["subset"], list(results["tasks"])) == (subset, [subset])


def test_an_invalid_cell_stops_the_sweep_before_anything_runs(run, tmp_path):
    done = run("-m", "model=tiny", "benchmark=mock", "benchmark.limit=1,0,-1")
    assert done.returncode == 1
    assert "2 of 3 experiments cannot work" in done.stderr
    assert "benchmark.limit=0" in done.stderr
    assert "benchmark.limit=-1" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "outputs").rglob("*")) == []


def test_a_failed_cell_does_not_stop_the_others(run, tmp_path):
    (tmp_path / "empty").mkdir()
    model = ("model=hf", "model.name_or_path=empty")
    done = run("-m", "benchmark=mock", *model, "seed=1,2", "hydra/launcher=basic")
    assert done.returncode == 1
    errors = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/*/*/*/*/error.json")]
    assert [error["category"] for error in errors] == ["model_not_found", "model_not_found"]


def test_glob_runs_every_preset(run, calibrations, tmp_path):
    arguments = ("-m", "model=tiny", "attention=glob(*)", "benchmark=mock")
    environment = {"SAH_CACHE": str(calibrations)}
    done = run(*arguments, "hydra/launcher=basic", environment=environment)
    assert done.returncode == 0, done.stderr
    presets = {path.stem for path in (ROOT / "conf/sparse_attention").glob("*.yaml")}
    assert len(presets) > 12
    complete = {path.parts[-4] for path in tmp_path.glob("outputs/tiny/*/*/*/results.json")}
    # custom has no maskers until some are given.
    assert complete == presets - {"custom"}


def test_attentions_that_read_the_context_differently_share_a_job_and_equal_single_runs(
    tmp_path, answers
):
    """Contexts of 2,048 tokens: the window of a_shape and tri_shape has 1,024."""
    common = ("model=tiny", "benchmark=ruler", "benchmark.subset=niah_single_1")
    common += ("benchmark.context_tokens=2048", "benchmark.samples=1")
    names = ("dense", "a_shape", "tri_shape")

    def start(*arguments):
        command = [sys.executable, str(ROOT / "run.py"), *arguments, *common]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    start("-m", f"attention={','.join(names)}", "output_root=together")
    start("attention=a_shape", "output_root=alone")
    found = {path.parts[-4]: path for path in tmp_path.glob("together/*/*/*/*/results.json")}
    assert sorted(found) == sorted(names)
    densities = {
        name: json.loads(path.read_text())["prefill_density"] for name, path in found.items()
    }
    assert 0.5 < densities["a_shape"] < densities["tri_shape"] < densities["dense"] == 1
    (alone,) = tmp_path.glob("alone/*/a_shape/*/*/results.json")
    assert answers(alone.parent) == answers(found["a_shape"].parent)
    assert json.loads(alone.read_text())["prefill_density"] == densities["a_shape"]
