import dataclasses
import errno
import logging
import os
import re
import tracemalloc
from pathlib import Path

import orjson
import pytest

from sah.errors import Busy, ConfigurationError, DamagedResults
from sah.results import store as store_module
from sah.results.claim import read_claim
from sah.results.schema import to_document
from sah.results.store import ResultStore, is_complete, read_result, require_writable
from sah.types import Score


@pytest.fixture
def store(folder):
    return ResultStore(folder, "fingerprint")


@pytest.fixture
def scores():
    return [Score(example_id="a", task="task", score=1.0, details={"words": 2})]


@pytest.fixture
def result(make_result, folder):
    """A result of the experiment; its model may carry a mark."""
    return lambda model="tiny": make_result(
        directory=folder, fingerprint="fingerprint", model=model
    )


@pytest.fixture
def reopen(folder, claimed):
    """Read what another process would find."""

    def read():
        found = ResultStore(folder, "fingerprint")
        with claimed(found):
            return found

    return read


def put_metrics(path, *example_ids):
    records = [
        {"metric": "m", "value": number, "metadata": {"example_id": example_id}}
        for number, example_id in enumerate(example_ids)
    ]
    path.write_bytes(b"".join(orjson.dumps(record) + b"\n" for record in records))


# -- predictions -----------------------------------------------------------------------


def test_an_answer_is_in_the_file_as_soon_as_append_returns(store, claimed, prediction, lines):
    with claimed(store):
        for count, name in enumerate("abc", start=1):
            store.append(prediction(name))
            found = lines(store.path("predictions.jsonl"))
            assert len(found) == count
            assert found[-1] == dataclasses.asdict(prediction(name))


def test_answers_are_read_back_as_they_were(store, claimed, prediction, reopen):
    given = [
        prediction("a", prefill_seconds=1.5, output_error=0.1, recall=0.9),
        prediction("ü \u2028", text='"\n\t\x00 漢'),
    ]
    with claimed(store):
        for item in given:
            store.append(item)
    assert list(reopen().predictions.values()) == given


def test_a_torn_last_line_is_discarded_and_answered_again(
    store, claimed, prediction, folder, reopen, caplog
):
    with claimed(store):
        for name in "abc":
            store.append(prediction(name))
    path = folder / "predictions.jsonl"
    whole = path.read_bytes()
    good = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for end in range(good + 1, len(whole)):
        path.write_bytes(whole[:end])
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert list(reopen().predictions) == ["a", "b"]
        assert "torn last line" in caplog.text
        assert path.read_bytes() == whole[:good]
    with claimed(store):
        store.append(prediction("c"))
    assert path.read_bytes() == whole


def test_intact_files_are_left_unchanged_without_a_message(
    store, claimed, prediction, folder, reopen, caplog
):
    with claimed(store):
        store.append(prediction("a"))
    before = (folder / "predictions.jsonl").read_bytes()
    assert list(reopen().predictions) == ["a"]
    assert (folder / "predictions.jsonl").read_bytes() == before
    assert caplog.text == ""


@pytest.mark.parametrize(
    "bad", [b"{}}\n", b'{"example_id": "b", "task": \n', b"\x00\x00\n", b"[]\n"]
)
def test_damaged_middle_line_is_refused_and_nothing_changes(
    store, claimed, prediction, folder, reopen, bad
):
    with claimed(store):
        for name in "ac":
            store.append(prediction(name))
    path = folder / "predictions.jsonl"
    first, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + bad + last)
    with pytest.raises(DamagedResults, match="line 2"):
        reopen()
    assert path.read_bytes() == first + bad + last


def test_two_answers_to_one_example_are_refused(store, claimed, prediction, folder, reopen):
    with claimed(store):
        store.append(prediction("a"))
    path = folder / "predictions.jsonl"
    path.write_bytes(path.read_bytes() * 2)
    before = path.read_bytes()
    with pytest.raises(DamagedResults, match=r"'a' twice \(line 2\)"):
        reopen()
    assert path.read_bytes() == before


@pytest.mark.parametrize("change", [{"temperature": 1}, {"text": None}])
def test_lines_of_another_version_are_refused(prediction, folder, reopen, change):
    """With one field too many, or one too few."""
    record = dataclasses.asdict(prediction("a")) | change
    record = {name: value for name, value in record.items() if value is not None or name != "text"}
    folder.mkdir(parents=True)
    (folder / "predictions.jsonl").write_bytes(orjson.dumps(record) + b"\n")
    with pytest.raises(DamagedResults, match="another version"):
        reopen()
    assert orjson.loads((folder / "predictions.jsonl").read_bytes()) == record


