"""From parts of a composed configuration to the objects they describe, checked field by field."""

import dataclasses
import difflib
import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException, MissingConfigException
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from sah.errors import ConfigurationError, SahError
from sah.execution.hydra_settings import refused_search_path, search_folders
from sah.paths import config_folder
from sah.validation import wrong_fields

_TARGET = "_target_"
# What constructors raise for wrong values, those of other packages included.
_MISTAKES = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def register_attentions(folders: Iterable[Path]) -> None:
    """Make the presets of folders of configurations options of `attention=`, too.

    Hydra finds those of `sparse_attention=` in the folders themselves.
    """
    store = ConfigStore.instance()
    for folder in folders:
        presets = folder / "sparse_attention"
        for path in sorted(presets.rglob("*.yaml")):
            option = path.relative_to(presets).with_suffix("")
            store.store(
                group="/".join(("attention", *option.parts[:-1])),
                name=option.name,
                node={"defaults": [{"override /sparse_attention": option.as_posix()}]},
                package="_global_",
            )


def compose(overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration of a command line, outside of Hydra's own main function.

    Raises:
        ConfigurationError: for an unknown group, option or key, with what may have been meant, and
            for a search path that Hydra would ignore.
    """
    mistake = refused_search_path(overrides)
    if mistake is not None:
        raise ConfigurationError(mistake)
    register_attentions(search_folders(overrides))
    # Of a program that uses Hydra itself: there can be only one at a time.
    active = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
            return hydra.compose("config", list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        # Python raises ValueError for an integer of more than 4,300 digits.
        raise ConfigurationError(explain(error)) from error
    finally:
        GlobalHydra.instance().hydra = active


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
    check_fields(name, kind, part)
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
    except (InterpolationToMissingValueError, MissingMandatoryValue) as error:
        # An interpolation names the value that it refers to in its text.
        refers = isinstance(error, InterpolationToMissingValueError)
        key = str(error).splitlines()[0].rpartition(": ")[2] if refers else error.full_key
        raise ConfigurationError(f"{key} must be given; set it with {key}=VALUE") from error
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
                f"{path}.{_TARGET}={nested[_TARGET]!r} is not a class that can be imported: "
                f"{error}; if it is in a file of yours, put its folder on PYTHONPATH"
            ) from error
        check_fields(path, kind, nested)


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Say which known name a wrong one may have meant, or list them: the end of a message."""
    names = sorted(known)
    similar = difflib.get_close_matches(name, names, n=1)
    if similar:
        return f"did you mean {prefix}{similar[0]}?"
    return f"choose from {', '.join(names)}" if names else "there is none"


def explain(error: Exception) -> str:
    """Describe why a configuration does not compose, with what the user may have meant.

    Args:
        error: of SAH, Hydra or OmegaConf. Hydra's advice for an unknown key is to add it with +,
            which is right only for mappings whose keys are free.
    """
    cause = error.__cause__
    if isinstance(error, SahError):
        return str(error)
    if isinstance(error, MissingConfigException) and error.options and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        options = ", ".join(sorted(error.options))
        similar = nearest(name, error.options)
        listed = similar if options in similar else f"{similar} The options are {options}"
        return f"Could not find '{group}/{name}': {listed}; --config-dir FOLDER adds your own"
    if isinstance(cause, ConfigAttributeError | ConfigKeyError):
        name, parent = str(cause.full_key), cause.parent_node
        path = name.rpartition(".")[0]
        if not isinstance(parent, DictConfig) or str(parent._get_full_key(None)) != path:
            return f"{name} is not a key of the configuration: {path} has no keys"
        if not _is_free(parent):
            known = [str(key) for key in parent if key not in (_TARGET, "hydra")]
            known += [] if path else ["attention"]
            meant = nearest(str(cause.key), known, f"{path}." if path else "")
            return f"{name} is not a key of the configuration; {meant}"
    text = str(error).strip()
    if isinstance(cause, OmegaConfBaseException) and "\n" not in text:
        return f"{text}: {str(cause).splitlines()[0]}".removeprefix(": ")
    return text


def _is_free(node: DictConfig) -> bool:
    """Whether users choose the keys of a mapping, such as the names of maskers."""
    return all(isinstance(node._get_node(key), DictConfig) for key in node) and "hydra" not in node


def check_fields(path: str, kind: type, values: Mapping[str, Any]) -> None:
    """Check the names and the types of the values that a class is made with.

    Raises:
        ConfigurationError: naming the key, the value and what it must be.
    """
    if dataclasses.is_dataclass(kind):
        known = [field.name for field in dataclasses.fields(kind) if field.init]
        for name in values:
            if name not in (*known, _TARGET):
                raise ConfigurationError(
                    f"{path}.{name} is not a key of {kind.__name__}; "
                    + nearest(name, known, f"{path}.")
                )
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


def _instantiate(name: str, part: Mapping[str, Any]) -> Any:
    """Make the object of a checked part.

    Not with Hydra's `instantiate`, which interpolates resolved texts once more: a literal `${` in
    a path would refer to a key.
    """
    try:
        return _made(part)
    except _MISTAKES as error:
        raise ConfigurationError(f"{name}: {error}") from error


def _made(value: Any) -> Any:
    if isinstance(value, Mapping):
        fields = {key: _made(child) for key, child in value.items() if key != _TARGET}
        return get_class(str(value[_TARGET]))(**fields) if _TARGET in value else fields
    return [_made(child) for child in value] if isinstance(value, list) else value
