"""Finding and reading the results below some folders: ten thousand in seconds."""

import hashlib
import logging
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sah.errors import ConfigurationError, DamagedResults
from sah.results.identity import FINGERPRINT_LENGTH, check_config, folders
from sah.results.schema import Result
from sah.results.store import CONFIG, OVERRIDES, RESULTS, WrongDirectory, read_result
from sah.results.stored_lines import check_files
from sah.terminal import plain

logger = logging.getLogger(__name__)

_FINGERPRINT = re.compile(rf"[0-9a-f]{{{FINGERPRINT_LENGTH}}}")
_MAX_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class Found:
    """The experiments below some folders, each of them once."""

    contents: dict[Path, Result | DamagedResults | None] = field(default_factory=dict)
    """By directory: the result, why it cannot be read, or None for an unfinished experiment."""
    copies: list[Path] = field(default_factory=list)
    """Directories that are not named after what lies in them, or whose result is elsewhere too."""
    complete: dict[Path, int] = field(default_factory=dict)
    """Number of results below each folder, those that are below another one too included."""

    def warn_of_copies(self) -> None:
        """Name the directories that do not count, in one warning."""
        if self.copies:
            names = ", ".join(map(str, self.copies[:_MAX_NAMED]))
            more = len(self.copies) - _MAX_NAMED
            logger.warning(
                "left out as copies: %s%s; a directory counts once, under the fingerprint of its "
                "experiment: rename it, or move it away",
                *(plain(names), f" and {more} more" if more > 0 else ""),
            )


def find(roots: Sequence[Path]) -> Found:
    """Find the experiments below some folders, at any depth, and read their results.

    An experiment's directory may itself be one of the folders. Hidden folders are not read.

    Raises:
        ConfigurationError: if one of the folders does not exist.
    """
    found = Found()
    # Two folders may overlap, and links lead to the same directory.
    read: dict[Path, Result | DamagedResults | None] = {}
    for root in roots:
        if not root.is_dir():
            raise ConfigurationError(
                f"no complete experiment below {str(root)!r}, which is not a folder; give another "
                "one as the argument"
            )
        found.complete[root] = 0
        for directory in _directories(root):
            real = directory.resolve()
            if real not in read:
                read[real] = content = _read(directory)
                if isinstance(content, WrongDirectory):
                    found.copies.append(directory)
                else:
                    found.contents[directory] = content
            found.complete[root] += isinstance(read[real], Result)
    _leave_out_repeated(found)
    return found


def signature(roots: Sequence[Path]) -> str:
    """Hash the path, size and time of change of every results.json below some folders.

    Nothing is read, so that it is cheap to ask whether any of them has changed.
    """
    known = hashlib.blake2b(digest_size=8)
    for root in roots:
        for directory in _directories(root):
            try:
                status = (directory / RESULTS).stat()
            except OSError:
                continue
            known.update(f"{directory}\0{status.st_size} {status.st_mtime_ns}\n".encode())
    return known.hexdigest()


def _directories(root: Path) -> Iterator[Path]:
    """Return the directories that hold an experiment or a copy of one, in order."""
    waiting, seen = [root], set()
    while waiting:
        folder = waiting.pop()
        try:
            status = folder.stat()
            # Links may lead in circles.
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                names = {entry.name: (_is_folder(entry), entry.is_symlink()) for entry in entries}
        except OSError as error:
            logger.warning("left out: %s cannot be read: %s", plain(str(folder)), error.strerror)
            continue
        # The configuration of another program is not an experiment.
        known = {CONFIG} if _FINGERPRINT.fullmatch(_name(folder)) else {CONFIG, OVERRIDES}
        if RESULTS in names or known <= names.keys():
            yield folder
        # Links last, so that a directory has its own path.
        inner = sorted(
            (is_link, name)
            for name, (is_folder, is_link) in names.items()
            if is_folder and not name.startswith(".")
        )
        waiting.extend(folder / name for _, name in reversed(inner))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link that leads in a circle.
        return False


def _name(directory: Path) -> str:
    """Return the name of a directory; that of its target for a link such as `latest`."""
    name = os.path.basename(os.path.abspath(directory))
    return name if _FINGERPRINT.fullmatch(name) else directory.resolve().name


def _read(directory: Path) -> Result | DamagedResults | None:
    name = _name(directory)
    if not _FINGERPRINT.fullmatch(name):
        return WrongDirectory(f"{directory} is not named after an experiment")
    try:
        result = read_result(directory, name)
        if result is not None:
            check_config(result)
        return result
    except DamagedResults as error:
        return error
    except OSError as error:
        return _unreadable(directory, error)


def _unreadable(directory: Path, error: OSError) -> DamagedResults:
    return DamagedResults(f"{error.filename or directory} cannot be read: {error.strerror}")


def _leave_out_repeated(found: Found) -> None:
    """Keep one directory of each result: where its experiment would write it, or the first."""
    of_fingerprint: dict[str, list[Result]] = {}
    for content in found.contents.values():
        if isinstance(content, Result):
            of_fingerprint.setdefault(content.fingerprint, []).append(content)
    for same in of_fingerprint.values():
        if len(same) == 1:
            continue
        kept = next(filter(_is_in_place, same), same[0])
        for result in same:
            if result is not kept:
                del found.contents[result.directory]
                found.copies.append(result.directory)


def _is_in_place(result: Result) -> bool:
    place = folders(result.model, result.attention, result.benchmark, result.subset)
    return result.directory.resolve().parts[-4:-1] == place.parts


def collect(*roots: Path) -> list[Result]:
    """Read every result below some folders, ordered by folder and directory.

    Damaged results are left out with a warning that names them, and so are copies.

    Args:
        roots: output roots, parts of them, or directories of experiments.

    Raises:
        ConfigurationError: if there are no results below one of the folders.
        DamagedResults: if one of the folders is the directory of a damaged result.
    """
    found = find(roots)
    results = []
    for directory, content in found.contents.items():
        if isinstance(content, Result):
            results.append(content)
        elif content is not None:
            _leave_out(directory, content, roots)
    found.warn_of_copies()
    for root in roots:
        if not found.complete[root]:
            raise ConfigurationError(
                f"no complete experiment below {str(root)!r}; `sah status {root}` shows unfinished "
                "ones; give another folder as the argument"
            )
    return results


def with_whole(
    results: Sequence[Result], files: Collection[str], roots: Sequence[Path] = ()
) -> list[Result]:
    """Return the results whose files are whole; the others are left out with a warning.

    Args:
        results: from `collect`.
        files: the files that will be read, such as predictions.jsonl.
        roots: as given to `collect`.

    Raises:
        ConfigurationError: if none is left.
        DamagedResults: if one of the roots is the directory of a damaged result.
    """
    whole = []
    for result in results:
        try:
            check_files(result, files)
        except DamagedResults as error:
            _leave_out(result.directory, error, roots)
        except OSError as error:
            _leave_out(result.directory, _unreadable(result.directory, error), roots)
        else:
            whole.append(result)
    if results and not whole:
        raise ConfigurationError("every result was left out; the warnings say why")
    return whole


def _leave_out(directory: Path, error: DamagedResults, roots: Sequence[Path]) -> None:
    if directory in roots:
        raise error
    logger.warning("left out: %s", plain(str(error)))
