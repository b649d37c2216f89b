"""The presets of conf/sparse_attention, by what they do; dense, native and custom are neither."""

from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[2] / "conf" / "sparse_attention"

_TEXTS = {
    path.stem: path.read_text(encoding="utf-8")
    for path in sorted(_FOLDER.glob("*.yaml"))
    if path.stem not in ("custom", "dense", "native")
}

EVICTING = [name for name, text in _TEXTS.items() if "/evictor@" in text]
"""An evictor decides what the cache keeps, and queries read all of that."""
REWRITING = [name for name, text in _TEXTS.items() if "/rewriter@" in text]
"""The cache keeps all keys and stores them with a loss; queries read all of them."""
PREFILLING = [name for name, text in _TEXTS.items() if "/pattern@" in text]
"""The context's own queries read a part of it, and later queries read all of it."""
SELECTING = [name for name in _TEXTS if name not in (*EVICTING, *REWRITING, *PREFILLING)]
"""Maskers choose among all keys."""
