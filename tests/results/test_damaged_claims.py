"""Claims whose content or date cannot be right: never an error, and no sign of life for long."""

import json
import os
import shutil
import socket
import time

import pytest

from sah.errors import Busy
from sah.results.claim import CLAIM_NAME, STALE_SECONDS, Claim, read_claim
from sah.results.state import read_state

HERE = {"token": "another", "host": socket.gethostname(), "pid": os.getpid()}
CONTENTS = {
    "empty": b"",
    "NUL bytes": bytes(64),
    "not UTF-8": b'{"token": "\xff\xfe", "pid": 7}',
    "torn": b'{"token": "anot',
    "a list": b"[1, 2]",
    "pid null": json.dumps({**HERE, "pid": None}).encode(),
    "pid text": json.dumps({**HERE, "pid": "seven"}).encode(),
    "pid huge": json.dumps({**HERE, "pid": 10**30}).encode(),
    "pid beyond 32 bits": json.dumps({**HERE, "pid": 2**40}).encode(),
    "pid negative": json.dumps({**HERE, "pid": -1}).encode(),
    "pid zero": json.dumps({**HERE, "pid": 0}).encode(),
    "pid true": json.dumps({**HERE, "pid": True}).encode(),
    "host a list": json.dumps({**HERE, "host": ["a"]}).encode(),
    "since text": json.dumps({**HERE, "since": "yesterday"}).encode(),
    "examples text": json.dumps({**HERE, "examples": "many"}).encode(),
    "job a number": json.dumps({**HERE, "job": 7}).encode(),
    "token null": json.dumps({"token": None, "host": "another-host"}).encode(),
}


def put(path, kind):
    if kind == "a directory":
        path.mkdir()
        (path / "file").write_text("")
    elif kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a dangling link":
        path.symlink_to("nowhere")
    else:
        path.write_bytes(CONTENTS[kind])


def date(path, age):
    then = time.time() - age
    os.utime(path, (then, then), follow_symlinks=False)


@pytest.mark.parametrize("kind", [*CONTENTS, "a directory", "a pipe", "a dangling link"])
def test_a_claim_that_cannot_be_read_is_alive_until_its_date_is_stale(kind, tmp_path):
    path = tmp_path / CLAIM_NAME
    put(path, kind)
    assert read_claim(tmp_path).alive
    assert read_state(tmp_path).state == "running"
    with pytest.raises(Busy, match="last heartbeat"):
        Claim(tmp_path).__enter__()
    date(path, STALE_SECONDS + 60)
    assert not read_claim(tmp_path).alive
    with Claim(tmp_path) as claim:
        claim.check()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("ahead", "alive"), [(STALE_SECONDS - 60, True), (10**6, False)])
@pytest.mark.parametrize("kind", ["another host", "unreadable"])
def test_a_date_in_the_future_is_no_sign_of_life(kind, ahead, alive, tmp_path):
    path = tmp_path / CLAIM_NAME
    content = {"token": "another", "host": "another-host", "pid": 7}
    path.write_text(json.dumps(content) if kind == "another host" else "")
    date(path, -ahead)
    assert read_claim(tmp_path).alive is alive
    if alive:
        with pytest.raises(Busy):
            Claim(tmp_path).__enter__()
    else:
        with Claim(tmp_path) as claim:
            claim.check()


def test_a_clock_of_this_host_that_is_wrong_does_not_end_a_claim(tmp_path, monkeypatch):
    """Only the clock of the file system counts."""
    path = tmp_path / CLAIM_NAME
    path.write_text(json.dumps({"token": "another", "host": "another-host", "pid": 7}))
    real = time.time
    for shift in (-3600, 3600):
        monkeypatch.setattr(time, "time", lambda by=shift: real() + by)
        assert read_claim(tmp_path).alive
        assert list(tmp_path.iterdir()) == [path]


def test_a_claim_of_unknown_owner_is_described_as_such(tmp_path):
    (tmp_path / CLAIM_NAME).write_bytes(b"\xff")
    owner = read_claim(tmp_path)
    assert (owner.name, owner.pid, owner.host, owner.examples) == (
        *("an unknown process", None, None, None),
    )
    assert 0 <= time.time() - owner.since < 60


def test_a_directory_that_is_gone_has_no_claim(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    shutil.rmtree(folder)
    assert read_claim(folder) is None
