"""The counter of operations and waits of perf/op_counts.py."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "op_counts", Path(__file__).resolve().parents[2] / "perf" / "op_counts.py"
)
assert _spec is not None
assert _spec.loader is not None
_op_counts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_op_counts)

Counting = _op_counts.Counting
