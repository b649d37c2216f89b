"""Workers of a sweep that are killed at any moment finish every cell, each once."""

import os

import pytest

from sah.results.files import read_json_lines
from sah.results.state import read_state

# Eight workers and 200 cells in `make chaos`.
IS_WHOLE = "SAH_CHAOS_MOMENTS" in os.environ
WORKERS, SEEDS, KILLS = (8, 100, 12) if IS_WHOLE else (2, 2, 1)
ATTENTIONS = ("sparse", "random_sampling")
MATRIX = (
    *("-m", "hydra/launcher=workers", "model=tiny", "benchmark=mock", "metric_logging=off"),
    *(f"attention={','.join(ATTENTIONS)}", f"seed=range({SEEDS})", "bundle=none"),
)
EXAMPLES = 5


@pytest.mark.timeout(3600 if IS_WHOLE else 120)
def test_workers_killed_at_random_finish_every_cell_once(drawing, runs, answered, tmp_path):
    log = tmp_path / "plan.log"
    assert runs.run(tmp_path, *MATRIX, log=log) == 0, log.read_text()
    (folder,) = tmp_path.glob("outputs/.sweeps/2*")
    started = []

    def start():
        log = tmp_path / f"worker{len(started)}.log"
        started.append(log)
        return runs.start(tmp_path, "work", str(folder), log=log)

    def answers():
        return sum(text.count(b"\n") for text in answered(tmp_path).values())

    workers = [start() for _ in range(WORKERS)]
    cells = len(ATTENTIONS) * SEEDS
    seen = []
    # Fewer than all, so that the victim may be at work.
    for count in sorted(drawing.sample(range(1, EXAMPLES * (cells - 1)), KILLS)):
        victim = drawing.choice(workers)
        number = drawing.choice([9, 9, 15, 2])
        runs.stop(victim, number, when=lambda c=count: answers() >= c, look_every_seconds=0.01)
        runs.wait(victim)
        seen.append(answered(tmp_path))
        workers[workers.index(victim)] = start()
    ends = [runs.wait(worker) for worker in workers]
    assert ends == [0] * WORKERS, [path.read_text() for path in started]

    def states():
        folders = [path.parent for path in tmp_path.glob("outputs/*/*/*/*/config.yaml")]
        return sorted(read_state(one).state for one in folders)

    # A job may outlive its worker for a moment, and the others leave it alone.
    while states() != ["done"] * cells:
        runs.wait(start())
    for before in seen:
        for path, lines in before.items():
            # Times included: no example is answered twice.
            assert path.read_bytes().startswith(lines)
    for path in answered(tmp_path):
        ids = [line["example_id"] for line in read_json_lines(path)[0]]
        assert len(ids) == len(set(ids)) == EXAMPLES
