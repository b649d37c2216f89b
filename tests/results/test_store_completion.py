"""Completion and errors of a store: scores.jsonl, results.json and error.json."""

import errno
import re
from pathlib import Path

import orjson
import pytest

from sah.errors import DamagedResults
from sah.results import store as store_module
from sah.results.schema import to_document
from sah.results.store import is_complete, read_result

# -- completion ------------------------------------------------------------------------


def test_complete_writes_scores_and_results(
    store, claimed, folder, scores, lines, result, fingerprint
):
    with claimed(store):
        assert store.result() is None
        assert not is_complete(folder, fingerprint)
        written = store.complete(result(), scores)
        found = store.result()
        assert found.directory == folder
        assert to_document(found) == to_document(written)
    document = orjson.loads((folder / "results.json").read_bytes())
    assert list(document)[:3] == ["schema", "fingerprint", "model"]
    assert (document["schema"], document["score"], document["config"]) == (3, 1.0, {"seed": 0})
    assert "directory" not in document
    assert lines(folder / "scores.jsonl") == [
        {
            "example_id": "a",
            "task": "task",
            "score": 1.0,
            "references_hash": None,
            "details": {"words": 2},
            "groups": [],
            "question_id": None,
            "answer": None,
        }
    ]
    assert is_complete(folder, fingerprint)


@pytest.mark.parametrize("resume", [True, False])
def test_results_are_written_last(
    store, claimed, folder, scores, monkeypatch, result, resume, fingerprint
):
    """Killed at any write of `complete`, the experiment is not complete."""
    writes = []

    def record(path: Path, content: object) -> None:
        assert not (folder / "results.json").exists()
        writes.append(path.name)
        if path.name == "results.json":
            raise OSError(errno.ENOSPC, "No space left on device")

    with claimed(store, resume=resume):
        monkeypatch.setattr(store_module, "write_json", record)
        real_write = store_module.write_atomically
        monkeypatch.setattr(
            store_module,
            "write_atomically",
            lambda path, content: (record(path, content), real_write(path, content)),
        )
        with pytest.raises(OSError, match="No space"):
            store.complete(result(), scores)
    assert writes == ["scores.jsonl", "results.json"]
    assert not is_complete(folder, fingerprint)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"schema": 99, "fingerprint": "fingerprint"}', "schema 99"),
        (b'{"fingerprint": "fingerprint"}', "schema None"),
        (b'{"schema": 2, "fingerprint": "another"}', "'another'"),
        (b'{"schema": 2}', "None"),
        (b'{"schema": 2, "fingerprint": "fingerprint"}', "missing required field `score`"),
        (b"not json", "damaged"),
        (b"", "damaged"),
        (b"[]", "damaged"),
    ],
)
def test_a_result_of_another_experiment_is_refused(store, folder, content, message, fingerprint):
    content = content.replace(b'"fingerprint"}', f'"{fingerprint}"}}'.encode())
    folder.mkdir(parents=True)
    (folder / "results.json").write_bytes(content)
    with pytest.raises(DamagedResults, match=message):
        store.result()
    with pytest.raises(DamagedResults, match=message):
        is_complete(folder, fingerprint)
    assert (folder / "results.json").read_bytes() == content


def test_a_result_is_read_without_knowing_its_fingerprint(store, claimed, folder, scores, result):
    with claimed(store):
        store.complete(result(), scores)
    assert read_result(folder).score == 1


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("score",), "high", "Expected `float | null`, got `str` - at `$.score`"),
        (("n",), 2.5, "Expected `int`, got `float` - at `$.n`"),
        (("truncated",), True, "Expected `int`, got `bool` - at `$.truncated`"),
        (("tasks",), [], "Expected `object`, got `array` - at `$.tasks`"),
        (("subset",), [1], "Expected `str`, got `int` - at `$.subset[0]`"),
        (("timing", "new_tokens"), None, "Expected `int`, got `null` - at `$.timing.new_tokens`"),
        (
            ("provenance", "git_dirty"),
            "no",
            "Expected `bool | null`, got `str` - at `$.provenance.git_dirty`",
        ),
        (("provenance", "data"), "x", "Expected `array`, got `str` - at `$.provenance.data`"),
        (
            ("tasks", "vt", "groups"),
            {"easy": {}},
            "required field `score` - at `$.tasks[...].groups[...]`",
        ),
    ],
)
def test_a_wrong_type_is_damage_that_names_file_and_field(
    store, claimed, folder, scores, result, path, value, message
):
    with claimed(store):
        store.complete(result(), scores)
    file = folder / "results.json"
    document = orjson.loads(file.read_bytes())
    document["tasks"]["vt"] = {"score": 1, "stderr": None, "n": 1, "contexts": 1}
    file.write_bytes(orjson.dumps(document))
    assert read_result(folder, with_scores=False).tasks["vt"].score == 1
    part = document
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    file.write_bytes(orjson.dumps(document))
    with pytest.raises(DamagedResults, match=re.escape(message)) as caught:
        read_result(folder)
    assert str(file) in str(caught.value)


# -- errors ----------------------------------------------------------------------------


def test_attempts_are_counted_and_the_last_error_is_kept(store, claimed, folder):
    with claimed(store):
        for attempt, error in enumerate((ValueError("first"), MemoryError("second")), start=1):
            try:
                raise error
            except (ValueError, MemoryError) as caught:
                store.record_error(caught)
            written = orjson.loads((folder / "error.json").read_bytes())
            assert written["attempt"] == attempt
    assert written["category"] == "memory"
    assert written["type"] == "MemoryError"
    assert written["message"] == "second"
    assert "raise error" in written["traceback"]
    assert written["time"].endswith("+00:00")


def test_a_damaged_error_file_does_not_hide_the_error(store, claimed, folder):
    with claimed(store):
        (folder / "error.json").write_text("half an err")
        store.record_error(ValueError("again"))
    written = orjson.loads((folder / "error.json").read_bytes())
    assert (written["message"], written["attempt"]) == ("again", 1)


def test_the_error_is_removed_on_completion(store, claimed, folder, scores, result):
    with claimed(store):
        store.record_error(ValueError())
        assert (folder / "error.json").exists()
        store.complete(result(), scores)
    assert not (folder / "error.json").exists()
