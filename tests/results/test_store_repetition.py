"""Repetition with resume=false: the old result is kept until the new one is complete."""

from pathlib import Path

import orjson
import pytest

from sah.results import store as store_module
from sah.results.store import ResultStore, is_complete


@pytest.fixture
def completed(folder, claimed, prediction, scores, result):
    """Complete the experiment with answers that carry a mark."""

    def complete(mark, *, resume=True):
        store = ResultStore(folder, folder.name)
        with claimed(store, resume=resume):
            if "a" not in store.predictions:
                store.append(prediction("a", text=mark))
            store.complete(result(mark), scores)

    return complete


@pytest.fixture
def interrupted(folder, claimed, prediction):
    """Start over and be killed after one answer."""

    def begin(mark):
        store = ResultStore(folder, folder.name)
        with claimed(store, resume=False):
            assert store.predictions == {}
            store.append(prediction("a", text=mark))

    return begin


def marks(folder):
    results = orjson.loads((folder / "results.json").read_bytes())
    (answer,) = (folder / "predictions.jsonl").read_bytes().splitlines()
    return results["model"], orjson.loads(answer)["text"]


def test_old_result_is_kept_aside_until_the_new_one_is_complete(
    folder, completed, claimed, prediction, scores, result
):
    completed("old")
    store = ResultStore(folder, folder.name)
    with claimed(store, resume=False):
        assert store.result() is None
        assert store.predictions == {}
        assert marks(folder / ".previous") == ("old", "old")
        store.append(prediction("a", text="new"))
        assert marks(folder / ".previous") == ("old", "old")
        store.complete(result("new"), scores)
    assert marks(folder) == ("new", "new")
    assert not (folder / ".previous").exists()


def test_the_original_result_survives_interrupted_repetitions(folder, completed, interrupted):
    completed("old")
    for attempt in range(3):
        interrupted(f"attempt {attempt}")
        assert marks(folder / ".previous") == ("old", "old")
        assert not is_complete(folder, folder.name)
    completed("new", resume=False)
    assert marks(folder) == ("new", "new")
    assert not (folder / ".previous").exists()


def test_an_interrupted_repetition_may_be_resumed(folder, completed, interrupted):
    completed("old")
    interrupted("new")
    completed("new", resume=True)
    assert marks(folder) == ("new", "new")
    assert not (folder / ".previous").exists()


def test_the_newest_complete_result_is_kept(folder, completed, interrupted, monkeypatch):
    """`complete` was killed after results.json and before it removed what was kept aside."""
    completed("old")
    with monkeypatch.context() as patch:
        patch.setattr(store_module.shutil, "rmtree", lambda *a, **k: None)
        completed("new", resume=False)
    assert marks(folder) == ("new", "new")
    assert marks(folder / ".previous") == ("old", "old")
    interrupted("newest")
    assert marks(folder / ".previous") == ("new", "new")


def test_killed_before_anything_was_moved_the_result_is_kept(folder, completed, interrupted):
    completed("old")
    (folder / ".previous").mkdir()
    interrupted("new")
    assert marks(folder / ".previous") == ("old", "old")


def test_results_are_moved_first(folder, completed, claimed, monkeypatch):
    completed("old")
    moved = []
    real_rename = Path.rename

    def rename(path, target):
        moved.append(path.name)
        return real_rename(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with claimed(ResultStore(folder, folder.name), resume=False):
        pass
    assert moved[0] == "results.json"
    assert "predictions.jsonl" in moved
