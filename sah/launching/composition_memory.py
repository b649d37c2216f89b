"""Remembering which directory a set of overrides composed to, so as not to compose it again."""

import hashlib
import logging
import re
from collections.abc import Iterable
from pathlib import Path

import hydra
import orjson

import sah
from sah.errors import DamagedResults
from sah.results import identity
from sah.results.files import read_json_lines, write_atomically
from sah.results.store import is_complete

logger = logging.getLogger(__name__)

# A configuration that reads these depends on more than files and overrides.
_IMPURE = re.compile(r"\$\{(oc\.env|env|now|hydra|random)\b")


class CompositionMemory:
    """(configuration files, overrides) -> directory, in a file below the output root.

    Only ever used to recognise a finished experiment, and only if its results.json is
    there and carries the fingerprint that the directory is named by. Composing 10,000
    finished cells takes minutes, remembering them a second.
    """

    def __init__(
        self, path: Path, sources: Iterable[Path], fixed: Iterable[str], *, usable: bool = True
    ) -> None:
        """Read the memory.

        Args:
            path: the file; need not exist.
            sources: folders of configuration files.
            fixed: whatever else the composition depends on.
            usable: false where finished experiments run again: nothing is recognised.
        """
        self.path = path
        self._key = _hash_of(sources, fixed) if usable else None
        self._known: dict[str, str] = {}
        self._new: dict[str, str] = {}
        if self._key is None:
            return
        try:
            records, _, _ = read_json_lines(path)
        except DamagedResults as error:
            logger.warning("%s; composing everything", error)
            return
        for record in records:
            if record.get("key") == self._key:
                self._known.update(record.get("directories", {}))

    def finished_directory(self, overrides: tuple[str, ...]) -> Path | None:
        """The directory of these overrides if their experiment is known and complete.

        Raises:
            DamagedResults: if its results.json is not one this version wrote, or another's.
        """
        texts = "\n".join(overrides)
        directory = self._known.get(texts)
        # Values may read the environment too.
        if directory is None or _IMPURE.search(texts):
            return None
        if any(text.lstrip("+").startswith("resume=") for text in overrides):
            return None
        folder = Path(directory)
        return folder if is_complete(folder, folder.name) else None

    def remember(self, overrides: tuple[str, ...], directory: Path) -> None:
        """Keep what was composed, until `save`."""
        if self._known.get("\n".join(overrides)) != str(directory):
            self._new["\n".join(overrides)] = str(directory)

    def save(self) -> None:
        """Write what is new; what other configuration files composed is forgotten."""
        if self._key is None or not self._new:
            return
        self._known |= self._new
        self._new = {}
        record = {"key": self._key, "directories": self._known}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))


def file_versions(folder: Path) -> list[str]:
    """The files below a folder, each with what changes when it is written anew."""
    found = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [f"{path} {stat.st_mtime_ns} {stat.st_size}" for path, stat in found]


def _hash_of(sources: Iterable[Path], fixed: Iterable[str]) -> str | None:
    """A hash of all files and texts; None if one of them asks for more than that."""
    digest = hashlib.sha256(f"{hydra.__version__}\n{sah.__version__}\n".encode())
    digest.update(Path(identity.__file__).read_bytes())
    for source in sources:
        for path in sorted(source.rglob("*.yaml")):
            content = path.read_text(encoding="utf-8")
            # Where our own logging goes does not change what is computed.
            if "hydra" not in path.relative_to(source).parts and _IMPURE.search(content):
                return None
            digest.update(f"{path}\n{content}\n".encode())
    for text in fixed:
        if _IMPURE.search(text):
            return None
        digest.update(f"{text}\n".encode())
    return digest.hexdigest()
