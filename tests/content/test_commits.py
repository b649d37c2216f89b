"""What a revision means on this machine."""

import socket
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from sah.content import commits, find_commit

COMMIT, NEWER = "a1" * 20, "b2" * 20


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A Hub cache that knows main of org/name."""
    refs = tmp_path / "models--org--name" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    commits._commit_on_hub.cache_clear()


def never(*arguments: Any, **options: Any) -> None:
    raise AssertionError("asked the Hub")


def test_a_commit_is_itself(monkeypatch):
    monkeypatch.setattr(socket, "create_connection", never)
    assert find_commit("org/other", NEWER, "model") == NEWER


def test_a_branch_is_the_cached_commit_even_with_a_network(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "create_connection", never)
    assert find_commit("org/name", "main", "model") == COMMIT


def test_a_branch_that_is_not_cached_is_asked_for_once(monkeypatch):
    asked = []

    def info(self: Any, repository: str, **options: Any) -> Any:
        asked.append((repository, options["revision"], options["repo_type"]))
        return type("Info", (), {"sha": NEWER})()

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(commits, "is_reachable", lambda endpoint: True)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", info)
    assert [find_commit("org/name", "v2", "dataset") for _ in range(2)] == [NEWER, NEWER]
    assert asked == [("org/name", "v2", "dataset")]


@pytest.mark.parametrize("repository", ["org/other", "not a name", "a/b/c"])
def test_without_a_network_an_uncached_branch_has_no_commit(repository, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(commits, "is_reachable", lambda endpoint: False)
    assert find_commit(repository, "main", "model") is None


def test_what_the_hub_refuses_has_no_commit(monkeypatch):
    def refuse(self: Any, repository: str, **options: Any) -> None:
        raise ConnectionError("no such repository")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(commits, "is_reachable", lambda endpoint: True)
    monkeypatch.setattr(huggingface_hub.HfApi, "repo_info", refuse)
    assert find_commit("org/other", "main", "model") is None
