"""Which GPUs a sweep uses, and how its jobs share them."""

import logging
import sys

import pytest

from sah.errors import ConfigurationError
from sah.launching.gpus import chosen_gpus, divide_gpus, installed_gpus
from sah.launching.pool import find_slots
from sah.launching.settings import LauncherSettings
from sah.launching.slurm import _gpus


@pytest.fixture
def machine(fake_nvml, monkeypatch):
    """Install a machine's NVML: `machine(count=1)`."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def install(**facts):
        monkeypatch.syspath_prepend(fake_nvml(**facts))
        monkeypatch.delitem(sys.modules, "pynvml", raising=False)

    yield install
    sys.modules.pop("pynvml", None)


@pytest.fixture(autouse=True)
def four_gpus(machine):
    machine()


def see(monkeypatch: pytest.MonkeyPatch, visible: str | None) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


def test_gpus_and_mig_devices_are_found():
    assert [gpu.index for gpu in installed_gpus()] == ["0", "1", "2", "3", "MIG-42"]


@pytest.mark.parametrize(
    ("visible", "requested", "expected"),
    [
        (None, None, ["0", "1", "2", "3"]),
        (None, [3, 1], ["3", "1"]),
        (None, ["MIG-42", "GPU-2abc"], ["MIG-42", "GPU-2abc"]),
        ("2, GPU-0abc", None, ["2", "GPU-0abc"]),
        ("1,-1,2", None, ["1"]),
        ("", None, []),
        ("-1", None, []),
        ("1,2", [2], ["2"]),
        (None, [], []),
    ],
)
def test_requested_gpus_come_before_visible_ones_and_those_before_all(
    monkeypatch, visible, requested, expected
):
    see(monkeypatch, visible)
    assert chosen_gpus(requested) == expected


@pytest.mark.parametrize(
    ("visible", "requested", "expected"),
    [
        (None, [7], ["no GPU '7'", "0: Fake GPU", "MIG-42"]),
        ("0,1", [2], ["'2' is hidden", "CUDA_VISIBLE_DEVICES=0,1"]),
        (None, [1, 1], ["twice"]),
        ("9", None, ["no GPU '9'"]),
    ],
)
def test_an_unusable_gpu_is_named(monkeypatch, visible, requested, expected):
    see(monkeypatch, visible)
    with pytest.raises(ConfigurationError) as caught:
        chosen_gpus(requested)
    for part in expected:
        assert part in str(caught.value)


def test_without_a_driver_there_is_no_gpu(machine):
    machine(init="raise NVMLError_LibraryNotFound")
    assert chosen_gpus(None) == []
    with pytest.raises(ConfigurationError, match="finds no GPU"):
        chosen_gpus([0])


def test_an_error_of_the_driver_is_quoted(machine):
    machine(init="raise NVMLError('driver mismatch')")
    with pytest.raises(ConfigurationError, match="driver mismatch"):
        chosen_gpus(None)


def test_a_gpu_with_little_free_memory_gives_a_warning(machine, caplog):
    machine(count=1, free_mib=900)
    with caplog.at_level(logging.WARNING):
        assert chosen_gpus(None) == ["0"]
    assert "Fake GPU" in caplog.text
    assert "0.9 GiB free" in caplog.text


def test_slots_have_the_full_number_of_gpus_and_share_none():
    assert divide_gpus(["0", "1", "2", "3", "4"], 2) == [("0", "1"), ("2", "3")]
    with pytest.raises(ConfigurationError, match=r"gpus_per_job=3.*only 2"):
        divide_gpus(["0", "1"], 3)


def test_every_slot_sees_only_its_own_gpu():
    found = find_slots(LauncherSettings())
    assert [slot.environment["CUDA_VISIBLE_DEVICES"] for slot in found] == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("gres", "count"),
    [
        ("gpu:4", 4),
        ("gpu:a100:8(S:0-1)", 8),
        ("gpu:(null):2(IDX:0,3)", 2),
        ("gpu:a100:2(IDX:0-1),gpu:t4:1(IDX:2)", 3),
        ("(null)", 0),
    ],
)
def test_gpus_are_counted_in_the_gres_of_sinfo(gres, count):
    assert _gpus(gres) == count


def test_max_concurrent_caps_the_slots():
    assert len(find_slots(LauncherSettings(max_concurrent=2))) == 2


def test_cpu_workers_divide_the_threads_and_see_no_gpu(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)))
    found = find_slots(LauncherSettings(gpus_per_job=0, cpu_workers=3))
    assert [slot.threads_environment["OMP_NUM_THREADS"] for slot in found] == ["2", "2", "2"]
    assert {slot.environment["CUDA_VISIBLE_DEVICES"] for slot in found} == {""}


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("gpus_per_job", -1),
        ("cpu_workers", 0),
        ("max_concurrent", 0),
        ("timeout_min", 0),
        ("poll_seconds", -1.0),
        ("grace_seconds", -1.0),
        ("signal_delay_s", -5),
        ("partition", 3),
        ("gpus", "0,1"),
    ],
)
def test_an_invalid_setting_is_named(setting, value):
    with pytest.raises(ValueError, match=setting):
        LauncherSettings(**{setting: value})