def test_an_answer_to_no_example_is_refused(store, claimed, prediction, folder):
    with claimed(store):
        store.append(prediction("a"))
        store.check_examples(["a", "b"])
        assert read_claim(folder).examples == 2
        with pytest.raises(DamagedResults, match="'a'"):
            store.check_examples(["b"])


def test_a_full_disk_is_an_error_without_a_partial_line(
    store, claimed, prediction, monkeypatch, reopen
):
    with claimed(store):
        store.append(prediction("a"))
        before = store.path("predictions.jsonl").read_bytes()
        real_write = os.write
        with monkeypatch.context() as patch:
            rooms = [10, 5]

            def write(descriptor, line):
                """Take in a part, then less, then nothing."""
                if not rooms:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real_write(descriptor, line[: rooms.pop(0)])

            patch.setattr(os, "write", write)
            with pytest.raises(OSError, match=r"No space left.*predictions\.jsonl"):
                store.append(prediction("b"))
        assert list(store.predictions) == ["a"]
        assert store.path("predictions.jsonl").read_bytes() == before
    assert list(reopen().predictions) == ["a"]


def test_nothing_is_written_once_the_claim_is_lost(store, claimed, prediction, folder):
    with claimed(store):
        store.append(prediction("a"))
        before = (folder / "predictions.jsonl").read_bytes()
        (folder / ".claim").write_text('{"token": "of another process"}')
        with pytest.raises(Busy):
            store.append(prediction("b"))
    assert (folder / "predictions.jsonl").read_bytes() == before
    assert (folder / ".claim").read_text() == '{"token": "of another process"}'


def test_the_configuration_and_the_overrides_are_written(store, claimed, folder):
    with claimed(store):
        assert (folder / "config.yaml").read_text() == "seed: 0\n"
        assert (folder / "overrides.yaml").read_text() == "- seed=0\n"


# -- micro metrics ---------------------------------------------------------------------


def test_metrics_of_unanswered_examples_are_dropped(
    store, claimed, prediction, folder, reopen, lines
):
    with claimed(store):
        for name in "ac":
            store.append(prediction(name))
    path = folder / "micro_metrics.jsonl"
    put_metrics(path, "a", "a", "b", "c", "b")
    assert reopen().micro_metric_records == 3
    assert [record["value"] for record in lines(path)] == [0, 1, 3]
    assert reopen().micro_metric_records == 3
    assert [record["value"] for record in lines(path)] == [0, 1, 3]


def test_metrics_without_an_example_are_kept(store, claimed, folder, reopen, lines):
    with claimed(store):
        pass
    path = folder / "micro_metrics.jsonl"
    path.write_bytes(b'{"metric":"m","value":1,"metadata":{}}\n')
    assert reopen().micro_metric_records == 1
    assert len(lines(path)) == 1


def test_metrics_of_answered_examples_stay_byte_for_byte(
    store, claimed, prediction, folder, reopen
):
    with claimed(store):
        store.append(prediction("a"))
    path = folder / "micro_metrics.jsonl"
    path.write_bytes(b'{"metric": "m",  "value": 1.50, "metadata": {"example_id": "a"}}\n')
    before = path.read_bytes()
    reopen()
    assert path.read_bytes() == before


def test_more_metrics_than_fit_into_memory_are_read_one_at_a_time(
    store, claimed, prediction, folder, reopen
):
    with claimed(store):
        store.append(prediction("a"))
    path = folder / "micro_metrics.jsonl"
    put_metrics(path, *("a", "b") * 10_000)
    size = path.stat().st_size
    tracemalloc.start()
    try:
        assert reopen().micro_metric_records == 10_000
        assert tracemalloc.get_traced_memory()[1] < size / 2
    finally:
        tracemalloc.stop()
    assert path.stat().st_size < 0.6 * size


def test_a_metric_torn_at_any_byte_is_discarded(store, claimed, prediction, folder, reopen, lines):
    with claimed(store):
        store.append(prediction("a"))
    path = folder / "micro_metrics.jsonl"
    put_metrics(path, "a", "a", "a")
    whole = path.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for cut in range(1, last):
        path.write_bytes(whole[:-cut])
        assert reopen().micro_metric_records == 2
        assert [record["value"] for record in lines(path)] == [0, 1]


