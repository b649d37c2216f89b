"""From the name of a preset, overrides and fields to an attention for the user's own model."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sah.api.experiments import composed
from sah.attention import DenseAttention, SparseAttention
from sah.errors import ConfigurationError
from sah.execution.building import build, nearest

_GROUP = "sparse_attention"
_COMPOSED = ("_target_", "content")
"""Keys that are composed, not chosen."""


def choose(
    attention: str | DenseAttention | SparseAttention,
    overrides: Sequence[str],
    fields: Mapping[str, Any],
    *,
    model_name: str,
    config_dir: str | Path | None,
) -> DenseAttention | SparseAttention:
    """Return the attention that `sah.attach` was asked for.

    Args:
        attention: the name of an option of the group sparse_attention, or an attention.
        overrides: such as "maskers.quest.page_size=32", relative to the attention or absolute.
        fields: values of fields by name; each name is that of one field of the attention.
        model_name: calibration files are looked up by it.
        config_dir: a folder with options of your own.

    Raises:
        ConfigurationError: naming what is unknown, ambiguous or wrong.
    """
    if isinstance(attention, DenseAttention | SparseAttention):
        if overrides or fields:
            given = [*overrides, *(f"{name}={value!r}" for name, value in fields.items())]
            raise ConfigurationError(
                f"sah.attach: {', '.join(given)} would change {attention.name!r}, which is given "
                "as an object: set it there, for example with dataclasses.replace, or give the "
                "name of a preset"
            )
        return attention
    if not isinstance(attention, str):
        raise ConfigurationError(
            f"sah.attach takes the name of an attention or a SparseAttention, got {attention!r}; "
            "put a masker of your own into one: SparseAttention(name='mine', maskers={'mine': …})"
        )
    config = composed(
        ["model=tiny", f"{_GROUP}={attention}", *map(_absolute, overrides)], config_dir
    )
    OmegaConf.update(config, "model.name", model_name)
    part: DictConfig = config[_GROUP]
    for name, value in fields.items():
        _set(part, name, value)
    built: DenseAttention | SparseAttention = build(config, _GROUP)
    return built


def _absolute(override: str) -> str:
    """Write an override of the attention as one of the experiment.

    Raises:
        ConfigurationError: if it is about another part of an experiment.
    """
    name = override.lstrip("+~")
    prefix, key = override[: len(override) - len(name)], name.partition("=")[0]
    if key.startswith(f"{_GROUP}.") or f"@{_GROUP}." in key:
        return override
    if "@" in key:
        group, _, place = key.partition("@")
        return f"{prefix}{group}@{_GROUP}.{place}{name[len(key) :]}"
    root = key.partition(".")[0]
    known = {one for one in SparseAttention.__dataclass_fields__}
    if root not in known:
        raise ConfigurationError(
            f"sah.attach: {override} is not about the attention; give keys of it, such as "
            f"maskers.NAME.FIELD=VALUE: {nearest(root, known)}"
        )
    return f"{prefix}{_GROUP}.{name}"


def _set(part: DictConfig, name: str, value: Any) -> None:
    """Set the one field of this name.

    Raises:
        ConfigurationError: if the attention has no such field, or several.
    """
    found = dict(_fields(part, ""))
    paths = [path for path in found if path == name or path.rpartition(".")[2] == name]
    if not paths:
        known = sorted({path.rpartition(".")[2] for path in found})
        raise ConfigurationError(
            f"sah.attach: {part.name!r} has no field {name!r}; {nearest(name, known)} Its fields "
            f"are {', '.join(found)}"
        )
    if len(paths) > 1:
        raise ConfigurationError(
            f"sah.attach: {name}={value!r} could be any of {', '.join(paths)}; give one of them as "
            f'an override, such as "{paths[0]}={value}"'
        )
    OmegaConf.update(part, paths[0], value, force_add=True)


def _fields(node: DictConfig, path: str) -> Iterator[tuple[str, None]]:
    """Yield the path of each field, without what is composed."""
    for key in map(str, node):
        if key in _COMPOSED:
            continue
        inner = f"{path}.{key}".lstrip(".")
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and len(child):
            yield from _fields(child, inner)
        elif not isinstance(child, DictConfig) or child._is_none():
            yield inner, None
