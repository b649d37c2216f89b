"""Rescoring and reports stopped at any moment lose no answer and leave no partial file."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copytree

import pytest
from hydra import compose, initialize_config_dir

from sah.benchmarks.mock import Mock
from sah.errors import ConfigurationError, SahError
from sah.execution.attempts import compute_arms
from sah.paths import config_folder
from sah.report.reading.collect import collect
from sah.report.saving import save

RESCORE = ("rescore", "outputs")
# The commands of a kind take turns.
REPORTS = {
    "report": (
        ("report", "outputs", "--format", "html", "-o", "written/report.html"),
        ("report", "outputs", "--figures", "written", "--format", "csv", "-o", "written/all.csv"),
        ("report", "outputs", "--by", "attention", "-o", "written/table.txt"),
    ),
    "compare": (
        ("compare", "outputs", "--format", "latex", "-o", "written/table.tex"),
        ("compare", "outputs", "--per-task", "--format", "md", "-o", "written/table.md"),
    ),
}


@dataclass(frozen=True)
class Undisturbed:
    """What a command leaves without interruption, and the CPU time it takes."""

    root: Path
    cpu_seconds: float


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but hidden ones, which a killed process leaves."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = {path: path.relative_to(folder) for path in paths}
    return {
        str(name): path.read_bytes()
        for path, name in names.items()
        if not any(part.startswith(".") for part in name.parts)
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with two complete experiments, whose scores are those of an earlier scorer."""
    folder = tmp_path_factory.mktemp("finished")
    real = Mock.score
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        arms = [
            compose(
                "config",
                [
                    *("model=tiny", "benchmark=mock", "metric_logging=full"),
                    *(f"attention={name}", f"output_root={folder / 'outputs'}"),
                ],
            )
            for name in ("dense", "random_sampling")
        ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Mock,
            "score",
            lambda *arguments: [replace(one, score=0.5) for one in real(*arguments)],
        )
        compute_arms([(arm, []) for arm in arms])
    return folder


@pytest.fixture(scope="module")
def undisturbed(runs, finished, how_far, tmp_path_factory) -> Callable[..., Undisturbed]:
    """Run a command without interruption on a copy of the finished results; once each."""
    known = {}

    def look(*arguments: str) -> Undisturbed:
        if arguments not in known:
            root = copytree(finished, tmp_path_factory.mktemp("undisturbed") / "root")
            process = runs.start(root, *arguments, log=root / "log")
            # Only waits: CPU time must be read before the exit status.
            runs.stop(process, 0, when=lambda: False)
            seconds = how_far(process)
            assert runs.wait(process) == 0, (root / "log").read_text()
            known[arguments] = Undisturbed(root, seconds)
        return known[arguments]

    return look


@pytest.fixture
def root(finished, tmp_path) -> Path:
    return copytree(finished, tmp_path / "root")


@pytest.fixture
def stopped(runs, how_far, drawing, number, undisturbed, root) -> Callable[..., None]:
    """Run a command in `root` and send this moment's signal at a random time."""

    def stop(*arguments: str) -> None:
        process = runs.start(root, *arguments)
        when = drawing.uniform(0, undisturbed(*arguments).cpu_seconds)
        runs.stop(process, number, when=lambda: how_far(process) >= when)
        runs.wait(process)

    return stop


