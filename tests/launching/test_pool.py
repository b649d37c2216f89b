"""The error of a cell whose process ended without one, and processes that go on."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sah.launching import pool
from sah.launching.bundles import Bundle
from sah.launching.outcome import CellWatch
from sah.launching.plan import Cell
from sah.launching.settings import LauncherSettings
from sah.results.state import read_state


def is_alive(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    # Whoever inherits a killed one may not collect it at once.
    return state != "Z"


class EndedWorker:
    def __init__(self, exit_code):
        self.exit_code = exit_code

    def end(self):
        pass


@pytest.mark.parametrize(
    ("status", "category", "message"),
    [
        (1, "unknown", "ended with status 1;"),
        # There is no signal 127.
        (255, "unknown", "ended with status 255;"),
        (128 + 15, "interrupt", "killed by SIGTERM;"),
        (-15, "interrupt", "killed by SIGTERM;"),
        (-9, "memory", "killed by SIGKILL;"),
    ],
)
def test_the_exit_status_explains_a_job_that_wrote_no_error(status, category, message, tmp_path):
    cell = Cell(number=0, overrides=(), directory=tmp_path / "cell", packed_config=None)
    pool.settle(
        pool.Running(
            bundle=Bundle(cells=(cell,)),
            worker=EndedWorker(status),
            watch=CellWatch([cell]),
            started=time.monotonic(),
            log=Path("job.log"),
        )
    )
    error = read_state(cell.directory).error
    assert error.category == category
    assert error.message == f"{message} its log is job.log"


def test_a_process_goes_on_with_bundles_of_its_model_until_one_leaves_it_unclean(tmp_path):
    models = ["a", "a", "b", "a", "b", "b", "c", "c"]
    bundles = [
        Bundle(
            cells=(
                Cell(
                    number=number,
                    overrides=(),
                    directory=tmp_path / "cells" / str(number),
                    packed_config=None,
                    model_key=model,
                ),
            )
        )
        for number, model in enumerate(models)
    ]
    processes, loader = tmp_path / "processes", tmp_path / "loader"
    order = []

    def make_job(bundle):
        number = bundle.number

        def job(models):
            with processes.open("a") as file:
                file.write(f"{number} {os.getpid()} {os.environ['CUDA_VISIBLE_DEVICES']}\n")
            if number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            if number == 6:
                loader.write_text(str(subprocess.Popen(["sleep", "1000"]).pid))
            # Its arms have failed.
            return number != 4

        order.append(number)
        return job

    slots = [pool.Slot(gpus=("7",), threads=1)]
    pool.run_pool(
        bundles, make_job, slots, tmp_path / "jobs", LauncherSettings(), lambda running: None
    )
    # Those of the model at hand first.
    assert order == [0, 1, 2, 4, 3, 5, 6, 7]
    lines = [line.split() for line in processes.read_text().splitlines()]
    assert [int(number) for number, _, _ in lines] == order
    assert {gpus for _, _, gpus in lines} == {"7"}
    process = {int(number): int(pid) for number, pid, _ in lines}
    assert process[0] == process[1]
    assert process[2] == process[4]
    assert len({process[number] for number in (0, 2, 3, 5, 6, 7)}) == 6
    # A data loader that is left would hold the GPU.
    while is_alive(int(loader.read_text())):
        time.sleep(0.01)
    (killed,) = tmp_path.glob("cells/*/error.json")
    assert killed.parent.name == "1"
    assert read_state(killed.parent).error.category == "memory"
