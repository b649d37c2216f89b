"""Sweeps of one matrix that run at the same time share the work."""

import pytest

from sah.results.state import read_state

MATRIX = (
    *("-m", "model=tiny", "model._target_=counted.CountedModel", "benchmark=mock"),
    *("attention=sparse,streaming_llm", "seed=1,2", "bundle=none", "metric_logging=full"),
)
CELLS = 4
LAUNCHERS = {
    "basic": ("hydra/launcher=basic",),
    # A load for each cell.
    "local": ("hydra/launcher=local", "hydra.launcher.keep_model=false"),
}


@pytest.mark.parametrize(
    ("sweeps", "launcher"),
    [(2, "basic"), (4, "basic"), pytest.param(2, "local", marks=pytest.mark.slow)],
)
def test_sweeps_of_one_matrix_compute_every_cell_once_and_all_succeed(
    sweeps, launcher, runs, answered, tmp_path
):
    loads = tmp_path / "loads"
    environment = {"SAH_TEST_LOADS": str(loads)}
    started = [
        runs.start(
            tmp_path,
            *(*MATRIX, *LAUNCHERS[launcher]),
            log=tmp_path / f"log{sweep}",
            environment=environment,
        )
        for sweep in range(sweeps)
    ]
    ends = [runs.wait(process) for process in started]
    assert ends == [0] * sweeps, [path.read_text() for path in tmp_path.glob("log*")]
    assert len(loads.read_text().splitlines()) == CELLS
    folders = [path.parent for path in answered(tmp_path)]
    assert [read_state(folder).state for folder in folders] == ["done"] * CELLS
    assert not list(tmp_path.glob("outputs/*/*/*/*/error.json"))
