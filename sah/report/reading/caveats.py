"""Warnings about results that are hard to compare."""

from collections import Counter
from collections.abc import Sequence

from sah.results.schema import Result

_OFF_TARGET = 0.05
"""Relative distance from a target that is worth a warning."""


def caveats(results: Sequence[Result]) -> list[str]:
    """Return a warning for each reason why the numbers of these results are hard to compare."""
    found = []
    versions = Counter(_code_version(result) for result in results)
    if len(versions) > 1:
        found.append(f"WARNING: {len(versions)} versions of the code: {_counted(versions)}.")
    libraries = Counter(_libraries(result) for result in results)
    if len(libraries) > 1:
        found.append(f"WARNING: {len(libraries)} sets of libraries: {_counted(libraries)}.")
    protocols = Counter(result.protocol for result in results)
    if len(protocols) > 1:
        found.append(
            f"WARNING: {len(protocols)} protocols, whose scores mean different things: "
            f"{_counted(protocols)}."
        )
    dirty = sum(bool(result.provenance.git_dirty) for result in results)
    if dirty:
        found.append(f"WARNING: {dirty} of {len(results)} results are of uncommitted code.")
    mixed = sum(bool(result.provenance.answered_by) for result in results)
    if mixed:
        found.append(
            f"WARNING: {mixed} of {len(results)} results were answered in part by different code, "
            "device or dtype; see provenance.answered_by in their results.json."
        )
    missed = [text for text in map(_off_target, results) if text]
    if missed:
        found.append(
            f"WARNING: {len(missed)} of {len(results)} results are more than "
            f"{100 * _OFF_TARGET:g} % off what their budget was matched to, such as {missed[0]}; "
            "`sah match` with more --contexts comes closer."
        )
    cut = sum(bool(result.truncated) for result in results)
    if cut:
        found.append(
            f"WARNING: in {cut} of {len(results)} results contexts were cut to fit the model."
        )
    off = sum(result.own_indexer == "off" for result in results)
    if off:
        found.append(
            f"WARNING: in {off} of {len(results)} results the model's own indexer is off, with "
            "which it was trained; attention=native leaves it on."
        )
    unfinished = sum(result.unfinished_thoughts for result in results)
    if unfinished:
        found.append(
            f"WARNING: {unfinished} of {sum(result.n for result in results)} answers are empty "
            "because their thought did not end; see generation.thinking_tokens."
        )
    sampled = [result.sampled for result in results if result.sampled is not None]
    partly = [one for one in sampled if one.examples < one.of_examples]
    if partly:
        without = sum(one.of_examples - one.examples for one in partly)
        found.append(
            f"WARNING: output error and recall leave out {without} of "
            f"{sum(one.of_examples for one in partly)} answers in {len(partly)} of {len(results)} "
            "results: none of their queries was drawn; raise metric_logging.sampling_factor."
        )
    early = sum(result.rows_read is None and result.density is not None for result in results)
    if early:
        found.append(
            f"WARNING: {early} of {len(results)} results are of an earlier version: output error "
            "and recall are means over attention calls, not over queries, and rows read are "
            "missing; the same commands compute them again."
        )
    without_keys = sum(
        result.keys_read is None and result.rows_read is not None for result in results
    )
    if without_keys:
        found.append(
            f"WARNING: {without_keys} of {len(results)} results have answers of an earlier version "
            "that did not count the keys that they read; resume=false computes them again."
        )
    return found


def _off_target(result: Result) -> str:
    """Describe a result that misses its target; empty if it does not, or has none."""
    matched = result.matched
    if matched is None:
        return ""
    measured, target = getattr(result, matched["metric"]), matched["target"]
    if measured is None or abs(measured - target) <= _OFF_TARGET * target:
        return ""
    return f"{result.attention} with {matched['metric']}={measured:.3g}"


def _code_version(result: Result) -> str:
    commit = result.provenance.git_commit
    return commit[:8] if commit else "unknown"


def _libraries(result: Result) -> str:
    versions = result.provenance.versions
    return " ".join(f"{name} {versions.get(name, '?')}" for name in ("torch", "transformers"))


def _counted(values: "Counter[str]") -> str:
    shown = ", ".join(f"{value} ({count} results)" for value, count in values.most_common(4))
    return shown if len(values) <= 4 else f"{shown}, and {len(values) - 4} more"
