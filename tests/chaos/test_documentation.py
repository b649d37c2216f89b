"""Every promise of docs/reliability.md is held by a test."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_every_promise_names_an_existing_test():
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    promises = re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", text)
    assert len(promises) > 30
    for path, name in promises:
        content = (ROOT / "tests" / path).read_text(encoding="utf-8")
        assert not name or re.search(rf"^def {name}\(", content, re.MULTILINE), (path, name)
