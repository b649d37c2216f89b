"""From parts of a composed configuration to the objects they describe, checked field by field."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import hydra
from hydra.errors import HydraException, InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sah.errors import ConfigurationError
from sah.paths import config_folder
from sah.validation import wrong_fields

_TARGET = "_target_"


def compose(overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration of a command line, outside of Hydra's own main function.

    Raises:
        HydraException: for an unknown group, option or key.
    """
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        return hydra.compose("config", list(overrides))


def build(config: DictConfig, name: str) -> Any:
    """Instantiate a part of the configuration by its `_target_`.

    Parts are immutable, and the thousands of cells of a sweep have few different ones: equal
    parts are the same object.

    Raises:
        ConfigurationError: naming the key, the value and what it must be.
    """
    part = section(config, name)
    try:
        content = json.dumps(part)
    except TypeError:
        # A value that is not JSON, such as a path: nothing to cache it by.
        check(name, part)
        return _instantiate(name, part)
    return _build(name, content)


def build_section(config: DictConfig, name: str, kind: type) -> Any:
    """Make a dataclass from a part of the configuration that has no `_target_`.

    Raises:
        ConfigurationError: naming the key, the value and what it must be.
    """
    part = section(config, name)
    _check_fields(name, kind, part)
    try:
        return kind(**part)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{name}: {error}") from error


def section(config: DictConfig, name: str) -> dict[str, Any]:
    """A part of the configuration as a dictionary, interpolations resolved.

    Raises:
        ConfigurationError: if it is not a mapping, or an interpolation does not resolve.
    """
    part = config[name]
    if not isinstance(part, DictConfig):
        raise ConfigurationError(
            f"{name} has keys and values of its own, got {name}={part!r}; set one of them with "
            f"{name}.KEY=VALUE"
        )
    try:
        container = OmegaConf.to_container(part, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigurationError(f"{name}: {str(error).splitlines()[0]}") from error
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def check(name: str, part: Mapping[str, Any]) -> None:
    """Check the type of every field of a part, and of the parts inside it. Instantiates nothing.

    Raises:
        ConfigurationError: naming the key, the value and what it must be.
    """
    if _TARGET not in part:
        raise ConfigurationError(
            f"{name} has no {_TARGET}, the class that it configures; keep the one of its option"
        )
    for path, nested in _targets(name, part):
        try:
            kind = get_class(str(nested[_TARGET]))
        except (ImportError, ValueError, HydraException) as error:
            raise ConfigurationError(
                f"{path}.{_TARGET}={nested[_TARGET]!r} is not a class that can be imported: {error}"
            ) from error
        _check_fields(path, kind, nested)


def _check_fields(path: str, kind: type, values: Mapping[str, Any]) -> None:
    # Values with a _target_ of their own become objects, whose fields are checked instead.
    plain = {name: value for name, value in values.items() if not any(_targets("", value))}
    for name, problem in wrong_fields(kind, plain):
        raise ConfigurationError(f"{path}.{name} {problem}")


def _targets(path: str, value: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping with a `_target_`, the given one included, with its path."""
    if isinstance(value, Mapping):
        if _TARGET in value:
            yield path, value
        for key, child in value.items():
            yield from _targets(f"{path}.{key}", child)
    elif isinstance(value, list):
        for number, child in enumerate(value):
            yield from _targets(f"{path}[{number}]", child)


@functools.lru_cache(maxsize=1024)
def _build(name: str, content: str) -> Any:
    part = json.loads(content)
    check(name, part)
    return _instantiate(name, part)


def _instantiate(name: str, part: Any) -> Any:
    try:
        return instantiate(OmegaConf.create(part), _convert_="all")
    except InstantiationException as error:
        raise ConfigurationError(f"{name}: {error.__cause__ or error}") from error
