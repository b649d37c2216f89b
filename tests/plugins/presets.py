"""The presets of conf/sparse_attention, by what they do; dense and custom are neither."""

from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[2] / "conf" / "sparse_attention"

_EVICTS = {
    path.stem: "/evictor@" in path.read_text(encoding="utf-8")
    for path in sorted(_FOLDER.glob("*.yaml"))
    if path.stem not in ("custom", "dense")
}

SELECTING = [name for name, evicts in _EVICTS.items() if not evicts]
"""Maskers choose among all keys."""
EVICTING = [name for name, evicts in _EVICTS.items() if evicts]
"""An evictor decides what the cache keeps, and queries read all of that."""
