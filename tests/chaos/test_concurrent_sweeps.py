"""Sweeps of one matrix at the same time share the work."""

import pytest

from sah.results.state import read_state

MATRIX = (
    *("-m", "model=tiny", "model._target_=counted.CountedModel", "benchmark=mock"),
    *("seed=1,2", "bundle=none", "metric_logging=full"),
)


@pytest.mark.parametrize(
    ("launcher", "sweeps", "attentions"),
    # A process for each cell takes its time: fewer of them.
    [
        ("basic", 2, "sparse,streaming_llm"),
        ("basic", 4, "sparse,streaming_llm"),
        ("local", 2, "sparse"),
    ],
)
def test_sweeps_of_one_matrix_compute_every_cell_once_and_all_succeed(
    launcher, sweeps, attentions, runs, answered, tmp_path
):
    cells = 2 * len(attentions.split(","))
    loads = tmp_path / "loads"
    environment = {"SAH_TEST_LOADS": str(loads)}
    started = [
        runs.start(
            tmp_path,
            *(*MATRIX, f"attention={attentions}", f"hydra/launcher={launcher}"),
            log=tmp_path / f"log{sweep}",
            environment=environment,
        )
        for sweep in range(sweeps)
    ]
    ends = [runs.wait(process) for process in started]
    assert ends == [0] * sweeps, [path.read_text() for path in tmp_path.glob("log*")]
    assert len(loads.read_text().splitlines()) == cells
    folders = [path.parent for path in answered(tmp_path)]
    assert [read_state(folder).state for folder in folders] == ["done"] * cells
    assert not list(tmp_path.glob("outputs/*/*/*/*/error.json"))
