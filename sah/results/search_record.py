"""The trials of each search (hydra/sweeper=optuna), in a file below the output root."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec

from sah.errors import DamagedResults
from sah.results.files import read_file, write_json
from sah.terminal import plain

logger = logging.getLogger(__name__)

SEARCHES = ".searches"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial of a search."""

    parameters: Mapping[str, bool | int | float | str | None]
    """What the sampler chose, by override key."""
    value: float | None
    """The objective; None if the experiment has no result."""
    directory: str
    """Directory of the experiment, relative to the output root. Trials may share one."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search and its trials, in the order in which they were asked for."""

    name: str
    """The study with the overrides that are equal in all trials."""
    objective: str
    direction: Literal["maximize", "minimize"]
    trials: Sequence[Trial] = ()


def record_trials(output_root: Path, key: str, search: Search) -> None:
    """Write the trials of a search so far.

    Trials that an earlier start recorded after these ones are kept, as long as both began alike.

    Args:
        output_root: where the experiments are.
        key: the name of the file; equal for the starts of one search.
        search: the search with all its trials since it was started.

    Raises:
        OSError: if the file cannot be written.
    """
    path = output_root / SEARCHES / f"{key}.json"
    earlier = _read(path)
    count = len(search.trials)
    if earlier is not None and all(
        old.directory == new.directory
        for old, new in zip(earlier.trials, search.trials, strict=False)
    ):
        search = replace(search, trials=[*search.trials, *earlier.trials[count:]])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(search))


def searches_with(directories: Iterable[Path]) -> list[Search]:
    """Return the searches that at least one of some experiments is a trial of, ordered by name.

    A record that cannot be read is left out with a warning.
    """
    by_root: dict[Path, set[str]] = {}
    for directory in directories:
        # <output root>/<model>/<attention>/<benchmark>/<fingerprint>
        *_, root = directory.absolute().parents[:4]
        by_root.setdefault(root, set()).add(directory.absolute().relative_to(root).as_posix())
    found = []
    for root, known in by_root.items():
        records = (_read(path) for path in sorted((root / SEARCHES).glob("*.json")))
        found += [
            search
            for search in records
            if search is not None and any(trial.directory in known for trial in search.trials)
        ]
    return sorted(found, key=lambda search: search.name)


def _read(path: Path) -> Search | None:
    try:
        return msgspec.json.decode(read_file(path), type=Search)
    except FileNotFoundError:
        return None
    except (OSError, DamagedResults, ValueError) as error:
        logger.warning("left out: the trials of %s: %s", plain(str(path)), error)
        return None
