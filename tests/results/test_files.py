import os

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sah.errors import DamagedResults
from sah.results.files import json_lines, read_json, read_json_lines, write_atomically, write_json


def test_a_crash_before_the_rename_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def crash(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_synced_before_the_rename(tmp_path, monkeypatch):
    events = []
    real_fsync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("fsync"), real_fsync(fd)))
    monkeypatch.setattr(
        os, "replace", lambda one, other: (events.append("replace"), real_replace(one, other))
    )
    write_atomically(tmp_path / "file", b"content")
    assert events == ["fsync", "replace"]


def test_not_a_number_becomes_null(tmp_path):
    write_json(tmp_path / "file", {"nan": float("nan"), "inf": float("inf"), "zero": 0.0})
    assert orjson.loads((tmp_path / "file").read_bytes()) == {"nan": None, "inf": None, "zero": 0.0}


JSON = st.dictionaries(st.text(max_size=5), st.text(max_size=10) | st.integers(0, 9), max_size=3)


@given(records=st.lists(JSON, max_size=5))
@settings(max_examples=50, deadline=None)
def test_json_lines_are_read_back(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("lines") / "file"
    content = json_lines(records)
    path.write_bytes(content)
    assert read_json_lines(path) == (records, len(content), False)


def test_a_missing_file_has_no_records(tmp_path):
    assert read_json_lines(tmp_path / "file") == ([], 0, False)


@pytest.mark.parametrize(
    "bad", [b"not json\n", b"\n", b"[1]\n", b"1\n", b'{"a": 1\n', b"\xff\xfe\n"]
)
def test_a_damaged_line_in_the_middle_is_refused(tmp_path, bad):
    path = tmp_path / "file"
    content = b'{"a":1}\n' + bad + b'{"b":2}\n'
    path.write_bytes(content)
    with pytest.raises(DamagedResults, match="line 2"):
        read_json_lines(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b"3", b'{"a": 1'])
def test_a_file_that_is_not_a_json_object_is_refused(tmp_path, content):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(DamagedResults, match=r"file\.json is damaged"):
        read_json(path)
    assert path.read_bytes() == content
