"""The matrix: models times attentions, finished cells skipped, mistakes refused up front."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Verbatim from the mission of this project.
MATRIX = ("-m", "model=llama,mistral", "attention=dense,sparse", "benchmark=mock")


def test_matrix_makes_four_directories_and_a_second_run_computes_nothing(
    run, hub_cache, result_folders, answers
):
    first = run(*MATRIX, environment=hub_cache)
    assert first.returncode == 0, first.stderr
    folders = result_folders()
    assert [(path.parts[-4], path.parts[-3]) for path in folders] == [
        ("llama", "dense"),
        ("llama", "sparse"),
        ("mistral", "dense"),
        ("mistral", "sparse"),
    ]
    before = [(folder / "results.json").stat().st_mtime_ns for folder in folders]
    second = run(*MATRIX, environment=hub_cache)
    assert second.returncode == 0, second.stderr
    assert "4 finished already" in second.stderr
    assert [(folder / "results.json").stat().st_mtime_ns for folder in folders] == before
    texts = [tuple(line["text"] for line in answers(folder)) for folder in folders]
    assert texts[0] != texts[2], "llama and mistral are different models"


def test_killed_sweep_goes_on_to_identical_predictions(
    run, hub_cache, tmp_path, result_folders, answers
):
    # In one process: where a cell runs does not change what it answers.
    run(*MATRIX, "hydra/launcher=basic", "output_root=undisturbed", environment=hub_cache)
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "run.py"), *MATRIX],
        cwd=tmp_path,
        env={**os.environ, **hub_cache},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 150
    while len(list(tmp_path.glob("outputs/*/*/*/*/predictions.jsonl"))) < 2:
        assert time.monotonic() < end
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = len(result_folders())
    assert finished < 4
    resumed = run(*MATRIX, environment=hub_cache)
    assert resumed.returncode == 0, resumed.stderr
    # The arms that were at work may have finished between the look and their death.
    found = re.search(r"(\d) finished already, .* (\d) to run", resumed.stderr)
    assert found is not None
    assert finished <= int(found[1]) <= finished + 2
    assert int(found[1]) + int(found[2]) == 4
    for folder in result_folders():
        relative = folder.relative_to(tmp_path / "outputs")
        assert answers(folder) == answers(tmp_path / "undisturbed" / relative)


def test_two_spellings_of_one_cell_run_once(run, result_folders):
    done = run("-m", "model=tiny", "benchmark=mock", "generation.temperature=0,0.0")
    assert done.returncode == 0, done.stderr
    assert len(result_folders()) == 1
    assert "1 the same as another" in done.stderr


def test_subsets_named_in_a_sweep_are_cells_of_their_own(run, result_folders, answers):
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


def test_cell_that_cannot_work_stops_the_sweep_before_anything_runs(run, tmp_path):
    done = run("-m", "model=tiny", "benchmark=mock", "benchmark.limit=1,0,-1")
    assert done.returncode == 1
    assert "2 of 3 experiments cannot work" in done.stderr
    assert "benchmark.limit=0" in done.stderr
    assert "benchmark.limit=-1" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("outputs/*/*/*/*"))


def test_failed_cell_does_not_stop_the_others(run, tmp_path):
    (tmp_path / "empty").mkdir()
    done = run("-m", "benchmark=mock", "model=hf", "model.name_or_path=empty", "seed=1,2")
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
    # custom is no preset: it has no maskers until some are given.
    assert complete == presets - {"custom"}
