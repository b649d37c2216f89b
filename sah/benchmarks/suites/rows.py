"""Reading the rows of a published data set from the Hub or from a folder."""

import csv
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from sah.benchmarks.json_lines import plain_numbers, read_numbered_lines
from sah.content import is_commit
from sah.errors import DatasetError

logger = logging.getLogger(__name__)

_SPLITS = frozenset({"train", "test", "dev", "validation"})
_FORMATS = (".parquet", ".jsonl", ".csv")

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Data set, configuration and split that a subset's rows are read from."""

    dataset: str
    config: str | None = None
    split: str = "test"
    gated: bool = False
    """Whether the Hub asks to accept terms before it can be downloaded."""

    def __str__(self) -> str:
        return f"{self.dataset} ({', '.join(filter(None, (self.config, self.split)))})"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The rows of a source, and the commit they are from."""

    rows: list[Row]
    commit: str | None
    """The commit on the Hub; None for files in a folder that does not show it."""


def load_rows(source: Source, *, path: str | None, revision: str) -> Loaded:
    """Read all rows of a configuration and split.

    Args:
        source: what to read.
        path: a folder with the .parquet, .jsonl or .csv files of the data set, as `hf download`
            leaves them, or with a subfolder of them named like the data set; None reads from the
            Hub or its cache.
        revision: commit, tag or branch on the Hub. Without a network, a tag or branch means the
            newest commit in the cache.

    Raises:
        DatasetError: naming what is missing and where it was searched.
    """
    if path is not None:
        rows = [row for file in find_files(source, path) for row in _read(file)]
        loaded = Loaded(rows=rows, commit=_snapshot_commit(_folder(source, path)))
    else:
        loaded = _from_hub(source, revision)
    if not loaded.rows:
        raise DatasetError(f"{source} has no rows" + (f" in {path}" if path else ""))
    return loaded


def column(row: Row, name: str, source: Source) -> Any:
    """Return a value of a row.

    Raises:
        DatasetError: naming the missing column and the existing ones.
    """
    if name not in row:
        raise DatasetError(
            f"{source} has no column {name!r}, only {', '.join(sorted(row))}; is this the data set "
            "published under this name?"
        )
    return row[name]


def text_column(row: Row, name: str, source: Source) -> str:
    """Return a value of a row that must be a string.

    Raises:
        DatasetError: if the column is missing or holds something else.
    """
    value = column(row, name, source)
    if not isinstance(value, str):
        raise DatasetError(
            f"{source}: column {name!r} holds {type(value).__name__} {_short(value)}, not a "
            "string; is this the data set published under this name?"
        )
    return value


def cached_commits(source: Source) -> list[str]:
    """List the commits of a source in the cache, the newest last."""
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    *owner, name = source.dataset.split("/")
    folder = Path(config.HF_DATASETS_CACHE) / "___".join([*owner, camelcase_to_snakecase(name)])
    found = [path for path in folder.glob(f"{source.config or '*'}/*/*") if is_commit(path.name)]
    return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime)]


def _from_hub(source: Source, revision: str) -> Loaded:
    import datasets
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError

    quiet = not logger.isEnabledFor(logging.INFO)
    if quiet:
        datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(
            source.dataset, source.config, split=source.split, revision=revision
        )
    except (FileNotFoundError, GatedRepoError, ValueError, ConnectionError) as error:
        if isinstance(error, ConnectionError) and not constants.HF_HUB_OFFLINE:
            # A temporary failure of the network: the experiment is retried.
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        terms = f"accept its terms at {_page(source)}, set HF_TOKEN, and " if source.gated else ""
        raise DatasetError(
            f"{source} (revision {revision}) cannot be loaded: {reason}; {terms}run `sah fetch` "
            "with network access, or set benchmark.path to a folder with its files"
        ) from error
    files = [Path(file["filename"]) for file in loaded.cache_files]
    commit = files[0].parent.name if files and is_commit(files[0].parent.name) else None
    if commit is not None and is_commit(revision) and commit != revision:
        # Without a network, the library ignores the revision and takes the newest cached commit.
        loaded = _cached(source, files[0].parent.with_name(revision), instead_of=commit)
        commit = revision
    return Loaded(rows=list(loaded), commit=commit)


def _cached(source: Source, folder: Path, *, instead_of: str) -> Any:
    import datasets

    split = re.escape(source.split)
    files = [
        file
        for file in sorted(folder.glob("*.arrow"))
        if re.fullmatch(rf".*-{split}(-\d+-of-\d+)?", file.stem)
    ]
    if not files:
        raise DatasetError(
            f"{source}: commit {folder.name} is not on this machine, only {instead_of}; run "
            "`sah fetch` with network access, or use the other commit with "
            f"benchmark.revision={instead_of}"
        )
    return datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in files])


def _snapshot_commit(folder: Path) -> str | None:
    """Return the commit in the path of a snapshot folder, as `hf download` prints it."""
    parts = folder.resolve().parts
    named = [after for before, after in pairwise(parts) if before == "snapshots"]
    return named[-1] if named and is_commit(named[-1]) else None


def _folder(source: Source, path: str) -> Path:
    """Return the folder of a data set: `path`, or a subfolder of it named like the data set."""
    folder = Path(path).expanduser()
    own = folder / source.dataset.rpartition("/")[2]
    return own if own.is_dir() else folder


def find_files(source: Source, path: str) -> list[Path]:
    """Find the files of a configuration and split, in any of the usual layouts.

    Configuration and split may be folders (`qasper/test-00000-of-00001.parquet`) or the beginning
    of a file name (`qasper.jsonl`, `test-00000-of-00001.parquet`). A file whose name has no split
    counts as the one asked for.

    Raises:
        DatasetError: if there are none, naming what there is.
    """
    folder = _folder(source, path)
    if not folder.is_dir():
        raise DatasetError(
            f"benchmark.path={str(folder)!r} is not a folder; give the folder with the files"
        )
    files = sorted(file for file in folder.rglob("*") if file.suffix in _FORMATS)
    found = [file for file in files if source.config in (None, *_names(folder, file))]
    splits = [_SPLITS.union({source.split}) & {*_names(folder, file)} for file in found]
    # A configuration may have the name of a split.
    of_split = [
        file
        for file, named in zip(found, splits, strict=True)
        if source.split in named or not named
    ]
    if not of_split:
        names = [str(file.relative_to(folder)) for file in files]
        raise DatasetError(
            f"benchmark.path={str(folder)!r} has no .parquet, .jsonl or .csv file of {source}; "
            f"it contains {_some(names)}"
        )
    return of_split


def _names(folder: Path, file: Path) -> list[str]:
    """Return the folders above a file, its name, and its name without `-00000-of-00001`."""
    relative = file.relative_to(folder).with_suffix("")
    return [*relative.parts, relative.name.split("-0")[0]]


def _read(file: Path) -> Iterator[Row]:
    if file.suffix == ".jsonl":
        yield from (plain_numbers(row) for _, row in read_numbered_lines(file))
        return
    if file.suffix == ".csv":
        yield from _read_csv(file)
        return
    import pyarrow
    from pyarrow import parquet

    try:
        yield from parquet.read_table(file).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DatasetError(f"{file} is not a readable parquet file: {error}") from error


def _read_csv(file: Path) -> Iterator[Row]:
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            for row in csv.DictReader(lines, strict=True):
                if None in row or None in row.values():
                    raise csv.Error(f"a row of {len(row)} columns does not fit the header")
                yield row
    except (csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{file} is not a readable CSV file: {error}") from error


def _page(source: Source) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/datasets/{source.dataset}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _some(names: Sequence[str]) -> str:
    if not names:
        return "none"
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
