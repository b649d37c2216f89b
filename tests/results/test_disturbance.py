"""When a speed is marked as hard to compare."""

from dataclasses import replace

import pytest

from sah.results.disturbance import disturbances
from sah.results.schema import Provenance


@pytest.fixture
def timed(make_result):
    """A result that decoded for ten seconds."""

    def make(thread_seconds=10.0, **provenance):
        result = make_result(provenance=Provenance(**{"device": "cpu", **provenance}))
        timing = replace(result.timing, decode_seconds=10.0, decode_thread_seconds=thread_seconds)
        return replace(result, timing=timing)

    return make


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ()),
        ({"starts": 1, "load_per_core": 1.0}, ()),
        ({"starts": 3}, ("interrupted",)),
        # The thread that decodes waited for a core for a fifth of the time.
        ({"thread_seconds": 8.0}, ("crowded",)),
        ({"thread_seconds": 9.5}, ()),
        # On a GPU it may wait for the GPU.
        ({"thread_seconds": 2.0, "device": "NVIDIA H100 80GB HBM3"}, ()),
        ({"load_per_core": 1.5, "device": "NVIDIA H100 80GB HBM3"}, ("crowded",)),
        ({"load_per_core": 1.5}, ("crowded",)),
        ({"load_per_core": 1.5, "starts": 2, "thread_seconds": 1.0}, ("interrupted", "crowded")),
        # Of an earlier version.
        ({"thread_seconds": None, "device": None}, ()),
    ],
)
def test_what_could_be_seen_is_flagged(timed, given, expected):
    assert disturbances(timed(**given)) == expected
