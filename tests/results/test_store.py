"""Answers and micro metrics in a store: predictions.jsonl and micro_metrics.jsonl."""

import dataclasses
import errno
import logging
import os
import tracemalloc

import orjson
import pytest

from sah.errors import Busy, ConfigurationError, DamagedResults
from sah.results.claim import read_claim
from sah.results.store import require_writable


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
            assert found[-1].pop("fingerprint") == store.fingerprint
            assert found[-1].pop("checksum")
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
    for _ in range(2):
        reopen()
        assert [record["value"] for record in lines(path)] == [0, 1, 3]


def test_metrics_without_an_example_are_kept(store, claimed, folder, reopen, lines):
    with claimed(store):
        pass
    path = folder / "micro_metrics.jsonl"
    path.write_bytes(b'{"metric":"m","value":1,"metadata":{}}\n')
    reopen()
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
        reopen()
        assert tracemalloc.get_traced_memory()[1] < size / 2
    finally:
        tracemalloc.stop()
    assert path.stat().st_size < 0.6 * size
    assert path.read_bytes().count(b"\n") == 10_000


def test_a_metric_torn_at_any_byte_is_discarded(store, claimed, prediction, folder, reopen, lines):
    with claimed(store):
        store.append(prediction("a"))
    path = folder / "micro_metrics.jsonl"
    put_metrics(path, "a", "a", "a")
    whole = path.read_bytes()
    last = len(whole.splitlines(keepends=True)[-1])
    for cut in range(1, last):
        path.write_bytes(whole[:-cut])
        reopen()
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


# -- the output root -------------------------------------------------------------------


def test_the_output_root_is_created_and_left_empty(tmp_path):
    require_writable(tmp_path / "new" / "root")
    assert list((tmp_path / "new" / "root").iterdir()) == []


def test_an_output_root_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"file/root.*output_root=DIR"):
        require_writable(tmp_path / "file" / "root")
