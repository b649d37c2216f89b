"""Remember which directory a set of overrides composes to, so that it is composed only once."""

import hashlib
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import hydra
import orjson

import sah
from sah.errors import DamagedResults
from sah.results import identity
from sah.results.contents import Identified
from sah.results.files import read_json_lines, write_atomically
from sah.results.store import is_complete

logger = logging.getLogger(__name__)

# Resolvers that make a configuration depend on more than files and overrides.
_IMPURE = re.compile(r"\$\{(oc\.env|env|now|hydra|random)\b")


class CompositionMemory:
    """Maps (configuration files, overrides) to a directory, in a file below the output root.

    Only used to recognise a finished experiment, and only if the directory holds a results.json
    with the fingerprint that names it, and what the experiment reads has not changed. Composing
    10,000 finished cells takes minutes, looking them up a second.
    """

    def __init__(
        self, path: Path, sources: Iterable[Path], fixed: Iterable[str], *, usable: bool = True
    ) -> None:
        """Read the memory.

        Args:
            path: the file; may be missing.
            sources: folders of configuration files.
            fixed: whatever else the composition depends on.
            usable: False to recognise nothing, as with resume=false.
        """
        self.path = path
        self._key = _hash_of(sources, fixed) if usable else None
        self._known: dict[str, list[Any]] = {}
        """Directory of the overrides, and the numbers of what it reads in `_contents`."""
        self._new: dict[str, list[Any]] = {}
        self._contents: dict[Identified, int] = {}
        self._is_current: dict[int, bool] = {}
        if self._key is None:
            return
        try:
            records, _, _ = read_json_lines(path)
        except DamagedResults as error:
            logger.warning("%s; composing everything", error)
            return
        for record in records:
            if record.get("key") == self._key:
                self._known.update(record["directories"])
                for part, content in record["contents"]:
                    self._number(Identified(part=part, content=content))

    def finished_directory(self, overrides: tuple[str, ...]) -> Path | None:
        """Return the directory of these overrides if their experiment is known and complete.

        Raises:
            DamagedResults: if its results.json is damaged or belongs to another experiment.
        """
        texts = "\n".join(overrides)
        known = self._known.get(texts)
        # Values of overrides may read the environment too.
        if known is None or _IMPURE.search(texts):
            return None
        if any(text.lstrip("+").startswith("resume=") for text in overrides):
            return None
        directory, numbers = known
        if not all(self._is_unchanged(number) for number in numbers):
            return None
        folder = Path(directory)
        return folder if is_complete(folder, folder.name) else None

    def remember(
        self, overrides: tuple[str, ...], directory: Path, read: Iterable[Identified]
    ) -> None:
        """Remember a composed cell and what it reads; written by `save`."""
        entry = [str(directory), [self._number(one) for one in read]]
        if self._known.get("\n".join(overrides)) != entry:
            self._new["\n".join(overrides)] = entry

    def save(self) -> None:
        """Write new entries; those of other configuration files are dropped."""
        if self._key is None or not self._new:
            return
        self._known |= self._new
        self._new = {}
        record = {
            "key": self._key,
            "directories": self._known,
            "contents": [[one.part, one.content] for one in self._contents],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))

    def _number(self, one: Identified) -> int:
        return self._contents.setdefault(one, len(self._contents))

    def _is_unchanged(self, number: int) -> bool:
        """Whether a content is still the same; looked up once for all cells that read it."""
        if number not in self._is_current:
            self._is_current[number] = list(self._contents)[number].is_current()
        return self._is_current[number]


def file_versions(folder: Path) -> list[str]:
    """List the files below a folder, each with its time of change and size."""
    found = [(path, path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [f"{path} {stat.st_mtime_ns} {stat.st_size}" for path, stat in found]


def _hash_of(sources: Iterable[Path], fixed: Iterable[str]) -> str | None:
    """Hash all files and texts; None if one of them reads anything beyond them."""
    digest = hashlib.sha256(f"{hydra.__version__}\n{sah.__version__}\n".encode())
    digest.update(Path(identity.__file__).read_bytes())
    for source in sources:
        for path in sorted(source.rglob("*.yaml")):
            content = path.read_text(encoding="utf-8")
            # Hydra's own settings do not change what is computed.
            if "hydra" not in path.relative_to(source).parts and _IMPURE.search(content):
                return None
            digest.update(f"{path}\n{content}\n".encode())
    for text in fixed:
        if _IMPURE.search(text):
            return None
        digest.update(f"{text}\n".encode())
    return digest.hexdigest()
