"""The error of a cell whose process ended without one."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from sah.launching import pool
from sah.launching.bundles import Bundle
from sah.launching.outcome import CellWatch
from sah.launching.plan import Cell
from sah.results.state import read_state


@pytest.mark.parametrize(
    ("status", "category", "message"),
    [
        (1, "unknown", "ended with status 1;"),
        # There is no signal 127.
        (255, "unknown", "ended with status 255;"),
        (128 + 15, "interrupt", "killed by SIGTERM;"),
        (128 + 9, "memory", "killed by SIGKILL;"),
    ],
)
def test_the_exit_status_explains_a_job_that_wrote_no_error(status, category, message, tmp_path):
    cell = Cell(number=0, overrides=(), directory=tmp_path / "cell", packed_config=None)
    command = [sys.executable, "-c", f"import os; os._exit({status})"]
    process = subprocess.Popen(command, start_new_session=True)
    process.wait()
    pool._settle(
        pool._Running(
            bundle=Bundle(cells=(cell,)),
            process=process,
            watch=CellWatch([cell]),
            started=time.monotonic(),
            log=Path("job.log"),
        )
    )
    error = read_state(cell.directory).error
    assert error.category == category
    assert error.message == f"{message} its log is job.log"
