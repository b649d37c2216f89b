"""What jobs of a sweep cost together."""

import pytest

from sah.execution.building import compose
from sah.execution.experiment import Experiment
from sah.launching.forecast.forecast import seconds_with_slots
from sah.launching.forecast.workload import prefills


@pytest.mark.parametrize(
    ("attentions", "protocol", "passes"),
    [
        (["dense"], "default", 1),
        (["dense", "quest", "snapkv"], "default", 1),
        (["dense", "xattention"], "default", 2),
        (["xattention", "xattention"], "default", 1),
        (["xattention", "flexprefill"], "default", 2),
        # Teacher forcing follows the dense answer.
        (["xattention"], "forced", 2),
        # The model repeats the context once for both.
        (["dense", "kvzip", "kvzip"], "default", 2),
    ],
)
def test_a_job_prefills_a_context_once_for_each_way_to_read_it(attentions, protocol, passes):
    shared = ("model=tiny", "benchmark=mock", f"protocol={protocol}")
    experiments = [
        Experiment.from_config(compose([*shared, f"attention={name}"])) for name in attentions
    ]
    assert prefills(experiments) == passes


@pytest.mark.parametrize(
    ("seconds", "slots", "expected"),
    [([], 2, 0), ([5, 1, 1, 1], 2, 5), ([1, 1, 1, 5], 2, 6), ([1, 2, 3], 1, 6), ([4], 3, 4)],
)
def test_jobs_start_in_order_as_soon_as_a_slot_is_free(seconds, slots, expected):
    assert seconds_with_slots(seconds, slots) == expected
