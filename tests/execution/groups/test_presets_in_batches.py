"""In a batch, every preset answers and is measured as alone."""

import orjson
import pytest
from presets import EVICTING, PREFILLING, REWRITING, SELECTING

from sah.execution.attempts import compute_arms
from sah.execution.building import compose
from sah.results import directory

pytestmark = pytest.mark.usefixtures("calibrated")

PRESETS = ("dense", *SELECTING, *EVICTING, *REWRITING, *PREFILLING)
ROWS = 8


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
    """The answers of every preset to questions about contexts of lengths of their own.

    One by one, and in one batch; by preset and number of rows.
    """
    data = tmp_path_factory.mktemp("data") / "ragged.jsonl"
    examples = [
        {
            "context": " ".join(
                f"line {n} says {(n * 37 + row) % 91}." for n in range(9 + 5 * row)
            ),
            "question": f"What does line {row} say?",
            "references": ["1"],
        }
        for row in range(ROWS)
    ]
    data.write_bytes(b"\n".join(map(orjson.dumps, examples)))
    ragged = (
        *("model=tiny", "benchmark=jsonl", f"benchmark.path={data}", "benchmark.max_new_tokens=24"),
        *("metric_logging=full", "metric_logging.max_records=0"),
    )
    found = {}
    for rows in (1, ROWS):
        root = tmp_path_factory.mktemp(f"rows_{rows}")
        configs = [
            compose(
                [
                    *ragged,
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
    assert len({one["context_tokens"] for one in answered["dense", ROWS]}) == ROWS
    assert max(one["new_tokens"] for one in answered["dense", ROWS]) == 24


@pytest.mark.parametrize("name", PRESETS)
def test_a_row_has_the_answer_and_the_measures_that_it_has_alone(answered, name):
    for alone, row in zip(answered[name, 1], answered[name, ROWS], strict=True):
        assert [row[key] for key in SAME] == [alone[key] for key in SAME]
        for key in CLOSE:
            if alone[key] is None:
                assert row[key] is None, key
            else:
                assert row[key] == pytest.approx(alone[key], rel=1e-3, abs=1e-6), key
