"""CPU time, and the peak memory of an arm, which excludes that of the other arms."""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from sah.execution.accounting import CpuTime, PeakMemory


def spin() -> int:
    return sum(number * number for number in range(2_000_000))


def test_cpu_time_of_a_thread_does_not_include_that_of_others_or_waiting() -> None:
    cpu = CpuTime()
    with ThreadPoolExecutor(1) as other:
        other.submit(spin).result()
    process, thread = cpu.used()
    assert 0 <= thread < 0.5 * process
    alone = CpuTime()
    spin()
    assert alone.used()[1] == pytest.approx(alone.used()[0], rel=0.3)


LARGE = 300 * 2**20


def work(size: int) -> torch.Tensor:
    return torch.ones(size, dtype=torch.uint8)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
def test_memory_that_another_arm_has_released_does_not_count() -> None:
    large, small = PeakMemory(), PeakMemory()
    with large.measured():
        work(LARGE)
    with small.measured():
        work(1)
    assert large.bytes - small.bytes > 0.9 * LARGE


def test_the_highest_peak_of_several_blocks_counts() -> None:
    arm = PeakMemory()
    with arm.measured():
        work(LARGE)
    after_large = arm.bytes
    with arm.measured():
        work(1)
    assert arm.bytes == after_large > LARGE


def test_a_block_that_fails_counts() -> None:
    arm = PeakMemory()

    def failing() -> None:
        work(1000)
        raise MemoryError

    with pytest.raises(MemoryError), arm.measured():
        failing()
    assert arm.bytes > 0


def test_where_the_peak_cannot_be_reset_it_is_that_of_the_process(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr("sah.execution.accounting._PROCESS", tmp_path / "not_there")
    arm = PeakMemory()
    with arm.measured():
        work(1)
    assert arm.bytes > 10 * 2**20
