"""Full disks, read-only disks, and directories that vanish."""

import os
import subprocess
from pathlib import Path

import pytest

from sah.errors import Busy
from sah.results import ResultStore, directory

RUN = ("model=tiny", "benchmark=mock", "metric_logging=full", "generation.temperature=0.8")


@pytest.fixture(scope="module")
def undisturbed(runs, outcome, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    assert runs.run(folder, *RUN) == 0
    return outcome(folder)


@pytest.fixture
def mount():
    """Mount, and unmount after the test; skip the test where we may not mount."""
    mounted = []

    def call(target: Path, *arguments: str) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root may mount")
        command = ["mount", *arguments, str(target)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"{' '.join(command)}: {done.stderr.strip()}")
        mounted.append(target)

    yield call
    for target in reversed(mounted):
        subprocess.run(["umount", "--lazy", str(target)], check=True)


@pytest.fixture
def make_read_only(mount):
    def make(folder: Path) -> None:
        mount(folder, "--bind", str(folder))
        # Root ignores the permissions of a folder.
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)

    return make


@pytest.mark.parametrize("room_kb", [4, 16, 48, 88, 104])
def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_when_there_is_room(
    room_kb, mount, runs, undisturbed, outcome, tmp_path
):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount(disk, "-t", "tmpfs", "-o", "size=1m", "none")
    ballast, log = disk / "ballast", tmp_path / "log"
    ballast.write_bytes(bytes(2**20 - room_kb * 1024 - 4096))
    assert runs.run(disk, *RUN, log=log) == 1
    text = log.read_text()
    assert "filesystem: [Errno 28] No space left on device: 'outputs/tiny/" in text
    assert "Traceback" not in text
    assert outcome(disk) == {}
    ballast.unlink()
    assert runs.run(disk, *RUN, log=log) == 0, log.read_text()
    assert outcome(disk) == undisturbed


@pytest.mark.parametrize(
    ("launcher", "room_kb"), [("basic", 8), ("basic", 48), ("basic", 150), ("local", 100)]
)
def test_a_full_disk_fails_cells_of_a_sweep_and_the_sweep_goes_on_when_there_is_room(
    launcher, room_kb, mount, runs, outcome, tmp_path
):
    sweep = ("-m", *RUN, "attention=sparse,random_sampling", f"hydra/launcher={launcher}")
    undisturbed, disk, log = tmp_path / "undisturbed", tmp_path / "disk", tmp_path / "log"
    undisturbed.mkdir()
    disk.mkdir()
    assert runs.run(undisturbed, *sweep, log=log) == 0, log.read_text()
    mount(disk, "-t", "tmpfs", "-o", "size=2m", "none")
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(2**21 - room_kb * 1024 - 4096))
    assert runs.run(disk, *sweep, log=log) == 1
    assert "[Errno 28] No space left on device" in log.read_text()
    assert "Traceback" not in log.read_text()
    ballast.unlink()
    assert runs.run(disk, *sweep, log=log) == 0, log.read_text()
    assert outcome(disk) == outcome(undisturbed)


def test_a_read_only_output_root_is_refused_by_name(make_read_only, runs, tmp_path):
    root = tmp_path / "outputs"
    root.mkdir()
    make_read_only(root)
    log = tmp_path / "log"
    assert runs.run(tmp_path, *RUN, log=log) == 1
    assert "output_root: cannot write to 'outputs' (Read-only file system)" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_a_finished_experiment_on_a_read_only_disk_is_shown(
    make_read_only, runs, undisturbed, outcome, tmp_path
):
    log = tmp_path / "log"
    assert runs.run(tmp_path, *RUN) == 0
    make_read_only(tmp_path / "outputs")
    assert runs.run(tmp_path, *RUN, log=log) == 0, log.read_text()
    assert outcome(tmp_path) == undisturbed
    assert runs.run(tmp_path, "-m", *RUN, log=log) == 1
    assert "output_root: cannot write to 'outputs' (Read-only file system)" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_one_directory_that_cannot_be_written_fails_alone(
    make_read_only, runs, outcome, configure, tmp_path
):
    arms = tuple((*RUN, f"attention={name}") for name in ("dense", "sparse"))
    folder = directory(configure(*RUN, "attention=dense"))
    folder.mkdir(parents=True)
    make_read_only(folder)
    assert runs.run(tmp_path, arms=arms) == 1
    assert [Path(name).parts[2] for name in outcome(tmp_path)] == ["sparse"]


@pytest.mark.parametrize("logging", ["full", "off"])
def test_a_directory_that_vanishes_ends_the_run_and_is_not_recreated(
    logging, here, configure, monkeypatch, tmp_path
):
    overrides = (f"metric_logging={logging}", "generation.temperature=0.8")
    folder, away = directory(configure(*overrides)), tmp_path / "away"
    real_append = ResultStore.append

    def append(store, prediction):
        real_append(store, prediction)
        if len(store.predictions) == 2:
            folder.rename(away)

    with monkeypatch.context() as patch:
        patch.setattr(ResultStore, "append", append)
        with pytest.raises(Busy, match="no longer exists: it was removed or renamed"):
            here(*overrides)
    assert not folder.exists()
    # Moved back, it goes on. Its claim names this process, which is alive.
    away.rename(folder)
    (folder / ".claim").unlink()
    before = (folder / "predictions.jsonl").read_bytes()
    assert before.count(b"\n") == 2
    here(*overrides)
    assert (folder / "predictions.jsonl").read_bytes().startswith(before)
    assert (folder / "results.json").exists()
