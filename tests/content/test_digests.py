"""Digests of files and folders: by content alone, and never an old one."""

import os
import time
from pathlib import Path

import pytest

from sah.content import digest, digest_of_files, digests, package_versions


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory."""
    monkeypatch.setenv("SAH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "_remembered", {})
    return tmp_path / "cache"


def write(path: Path, content: bytes, *, age: float = 0.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def test_a_digest_is_of_the_content_whatever_the_path(tmp_path):
    one, other = write(tmp_path / "a.jsonl", b"x"), write(tmp_path / "b" / "c.jsonl", b"x")
    assert digest(one) == digest(other)
    assert digest(one) != digest(write(tmp_path / "d", b"y"))


def test_a_folder_is_its_visible_files_in_order_of_their_names(tmp_path):
    for name in ("one", "other"):
        write(tmp_path / name / "a.txt", b"1")
        write(tmp_path / name / "sub" / "b.txt", b"2")
    write(tmp_path / "other" / ".git" / "index", b"3")
    write(tmp_path / "other" / ".hidden", b"4")
    assert digest(tmp_path / "one") == digest(tmp_path / "other")
    write(tmp_path / "other" / "sub" / "c.txt", b"5")
    assert digest(tmp_path / "one") != digest(tmp_path / "other")


def test_contents_cannot_be_moved_from_one_file_to_the_next(tmp_path):
    one = [write(tmp_path / "a", b"12"), write(tmp_path / "b", b"3")]
    other = [write(tmp_path / "c", b"1"), write(tmp_path / "d", b"23")]
    assert digest_of_files(one) != digest_of_files(other)


def test_what_does_not_exist_has_no_digest(tmp_path):
    assert digest(tmp_path / "nothing") is None


def test_a_link_is_what_it_points_to(tmp_path):
    for name in ("old", "new"):
        write(tmp_path / name / "file", name.encode())
    latest = tmp_path / "latest"
    latest.symlink_to(tmp_path / "old")
    assert digest(latest) == digest(tmp_path / "old")
    latest.unlink()
    latest.symlink_to(tmp_path / "new")
    assert digest(latest) == digest(tmp_path / "new")


def test_a_file_is_read_again_only_if_it_has_changed(tmp_path, calls):
    read = calls(digests, "_whole")
    file = write(tmp_path / "file", b"1", age=60)
    assert digest(file) == digest(file)
    assert len(read) == 1
    write(file, b"2", age=30)
    digest(file)
    assert len(read) == 2


def test_a_file_of_this_moment_is_read_every_time(tmp_path):
    """It may be written twice within the resolution of its time of change."""
    file = write(tmp_path / "file", b"1")
    status = file.stat()
    first = digest(file)
    file.write_bytes(b"2")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digest(file) != first


def test_large_files_are_remembered_by_later_processes(tmp_path, cache, calls, monkeypatch):
    monkeypatch.setattr(digests, "_REMEMBERED_ON_DISK", 4)
    file = write(tmp_path / "file", b"12345", age=60)
    first = digest(file)
    read = calls(digests, "_whole")
    monkeypatch.setattr(digests, "_remembered", {})
    assert digest(file) == first
    assert read == []
    (remembered,) = (cache / "digests").iterdir()
    remembered.write_text("torn")
    monkeypatch.setattr(digests, "_remembered", {})
    assert digest(file) == first
    assert len(read) == 1


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "_REMEMBERED_ON_DISK", 0)
    monkeypatch.setenv("SAH_CACHE", str(write(tmp_path / "file", b"")))
    assert digest(write(tmp_path / "data", b"1", age=60)) is not None


def test_packages_that_are_not_installed_have_no_version():
    assert package_versions(["omegaconf", "no-such-package"]).keys() == {"omegaconf"}