def test_a_damaged_metric_in_the_middle_is_refused(store, claimed, prediction, folder, reopen):
    with claimed(store):
        store.append(prediction("a"))
    path = folder / "micro_metrics.jsonl"
    put_metrics(path, "a")
    path.write_bytes(b"oops\n" + path.read_bytes())
    before = path.read_bytes()
    with pytest.raises(DamagedResults):
        reopen()
    assert path.read_bytes() == before


# -- completion ------------------------------------------------------------------------


def test_complete_writes_scores_and_results(store, claimed, folder, scores, lines, result):
    with claimed(store):
        assert store.result() is None
        assert not is_complete(folder, "fingerprint")
        store.complete(result(), scores)
        found = store.result()
        assert found.directory == folder
        assert to_document(found) == to_document(result())
    document = orjson.loads((folder / "results.json").read_bytes())
    assert list(document)[:3] == ["schema", "fingerprint", "model"]
    assert (document["schema"], document["score"], document["config"]) == (2, 0.5, {"seed": 0})
    assert "directory" not in document
    assert lines(folder / "scores.jsonl") == [
        {
            "example_id": "a",
            "task": "task",
            "score": 1.0,
            "details": {"words": 2},
            "groups": [],
        }
    ]
    assert is_complete(folder, "fingerprint")


@pytest.mark.parametrize("resume", [True, False])
def test_results_are_written_last(store, claimed, folder, scores, monkeypatch, result, resume):
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
    assert not is_complete(folder, "fingerprint")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"schema": 3, "fingerprint": "fingerprint"}', "schema 3"),
        (b'{"fingerprint": "fingerprint"}', "schema None"),
        (b'{"schema": 2, "fingerprint": "another"}', "'another'"),
        (b'{"schema": 2}', "None"),
        (b'{"schema": 2, "fingerprint": "fingerprint"}', "score is missing"),
        (b"not json", "damaged"),
        (b"", "damaged"),
        (b"[]", "damaged"),
    ],
)
def test_a_result_of_another_experiment_is_refused(store, folder, content, message):
    folder.mkdir(parents=True)
    (folder / "results.json").write_bytes(content)
    with pytest.raises(DamagedResults, match=message):
        store.result()
    with pytest.raises(DamagedResults, match=message):
        is_complete(folder, "fingerprint")
    assert (folder / "results.json").read_bytes() == content


def test_a_result_is_read_without_knowing_its_fingerprint(store, claimed, folder, scores, result):
    with claimed(store):
        store.complete(result(), scores)
    assert read_result(folder).score == 0.5


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("score",), "high", "score must be a number, got 'high'"),
        (("n",), 2.5, "n must be a whole number, got 2.5"),
        (("truncated",), True, "truncated must be a whole number, got True"),
        (("tasks",), [], "tasks must be an object"),
        (("subset",), [1], "subset must be a text, got 1"),
        (("timing", "new_tokens"), None, "timing.new_tokens must be a whole number, got None"),
        (("provenance", "git_dirty"), "no", "provenance.git_dirty must be true or false"),
        (("provenance", "data"), "x", "provenance.data must be a list"),
        (("tasks", "vt", "groups"), {"easy": {}}, "tasks.vt.groups.easy.score is missing"),
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
    assert read_result(folder).tasks["vt"].score == 1
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


# -- resume=false ----------------------------------------------------------------------


@pytest.fixture
def completed(folder, claimed, prediction, scores, result):
    """Complete the experiment with answers that carry a mark."""

    def complete(mark, *, resume=True):
        store = ResultStore(folder, "fingerprint")
        with claimed(store, resume=resume):
            if "a" not in store.predictions:
                store.append(prediction("a", text=mark))
            store.complete(result(mark), scores)

    return complete


@pytest.fixture
def interrupted(folder, claimed, prediction):
    """Start over and be killed after one answer."""

    def begin(mark):
        store = ResultStore(folder, "fingerprint")
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
    store = ResultStore(folder, "fingerprint")
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
        assert not is_complete(folder, "fingerprint")
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
    with claimed(ResultStore(folder, "fingerprint"), resume=False):
        pass
    assert moved[0] == "results.json"
    assert "predictions.jsonl" in moved


# -- the output root -------------------------------------------------------------------


def test_the_output_root_is_created_and_left_empty(tmp_path):
    require_writable(tmp_path / "new" / "root")
    assert list((tmp_path / "new" / "root").iterdir()) == []


def test_an_output_root_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"file/root.*output_root=DIR"):
        require_writable(tmp_path / "file" / "root")
