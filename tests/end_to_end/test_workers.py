"""hydra/launcher=workers plans a sweep, and `sah work` computes it from its folder."""

import json

import pytest

MATRIX = (
    *("-m", "hydra/launcher=workers", "model=tiny", "benchmark=mock", "metric_logging=off"),
    *("attention=dense,sparse", "seed=1,2"),
)


@pytest.fixture
def planned(run, tmp_path):
    done = run(*MATRIX)
    assert done.returncode == 0, done.stderr
    assert "2 bundles wait for workers: sah work outputs/.sweeps/" in done.stderr
    (folder,) = tmp_path.glob("outputs/.sweeps/2*")
    return folder


def test_a_worker_computes_what_is_left_of_a_sweep(planned, run, result_folders):
    done = run("work", str(planned))
    assert done.returncode == 0, done.stderr
    assert len(result_folders()) == 4
    assert done.stderr.splitlines()[-1].endswith("] 4 done")
    again = run("work", str(planned))
    assert again.returncode == 0, again.stderr
    assert len(again.stderr.splitlines()) == 1
    # The arms of a bundle shared a process, its model and its prefills.
    assert done.stderr.count("2 arms shared their prefills") == 2


def test_a_cell_that_composes_to_another_experiment_is_refused(planned, run, result_folders):
    path = planned / "plan.json"
    plan = json.loads(path.read_text())
    plan["planned"][0]["overrides"].append("benchmark.limit=1")
    path.write_text(json.dumps(plan))
    done = run("work", str(planned))
    assert done.returncode == 1
    assert "is another experiment here" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_folder_of_another_thing_is_refused(run, tmp_path):
    done = run("work", str(tmp_path))
    assert done.returncode == 1
    assert "has no plan.json: give the folder of a sweep" in done.stderr
