"""What differs between experiments, beyond their names."""

from collections import defaultdict
from collections.abc import Sequence

from sah.report.reading.collect import Run
from sah.report.reading.select import NAMES, shown_value, value_of

# Settings of these groups are implied by the name that stands for them, unless two
# experiments of one name differ.
_NAMED_GROUPS = {
    "model": "model",
    "sparse_attention": "attention",
    "benchmark": "benchmark",
    "protocol": "protocol",
}

METHOD = "sparse_attention."
MASKERS = "sparse_attention.maskers."

# What is recorded on the side changes no answer; the subset is a name already.
_LEFT_OUT = ("metric_logging.", "benchmark.subset")


def differing_keys(runs: Sequence[Run]) -> list[str]:
    """The configuration keys in which experiments of the same names differ, in their order."""
    values: dict[tuple[str, str], set[str]] = defaultdict(set)
    sizes: dict[str, int] = defaultdict(int)
    seen: dict[tuple[str, str], int] = defaultdict(int)
    order: dict[str, None] = {}
    for run in runs:
        names = {group: f"{group}={value_of(run, name)}" for group, name in _NAMED_GROUPS.items()}
        for scope in (*names.values(), "all"):
            sizes[scope] += 1
        for key, value in run.config.items():
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
    """The shortest end of each key that no other one has."""
    ends = {key: key.removeprefix(MASKERS).split(".") for key in keys}
    names = {}
    for key, parts in ends.items():
        for length in range(1, len(parts) + 1):
            name = ".".join(parts[-length:])
            others = [".".join(other[-length:]) for one, other in ends.items() if one != key]
            if name not in others:
                break
        names[key] = key if name in NAMES and key != name else name
    return names


def method_settings(runs: Sequence[Run], keys: Sequence[str]) -> list[str]:
    """Per run, the settings of its attention that differ among runs of that attention.

    For example `fraction=0.05`: what a column for every masker of every method would
    spread over many, mostly empty ones.
    """
    by_attention: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_attention[run.attention].append(run)
    names: dict[str, dict[str, str]] = {}
    for attention, group in by_attention.items():
        names[attention] = short_names(
            [key for key in differing_keys(group) if key in keys and key.startswith(METHOD)]
        )
    return [
        " ".join(
            f"{name}={shown_value(run.config[key])}"
            for key, name in names[run.attention].items()
            if key in run.config
        )
        for run in runs
    ]
