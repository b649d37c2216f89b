import json
import os
import socket

import pytest

from sah.results.claim import Claim
from sah.results.state import read_state


def test_a_missing_directory_is_waiting(folder):
    state = read_state(folder)
    assert (state.directory, state.state, state.answered) == (folder, "waiting", 0)
    assert state.examples is None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["config.yaml"], "interrupted"),
        (["config.yaml", "error.json"], "failed"),
        (["config.yaml", "error.json", "results.json"], "done"),
    ],
)
def test_without_a_claim_the_files_determine_the_state(folder, files, expected):
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).write_text("{}")
    assert read_state(folder).state == expected


def test_a_claimed_experiment_is_running_or_dead(folder):
    folder.mkdir(parents=True)
    with Claim(folder) as claim:
        claim.note_examples(3)
        (folder / "predictions.jsonl").write_bytes(b'{"a":1}\n{"b":2}\n{"torn')
        state = read_state(folder)
        assert (state.state, state.answered, state.examples) == ("running", 2, 3)
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "process_start": "0"}
        claim.path.write_text(json.dumps({"token": "another", **holder}))
        assert read_state(folder).state == "dead"


def test_an_interrupted_experiment_is_not_a_failed_one_and_says_how_far_it_came(folder):
    folder.mkdir(parents=True)
    (folder / "predictions.jsonl").write_bytes(b'{"a":1}\n{"b":2}\n')
    (folder / "error.json").write_text(json.dumps({"category": "interrupt"}))
    state = read_state(folder)
    assert (state.state, state.progress) == ("interrupted", "2 answered")
    (folder / "error.json").write_text(json.dumps({"category": "interrupt", "examples": 5}))
    assert read_state(folder).progress == "2 of 5 answered"


def test_an_error_is_summarised_in_one_line(folder):
    folder.mkdir(parents=True)
    assert read_state(folder).first_error_line == ""
    error = {"category": "network", "message": "first\nsecond"}
    (folder / "error.json").write_text(json.dumps(error))
    assert read_state(folder).first_error_line == "network: first"
