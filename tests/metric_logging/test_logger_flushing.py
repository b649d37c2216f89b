"""Pending records are flushed by count, after an interval, at exit and on SIGTERM."""

import signal
import subprocess
import sys
import time

import orjson
import pytest
import torch


@pytest.fixture
def run_python(tmp_path):
    """Start a Python program that gets a path in sys.argv[1]."""
    started = []

    def run(program, path):
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_flushes_by_count(configured, records):
    logger = configured(flush_every=3)
    seen = []
    for value in range(7):
        logger.log("number", float(value))
        seen.append(len(records()))
    assert seen == [0, 0, 3, 3, 3, 6, 6]


def test_flushes_after_the_interval_even_if_nothing_more_is_logged(configured, records):
    logger = configured(flush_interval=0.05)
    for count in (1, 2):
        logger.log("number", 1.0)
        give_up = time.monotonic() + 60
        while len(records()) < count and time.monotonic() < give_up:
            time.sleep(0.01)
        assert len(records()) == count


def test_a_flush_without_records_writes_nothing(configured, path):
    configured().flush()
    assert not path.exists()


def test_no_record_is_dropped_or_written_twice(configured, records):
    # The timer's thread and the main thread write concurrently.
    logger = configured(flush_every=7, flush_interval=0.001)
    for value in range(2000):
        logger.log("number", float(value))
    logger.close()
    assert [record["value"] for record in records()] == list(range(2000))


def test_records_stay_pending_if_the_file_cannot_be_written(configured, path, records):
    logger = configured()
    logger.log("number", torch.tensor(1.0))
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        logger.flush()
    path.rmdir()
    logger.log("number", 2.0)
    logger.flush()
    assert [record["value"] for record in records()] == [1.0, 2.0]


LOG_THREE = """
import sys
from pathlib import Path
import torch
from sah.metric_logging import MetricLogging, MicroMetricLogger

MicroMetricLogger.register_metric("number", float)
logging = MetricLogging(name="test", enabled_metrics=["number"])

def log_and_forget(folder):
    logger = logging.logger(folder / "forgotten.jsonl", seed=0)
    logger.log("number", 3.0)

logger = logging.logger(Path(sys.argv[1]) / "log.jsonl", seed=0)
logger.log("number", 1.0)
logger.log("number", torch.tensor(2.0))
log_and_forget(Path(sys.argv[1]))
"""


def values(path):
    return [orjson.loads(line)["value"] for line in path.read_bytes().splitlines()]


def test_flushes_at_exit(run_python, tmp_path):
    process = run_python(LOG_THREE, tmp_path)
    process.communicate()
    assert process.returncode == 0
    assert values(tmp_path / "log.jsonl") == [1.0, 2.0]
    assert values(tmp_path / "forgotten.jsonl") == [3.0]


def test_flushes_on_sigterm_and_terminates(run_python, tmp_path):
    process = run_python(LOG_THREE + "\nprint('ready', flush=True)\nsys.stdin.read()", tmp_path)
    assert process.stdout.readline() == "ready\n"
    assert list(tmp_path.iterdir()) == []
    process.terminate()
    assert process.wait() == -signal.SIGTERM
    assert values(tmp_path / "log.jsonl") == [1.0, 2.0]
    assert values(tmp_path / "forgotten.jsonl") == [3.0]


def test_an_existing_sigterm_handler_is_kept(configured):
    def handler(signum, frame):
        raise AssertionError

    signal.signal(signal.SIGTERM, handler)
    configured()
    assert signal.getsignal(signal.SIGTERM) is handler
