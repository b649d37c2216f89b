"""Ways to damage one file of a complete experiment."""

import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

Damage = Callable[[Path], Any]


def _content(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path: path.write_bytes(change(path.read_bytes()) if path.exists() else b"\0")


def _instead(make: Callable[[Path], Any]) -> Damage:
    def damage(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return damage


def _values(*keys: str, value: Any) -> Damage:
    """Change one value of a JSON file; a key whose value is KeyError is removed."""

    def damage(path: Path) -> None:
        document = part = json.loads(path.read_bytes())
        for key in keys[:-1]:
            part = part[key]
        if value is KeyError:
            del part[keys[-1]]
        else:
            part[keys[-1]] = value(part.get(keys[-1])) if callable(value) else value
        path.write_text(json.dumps(document))

    return damage


def _lines(change: Callable[[list[bytes]], list[bytes]]) -> Damage:
    return _content(lambda content: b"".join(change(content.splitlines(keepends=True))))


def _record(number: int, *, signed: bool, **values: Any) -> Damage:
    """Change values of a line of predictions.jsonl, and its checksum if it is to be right."""

    def change(lines: list[bytes]) -> list[bytes]:
        record = json.loads(lines[number])
        checksum = record.pop("checksum", None)
        body = json.dumps(record | values, separators=(",", ":")).encode()[:-1]
        checksum = f"{zlib.crc32(body):08x}" if signed else checksum
        lines[number] = body + f',"checksum":"{checksum}"}}\n'.encode()
        return lines

    return _lines(change)


ANY_FILE: dict[str, Damage] = {
    "empty": _content(lambda _: b""),
    "torn": _content(lambda content: content[: len(content) * 2 // 3 - 3]),
    "NUL bytes": _content(lambda content: bytes(len(content))),
    "not UTF-8": _content(lambda content: content.replace(b"task", b"ta\xffk")),
    "a folder": _instead(lambda path: path.mkdir()),
    "a dangling link": _instead(lambda path: path.symlink_to("nowhere")),
    "a link to itself": _instead(lambda path: path.symlink_to(path.name)),
    "a pipe": _instead(os.mkfifo),
    "a device": _instead(lambda path: path.symlink_to("/dev/zero")),
}

RESULTS: dict[str, Damage] = {
    **ANY_FILE,
    "a list": _content(lambda _: b"[]"),
    "a number": _content(lambda _: b"7"),
    "no schema": _values("schema", value=KeyError),
    "schema 99": _values("schema", value=99),
    "schema as text": _values("schema", value=str),
    "schema a list": _values("schema", value=[2]),
    "score of 7": _values("score", value=7),
    "score below 0": _values("score", value=-0.5),
    "score NaN": _values("score", value=float("nan")),
    "score infinite": _values("score", value=float("inf")),
    "score as text": _values("score", value="high"),
    "score edited": _values("score", value=lambda score: score / 2),
    "score null": _values("score", value=None),
    "no score": _values("score", value=KeyError),
    "n negative": _values("n", value=-1),
    "n a fraction": _values("n", value=2.5),
    "n too large": _values("n", value=lambda n: n + 12),
    "n beyond 64 bits": _values("n", value=2**70),
    "stderr negative": _values("stderr", value=-0.1),
    "task edited": _values("tasks", "task", "score", value=0.125),
    "task removed": _values("tasks", "task", value=KeyError),
    "tasks a list": _values("tasks", value=[]),
    "task a number": _values("tasks", "task", value=1),
    "density negative": _values("density", value=-1.0),
    "density as text": _values("density", value="0.1"),
    "no timing": _values("timing", value=KeyError),
    "provenance null": _values("provenance", value=None),
    "config edited": _values("config", "seed", value=5),
    "config a list": _values("config", value=[]),
    "digest edited": _values("scores_digest", value="0" * 24),
}

SCORES: dict[str, Damage] = {
    **ANY_FILE,
    "missing": Path.unlink,
    "a line twice": _lines(lambda lines: [*lines, lines[0]]),
    "a line less": _lines(lambda lines: lines[1:]),
    "a score edited": _content(lambda content: content.replace(b'"score":1.0', b'"score":0.0', 1)),
}

PREDICTIONS: dict[str, Damage] = {
    **ANY_FILE,
    "missing": Path.unlink,
    "a line twice": _lines(lambda lines: [*lines, lines[0]]),
    "a line less": _lines(lambda lines: lines[1:]),
    "a blank line": _lines(lambda lines: [lines[0], b"\n", *lines[1:]]),
    "text edited": _record(1, signed=False, text="right"),
    "text null": _record(1, signed=True, text=None),
    "text a number": _record(1, signed=True, text=3),
    "hash null": _record(1, signed=True, input_hash=None),
    "tokens as text": _record(1, signed=True, new_tokens="3"),
    "another arm": _record(1, signed=True, fingerprint="0123456789ab"),
    "no fingerprint": _record(1, signed=True, fingerprint=None),
    "no checksum": _lines(
        lambda lines: [lines[0], lines[1].partition(b',"checksum"')[0] + b"}\n", *lines[2:]]
    ),
}

EXAMPLES: dict[str, Damage] = {
    **ANY_FILE,
    "question a number": _content(lambda content: content.replace(b'"What?"', b"7", 1)),
    "a list": _lines(lambda lines: [b"[]\n", *lines[1:]]),
    "a blank line": _lines(lambda lines: [lines[0], b"\n", *lines[1:]]),
}
del EXAMPLES["empty"]

MICRO_METRICS: dict[str, Damage] = {
    **ANY_FILE,
    "metric a number": _content(
        lambda content: content.replace(b'"metric":"', b'"metric":7,"x":"')
    ),
    "a list": _lines(lambda lines: [b"[]\n", *lines[1:]]),
}
del MICRO_METRICS["empty"]

# Files that no report reads.
UNREAD = {
    name: {kind: ANY_FILE[kind] for kind in ("NUL bytes", "a folder", "a pipe")}
    for name in ("config.yaml", "overrides.yaml", "starts.jsonl", "error.json", ".claim")
}

DAMAGES = {
    "results.json": RESULTS,
    "scores.jsonl": SCORES,
    "predictions.jsonl": PREDICTIONS,
    "examples.jsonl": EXAMPLES,
    "micro_metrics.jsonl": MICRO_METRICS,
    **UNREAD,
}
