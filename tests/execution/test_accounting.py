"""An arm's peak memory is its own."""

import sys
from typing import Any

import pytest
import torch

from sah.execution.accounting import PeakMemory

LARGE = 300 * 2**20


def work(size: int) -> torch.Tensor:
    return torch.ones(size, dtype=torch.uint8)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_what_another_arm_held_and_gave_back_does_not_count() -> None:
    large, small = PeakMemory(), PeakMemory()
    with large.measured():
        work(LARGE)
    with small.measured():
        work(1)
    assert large.bytes - small.bytes > 0.9 * LARGE


def test_the_highest_of_several_pieces_of_work_counts() -> None:
    arm = PeakMemory()
    with arm.measured():
        work(LARGE)
    after_large = arm.bytes
    with arm.measured():
        work(1)
    assert arm.bytes == after_large > LARGE


def test_work_that_fails_counts() -> None:
    arm = PeakMemory()

    def failing() -> None:
        work(1000)
        raise MemoryError

    with pytest.raises(MemoryError), arm.measured():
        failing()
    assert arm.bytes > 0


def test_where_nothing_forgets_a_peak_it_is_that_of_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr("sah.execution.accounting._PROCESS", tmp_path / "not_there")
    arm = PeakMemory()
    with arm.measured():
        work(1)
    assert arm.bytes > 10 * 2**20
