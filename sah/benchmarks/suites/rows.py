"""Reading the rows of a published data set, from the Hub or from a folder."""

import itertools
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from sah.errors import DatasetError

logger = logging.getLogger(__name__)

_SPLITS = frozenset({"train", "test", "dev", "validation"})
_FORMATS = (".parquet", ".jsonl")
# Some sixteen million tokens. What is longer is not read into memory.
_LONGEST_LINE_BYTES = 64 * 10**6

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where on the Hub the rows of a subset are."""

    dataset: str
    config: str | None = None
    split: str = "test"

    def __str__(self) -> str:
        return f"{self.dataset} ({', '.join(filter(None, (self.config, self.split)))})"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """The rows of a source, and which state of the data set they are."""

    rows: list[Row]
    commit: str | None
    """On the Hub; None for files of a folder that does not tell."""


def load_rows(source: Source, *, path: str | None, revision: str) -> Loaded:
    """Read all rows of a configuration and split.

    Args:
        source: what to read.
        path: a folder with the data set's .parquet or .jsonl files, as `hf download` leaves
            them, or with a folder of them called like the data set; None reads from the Hub
            or its cache.
        revision: commit, tag or branch on the Hub. Without a network a tag or branch is the
            newest commit in the cache.

    Raises:
        DatasetError: naming what is missing and where it was looked for.
    """
    if path is not None:
        folder = Path(path).expanduser()
        # A suite of several data sets: each in a folder called like it.
        own = folder / source.dataset.rpartition("/")[2]
        folder = own if own.is_dir() else folder
        rows = [row for file in _files(folder, source) for row in _read(file)]
        loaded = Loaded(rows=rows, commit=_snapshot_commit(folder))
    else:
        loaded = _from_hub(source, revision)
    if not loaded.rows:
        raise DatasetError(f"{source} has no rows" + (f" in {path}" if path else ""))
    return loaded


def column(row: Row, name: str, source: Source) -> Any:
    """A value of a row.

    Raises:
        DatasetError: naming the column and those there are.
    """
    if name not in row:
        raise DatasetError(
            f"{source} has no column {name!r}, only {', '.join(sorted(row))}; is it the data set "
            "that was published under this name?"
        )
    return row[name]


def text_column(row: Row, name: str, source: Source) -> str:
    """A value of a row that must be a text.

    Raises:
        DatasetError: naming the column and what it holds, or that it is missing.
    """
    value = column(row, name, source)
    if not isinstance(value, str):
        raise DatasetError(
            f"{source}: column {name!r} holds {type(value).__name__} {_short(value)}, not a text; "
            "is it the data set that was published under this name?"
        )
    return value


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit, which stays what it is, and no branch or tag."""
    return re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def cached_commits(source: Source) -> list[str]:
    """The commits of a source that can be read without a network, the newest last."""
    from datasets import config
    from datasets.naming import camelcase_to_snakecase

    *owner, name = source.dataset.split("/")
    folder = Path(config.HF_DATASETS_CACHE) / "___".join([*owner, camelcase_to_snakecase(name)])
    found = [path for path in folder.glob(f"{source.config or '*'}/*/*") if is_commit(path.name)]
    return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime)]


def _from_hub(source: Source, revision: str) -> Loaded:
    import datasets
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub import constants

    quiet = not logger.isEnabledFor(logging.INFO)
    if quiet:
        datasets.disable_progress_bars()
    try:
        loaded = datasets.load_dataset(
            source.dataset, source.config, split=source.split, revision=revision
        )
    except (DatasetNotFoundError, FileNotFoundError, ValueError, ConnectionError) as error:
        if isinstance(error, ConnectionError) and not constants.HF_HUB_OFFLINE:
            # A network that is there may come back: the run tries again.
            raise
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise DatasetError(
            f"{source} (revision {revision}) cannot be loaded: {reason}; run `sah fetch` "
            "where there is a network, or set benchmark.path to a folder with its files"
        ) from error
    files = [Path(file["filename"]) for file in loaded.cache_files]
    commit = files[0].parent.name if files and is_commit(files[0].parent.name) else None
    if commit is not None and is_commit(revision) and commit != revision:
        # Without a network the library takes the newest commit it has, whichever is asked for.
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
            "`sah fetch` where there is a network, or choose the other with "
            f"benchmark.revision={instead_of}"
        )
    return datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in files])


def _snapshot_commit(folder: Path) -> str | None:
    """The commit that a folder of the Hub's cache has in its path, as `hf download` prints it."""
    parts = folder.resolve().parts
    named = [after for before, after in pairwise(parts) if before == "snapshots"]
    return named[-1] if named and is_commit(named[-1]) else None


def _files(folder: Path, source: Source) -> list[Path]:
    """The files of a configuration and split, whichever way the folder is laid out.

    Both may be folders (`qasper/test-00000-of-00001.parquet`) or the beginning of a file's
    name (`qasper.jsonl`, `test-00000-of-00001.parquet`); a file that names no split has one.
    """
    if not folder.is_dir():
        raise DatasetError(f"benchmark.path={str(folder)!r} is no folder; give one with the files")
    files = sorted(file for file in folder.rglob("*") if file.suffix in _FORMATS)
    found = [file for file in files if source.config in (None, *_names(folder, file))]
    splits = [_SPLITS.union({source.split}) & {*_names(folder, file)} for file in found]
    # A configuration may be called like its split.
    of_split = [
        file
        for file, named in zip(found, splits, strict=True)
        if source.split in named or not named
    ]
    if not of_split:
        names = [str(file.relative_to(folder)) for file in files]
        raise DatasetError(
            f"benchmark.path={str(folder)!r} has no .parquet or .jsonl file of {source}; it has "
            f"{_some(names)}"
        )
    return of_split


def _names(folder: Path, file: Path) -> list[str]:
    """Folders on the way to a file, its name, and what comes before `-00000-of-00001` in it."""
    relative = file.relative_to(folder).with_suffix("")
    return [*relative.parts, relative.name.split("-0")[0]]


def _read(file: Path) -> Iterator[Row]:
    if file.suffix == ".jsonl":
        yield from read_json_lines(file)
        return
    import pyarrow
    from pyarrow import parquet

    try:
        yield from parquet.read_table(file).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DatasetError(f"{file} is no readable parquet file: {error}") from error


def read_json_lines(file: Path) -> Iterator[Row]:
    """Read one JSON object a line; empty lines do not count.

    Raises:
        DatasetError: naming the line that is anything else, or longer than is read.
    """
    with open(file, "rb") as lines:
        yield from _json_objects(file, lines)


def _json_objects(file: Path, lines: BinaryIO) -> Iterator[Row]:
    for number in itertools.count(1):
        line = lines.readline(_LONGEST_LINE_BYTES + 1)
        if not line:
            return
        if len(line) > _LONGEST_LINE_BYTES:
            raise DatasetError(
                f"{file} line {number} is longer than {_LONGEST_LINE_BYTES // 10**6} MB, more than "
                "any model's context; is each example on a line of its own?"
            )
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise DatasetError(f"{file} line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{file} line {number} is no JSON object")
        yield row


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _some(names: Sequence[str]) -> str:
    if not names:
        return "none at all"
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
