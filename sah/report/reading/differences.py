"""The settings in which experiments differ, beyond their names."""

from collections import defaultdict
from collections.abc import Sequence

from sah.report.reading.select import NAMES, Described, shown_value, value_of

# A name implies the settings of its group, unless two experiments of that name differ.
_NAMED_GROUPS = {
    "model": "model",
    "sparse_attention": "attention",
    "benchmark": "benchmark",
    "protocol": "protocol",
}

METHOD = "sparse_attention."
STAGES = tuple(f"sparse_attention.{stage}." for stage in ("maskers", "prefill", "evict", "rewrite"))

# Metric logging changes no answer, and the subset is one of the names.
_LEFT_OUT = ("metric_logging.", "benchmark.subset")


def differing_keys(results: Sequence[Described]) -> list[str]:
    """Return the settings in which experiments of the same names differ, in their order."""
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    sizes: dict[str, int] = defaultdict(int)
    seen: dict[tuple[str, str], int] = defaultdict(int)
    order: dict[str, None] = {}
    for result in results:
        names = {group: f"{group}={value_of(result, key)}" for group, key in _NAMED_GROUPS.items()}
        for scope in (*names.values(), "all"):
            sizes[scope] += 1
        for key, value in result.settings.items():
            if key.startswith(_LEFT_OUT) or key.endswith(".name"):
                continue
            order[key] = None
            scope = names.get(key.partition(".")[0], "all")
            values[scope, key].add(shown_value(value))
            seen[scope, key] += 1
    differs = {
        key
        for (scope, key), found in values.items()
        if len(found) > 1 or seen[scope, key] < sizes[scope]
    }
    return [key for key in order if key in differs]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Shorten each key to its shortest ending that no other key has."""
    ends = {key: _within_stage(key).split(".") for key in keys}
    names = {}
    for key, parts in ends.items():
        for length in range(1, len(parts) + 1):
            name = ".".join(parts[-length:])
            others = [".".join(other[-length:]) for one, other in ends.items() if one != key]
            if name not in others:
                break
        names[key] = key if name in NAMES and key != name else name
    return names


def _within_stage(key: str) -> str:
    """Return a key without the name of its stage of attention."""
    return next((key.removeprefix(stage) for stage in STAGES if key.startswith(stage)), key)


def method_settings(results: Sequence[Described], keys: Sequence[str]) -> list[str]:
    """Return, for each result, those of `keys` that differ among results of its attention.

    For example `fraction=0.05`. One text per result, because a column for every setting of
    every method would be mostly empty.
    """
    by_attention: dict[str, list[Described]] = defaultdict(list)
    for result in results:
        by_attention[result.attention].append(result)
    names: dict[str, dict[str, str]] = {}
    for attention, group in by_attention.items():
        names[attention] = short_names(
            [key for key in differing_keys(group) if key in keys and key.startswith(METHOD)]
        )
    return [
        " ".join(
            f"{name}={shown_value(result.settings[key])}"
            for key, name in names[result.attention].items()
            if key in result.settings
        )
        for result in results
    ]
