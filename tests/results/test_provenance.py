"""Provenance: the commit of the code, and whether it has changes."""

import subprocess

import pytest

import sah
from sah.results.provenance import provenance


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with the package committed, from which the running code seems to come."""
    for name in ("sah", "conf", "docs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    monkeypatch.setattr(sah, "__file__", str(tmp_path / "sah" / "__init__.py"))
    provenance.cache_clear()
    yield tmp_path
    provenance.cache_clear()


def git(folder, *arguments):
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def code_of(found):
    return found["git_commit"], found["git_dirty"]


def test_committed_code_is_named_by_its_commit(checkout):
    assert code_of(provenance()) == (git(checkout, "rev-parse", "HEAD"), False)


@pytest.mark.parametrize(
    ("path", "dirty"),
    [
        ("sah/__init__.py", True),
        ("docs/__init__.py", True),
        # A new method is a new file and a new option.
        ("sah/maskers/mine.py", True),
        ("conf/masker/mine.yaml", True),
        ("hydra_plugins/mine/launcher.py", True),
        ("outputs/results.json", False),
    ],
)
def test_uncommitted_code_is_flagged(path, dirty, checkout):
    (checkout / path).parent.mkdir(parents=True, exist_ok=True)
    (checkout / path).write_text("changed = True")
    assert code_of(provenance()) == (git(checkout, "rev-parse", "HEAD"), dirty)


def test_an_installation_inside_an_unrelated_repository_has_no_commit(checkout, monkeypatch):
    package = checkout / "venv" / "sah"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(sah, "__file__", str(package / "__init__.py"))
    assert code_of(provenance()) == (None, None)


def test_without_a_repository_or_git_there_is_no_commit(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert code_of(provenance()) == (None, None)