@pytest.fixture
def small_disk(tmp_path, root):
    """A disk with a copy of the finished results and this much room; returns the ballast too."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    disk = tmp_path / "disk"
    disk.mkdir()

    def make(room_kb: int) -> tuple[Path, Path]:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)], capture_output=True
        )
        if done.returncode != 0:
            pytest.skip(f"mount: {done.stderr.decode().strip()}")
        copytree(root, disk, dirs_exist_ok=True)
        ballast, free = disk / "ballast", os.statvfs(disk)
        ballast.write_bytes(bytes(max(0, free.f_bavail * free.f_frsize - room_kb * 1024)))
        return disk, ballast

    yield make
    subprocess.run(["umount", "--lazy", str(disk)], check=False)


def answers(root: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(root): path.read_bytes()
        for pattern in ("predictions.jsonl", "micro_metrics.jsonl", "examples.jsonl")
        for path in root.rglob(pattern)
    }


def scores(root: Path) -> dict[str, float | None]:
    """The scores that reports show, by attention."""
    try:
        return {result.attention: result.score for result in collect(root / "outputs")}
    except ConfigurationError:
        # None is left.
        return {}


OLD = {"dense": 0.5, "random_sampling": 0.5}
NEW = {"dense": 0.0, "random_sampling": 0.0}


def stored_scores(root: Path) -> dict[str, str]:
    return {
        path.parents[2].name: path.read_text() for path in root.glob("outputs/*/*/*/*/scores.jsonl")
    }


def check_interrupted_rescore(root: Path, finished: Path, new: Path) -> None:
    """Check that every result is the old one, the new one, or left out by reports."""
    assert answers(root) == answers(finished)
    for attention, score in scores(root).items():
        of = finished if score == OLD[attention] else new
        assert score in (OLD[attention], NEW[attention])
        assert stored_scores(root)[attention] == stored_scores(of)[attention]


def test_a_stopped_rescore_leaves_old_or_new_results_and_another_one_completes_it(
    moment, stopped, runs, undisturbed, finished, outcome, root, tmp_path
):
    new = undisturbed(*RESCORE).root
    assert (scores(finished), scores(new)) == (OLD, NEW)
    stopped(*RESCORE)
    check_interrupted_rescore(root, finished, new)
    log = tmp_path / "log"
    assert runs.run(root, *RESCORE, log=log) == 0, log.read_text()
    assert outcome(root) == outcome(new)
    assert answers(root) == answers(finished)


def test_a_rescore_on_a_full_disk_is_completed_when_there_is_room(
    moment, drawing, small_disk, runs, undisturbed, finished, outcome, tmp_path
):
    disk, ballast = small_disk(room_kb=drawing.randrange(48))
    log = tmp_path / "log"
    status = runs.run(disk, *RESCORE, log=log)
    check_interrupted_rescore(disk, finished, undisturbed(*RESCORE).root)
    if status != 0:
        assert "[Errno 28] No space left on device" in log.read_text()
        assert "Traceback" not in log.read_text()
    ballast.unlink()
    assert runs.run(disk, *RESCORE, log=log) == 0, log.read_text()
    assert outcome(disk) == outcome(undisturbed(*RESCORE).root)


@pytest.fixture(params=REPORTS)
def report(request, moment) -> tuple[str, ...]:
    """The arguments of `sah report` or `sah compare` at this moment."""
    commands = REPORTS[request.param]
    return commands[moment % len(commands)]


def test_a_stopped_report_leaves_whole_files_and_its_results_untouched(
    report, stopped, undisturbed, root
):
    def inputs():
        statuses = {path: path.stat() for path in (root / "outputs").rglob("*")}
        return {path: (status.st_ino, status.st_mtime_ns) for path, status in statuses.items()}

    before = inputs()
    whole = contents(undisturbed(*report).root / "written")
    assert whole
    stopped(*report)
    assert contents(root / "written").items() <= whole.items()
    assert inputs() == before


def test_a_report_on_a_full_disk_is_one_message_and_leaves_whole_files(
    report, drawing, small_disk, runs, undisturbed, tmp_path
):
    whole = contents(undisturbed(*report).root / "written")
    room_kb = drawing.randrange(sum(map(len, whole.values())) // 1024 + 8)
    disk, ballast = small_disk(room_kb)
    log = tmp_path / "log"
    if runs.run(disk, *report, log=log) != 0:
        assert "cannot be written: No space left on device; make room" in log.read_text()
        assert "Traceback" not in log.read_text()
    assert contents(disk / "written").items() <= whole.items()
    ballast.unlink()
    assert runs.run(disk, *report, log=log) == 0, log.read_text()
    assert contents(disk / "written") == whole


def test_a_report_replaces_what_an_earlier_one_wrote_as_a_whole(tmp_path, monkeypatch):
    target, link = tmp_path / "table.md", tmp_path / "link.md"
    target.write_text("old")
    link.symlink_to(target)
    save(link, b"new")
    assert (target.read_text(), link.is_symlink()) == ("new", True)
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(SahError, match=r"table\.md cannot be written: full; make room"):
            save(target, b"newer")
    assert target.read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.md", "table.md"]
    save(Path(os.devnull), b"nowhere")
    assert not Path(os.devnull).is_file()
