"""Finding and reading complete experiments: ten thousand of them in seconds."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from sah.errors import ConfigurationError, DamagedResults
from sah.results.identity import NOT_IDENTITY, subset_name
from sah.results.store import CONFIG, RESULTS, read_results

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One complete experiment: its results, as they are on disk."""

    directory: Path
    results: Mapping[str, Any]

    @property
    def model(self) -> str:
        """The model's name."""
        return str(self.results.get("model"))

    @property
    def attention(self) -> str:
        """The attention's name; its settings are in `config`."""
        return str(self.results.get("attention"))

    @property
    def benchmark(self) -> str:
        """The benchmark's name."""
        return str(self.results.get("benchmark"))

    @property
    def subset(self) -> str:
        """The subset's name; several are joined by +, and all of them are `all`."""
        return subset_name(self.results.get("subset"))

    @property
    def protocol(self) -> str:
        """The protocol's name."""
        return str(self.results.get("protocol", "default"))

    @property
    def fingerprint(self) -> str:
        """Names the experiment."""
        return str(self.results.get("fingerprint"))

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved experiment, flat: `benchmark.context_tokens` and the like.

        A masker is a key too, its class the value, so that two maskers under one name differ.
        Keys whose value is null are left out, as they are in the fingerprint.
        """
        nested = self.results.get("config")
        if nested is None:
            written = yaml.load((self.directory / CONFIG).read_bytes(), Loader=_YAML)
            nested = {key: value for key, value in written.items() if key not in NOT_IDENTITY}
        return dict(_flat(nested, ""))


_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def collect(root: Path) -> list[Run]:
    """Every complete experiment below an output root, in the order of their directories.

    Results that cannot be read are named in a warning and left out.

    Raises:
        ConfigurationError: if there is none.
    """
    runs = []
    for path in sorted(root.glob(f"*/*/*/*/{RESULTS}")):
        try:
            results = read_results(path.parent)
        except DamagedResults as error:
            logger.warning("left out: %s", error)
            continue
        if results is not None:
            runs.append(Run(directory=path.parent, results=results))
    if not runs:
        raise ConfigurationError(
            f"no complete experiment below {str(root)!r}; `sah status {root}` shows what has "
            "begun; another folder is given as the argument"
        )
    return runs


def measured(run: Run, *path: str) -> float | None:
    """A number of results.json; None where it was not measured."""
    value: Any = run.results
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, child in value.items():
            if key == "_target_":
                if path.startswith("sparse_attention."):
                    yield path, str(child).rpartition(".")[2]
                continue
            yield from _flat(child, f"{path}.{key}" if path else str(key))
    elif value is not None:
        is_list = isinstance(value, Sequence) and not isinstance(value, str)
        yield path, ",".join(str(item) for item in value) if is_list else value
