"""Benchmarks of other packages: a decorator, found by import."""

import dataclasses
import importlib.metadata
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from hydra.core.config_store import ConfigStore

_GROUP = "benchmark"
_ENTRY_POINTS = "sah.benchmarks"

Class = TypeVar("Class", bound=type)
_registered: dict[str, "Registered"] = {}


class Registered(NamedTuple):
    """A benchmark that a package brought."""

    node: dict[str, Any]
    """Its configuration."""
    aliases: tuple[str, ...]


def register_benchmark(name: str, *, aliases: tuple[str, ...] = ()) -> Callable[[Class], Class]:
    """Make a dataclass an option of the benchmark group, under a name and its aliases.

    The defaults of its fields are the values that the command line may change; a field
    without one must be given. A package is imported, and so registers, if it has an entry
    point of the group `sah.benchmarks`; any module that is imported before Hydra composes
    does as well.
    """

    def register(benchmark: Class) -> Class:
        node = {"_target_": f"{benchmark.__module__}.{benchmark.__qualname__}"}
        node |= {field.name: _default(field, name) for field in dataclasses.fields(benchmark)}
        for option in (name, *aliases):
            ConfigStore.instance().store(group=_GROUP, name=option, node=node, provider="sah")
        _registered[name] = Registered(node, aliases)
        return benchmark

    return register


def registered_benchmarks() -> Mapping[str, Registered]:
    """What was registered, by name."""
    return dict(_registered)


def import_registered_packages() -> None:
    """Import the packages that announce benchmarks."""
    for entry in importlib.metadata.entry_points(group=_ENTRY_POINTS):
        entry.load()


def _default(field: "dataclasses.Field[Any]", name: str) -> Any:
    if field.name == "name":
        return name
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return "???"
