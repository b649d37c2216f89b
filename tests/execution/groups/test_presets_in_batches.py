"""In a batch, every preset answers and is measured as alone."""

import orjson
import pytest
from presets import EVICTING, PREFILLING, REWRITING, SELECTING

from sah.execution.attempts import compute_arms
from sah.execution.building import compose
from sah.results import directory

pytestmark = pytest.mark.usefixtures("calibrated")

PRESETS = ("dense", *SELECTING, *EVICTING, *REWRITING, *PREFILLING)
# Eight contexts of lengths of their own, with one question each and answers of 24 tokens.
RAGGED = (
    *("model=tiny", "benchmark=ruler", "benchmark.context_tokens=400", "benchmark.samples=1"),
    *("benchmark.limit=8", "generation.max_new_tokens=24", "metric_logging=full"),
    "metric_logging.max_records=0",
)
SAME = ("text", "new_tokens", "finish_reason", "queries")
CLOSE = (
    "density",
    "rows_read",
    "resident",
    "prefill_density",
    "keys_read",
    "output_error",
    "recall",
)


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """The answers of every preset by example, one by one and in a batch of eight."""
    found = {}
    for rows in (1, 8):
        root = tmp_path_factory.mktemp(f"rows_{rows}")
        configs = [
            compose(
                [
                    *RAGGED,
                    f"attention={name}",
                    f"generation.batch_rows={rows}",
                    f"output_root={root}",
                ]
            )
            for name in PRESETS
        ]
        arms = compute_arms([(config, []) for config in configs])
        assert [arm.error for arm in arms] == [None] * len(PRESETS)
        for name, config in zip(PRESETS, configs, strict=True):
            lines = (directory(config) / "predictions.jsonl").read_bytes().splitlines()
            found[name, rows] = [orjson.loads(line) for line in lines]
    return found


def test_the_contexts_have_lengths_of_their_own(answered):
    assert len({one["context_tokens"] for one in answered["dense", 8]}) > 4
    assert max(one["new_tokens"] for one in answered["dense", 8]) == 24


@pytest.mark.parametrize("name", PRESETS)
def test_a_row_has_the_answer_and_the_measures_that_it_has_alone(answered, name):
    for alone, row in zip(answered[name, 1], answered[name, 8], strict=True):
        assert [row[key] for key in SAME] == [alone[key] for key in SAME]
        for key in CLOSE:
            assert row[key] == pytest.approx(alone[key], rel=1e-3, abs=1e-6), key
