"""The base class of suites: published data sets of several tasks."""

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

from sah.benchmarks.base import BaseBenchmark
from sah.benchmarks.suites.rows import (
    Loaded,
    Row,
    Source,
    cached_commits,
    column,
    find_files,
    load_rows,
    text_column,
)
from sah.content import digest_of_files, find_commit, is_commit
from sah.errors import ConfigurationError, DatasetError
from sah.types import Example, PromptTokenizer, Size


@dataclass(frozen=True, kw_only=True)
class Suite(BaseBenchmark):
    """A published data set of long-context tasks whose rows contain the prompts.

    Construction reads nothing; `examples` does.
    """

    context_tokens: int | None = None
    """Longest prompt plus answer; longer contexts lose their middle. None: the model's limit."""
    path: str | None = None
    """A folder with the files of the data set; None reads from the Hub or its cache."""
    revision: str | Mapping[str, str] | None = None
    """Commit, tag or branch on the Hub, or a mapping from data sets to them; None means main."""

    data: ClassVar[str] = "Hugging Face Hub"
    may_cut: ClassVar[bool] = True
    """Whether contexts that are too long lose their middle; if not, they are refused."""

    def __post_init__(self) -> None:
        """Also check that `revision` names only data sets of this suite."""
        super().__post_init__()
        if isinstance(self.revision, Mapping):
            unknown = sorted(self.revision.keys() - set(self.all_datasets()))
            if unknown:
                raise ConfigurationError(
                    f"benchmark.revision names {', '.join(unknown)}; the data sets of {self.name} "
                    f"are {', '.join(self.all_datasets())}"
                )

    def sources(self) -> tuple[Source, ...]:
        """Return the sources of the chosen subsets."""
        return tuple(dict.fromkeys(self.source(subset) for subset in self.chosen()))

    def hub_datasets(self) -> tuple[str, ...]:
        """Return the data sets of the chosen subsets."""
        return _sets(self.sources())

    def all_datasets(self) -> tuple[str, ...]:
        """Return the data sets that `revision` may name: those of all subsets."""
        return _sets([self.source(subset) for subset in self.subsets()])

    def revision_of(self, dataset: str) -> str:
        """Return the commit, tag or branch to read a data set at."""
        revision = self.revision
        return (revision.get(dataset) if isinstance(revision, Mapping) else revision) or "main"

    def is_here(self) -> bool:
        """Whether the chosen subsets can be read without a network: from `path` or the cache."""
        if self.path is not None:
            return True
        for source in self.sources():
            commits, revision = cached_commits(source), self.revision_of(source.dataset)
            if not commits or (is_commit(revision) and revision not in commits):
                return False
        return True

    def size(self, seed: int) -> Size:
        """Return the size from the rows, if they can be read without a network.

        Raises:
            DatasetError: if they cannot.
        """
        if not self.is_here():
            raise DatasetError(
                f"the data of {self.name} are not on this machine; `sah fetch` with the same "
                "overrides downloads them"
            )
        return super().size(seed)

    def check_data(self) -> None:
        """Check that the files of the chosen subsets are in `path`, if it is set.

        Raises:
            DatasetError: naming what the folder lacks.
        """
        if self.path is not None:
            for source in self.sources():
                find_files(source, self.path)

    def revision_note(self) -> str:
        """Say whether the data are pinned to a commit, and how to pin those on this machine."""
        if self.path is not None:
            return "files of benchmark.path"
        cached = [(source.dataset, cached_commits(source)[-1:]) for source in self.sources()]
        return self._note([(dataset, commit) for dataset, commits in cached for commit in commits])

    def find_content(self) -> dict[str, Any]:
        """Return the digest of the chosen subsets' files in `path`, or their commits by data set.

        A branch stands for the newest commit in the cache, else for the one on the Hub.

        Raises:
            DatasetError: if the folder lacks files.
        """
        if self.path is not None:
            files = [file for source in self.sources() for file in find_files(source, self.path)]
            return {"path": digest_of_files(dict.fromkeys(files))}
        found: dict[str, dict[str, str]] = {}
        for source in self.sources():
            commit = self._find_commit(source)
            if commit is not None:
                found.setdefault(source.dataset, {})[_named(source)] = commit
        return {
            "revision": {
                name: commit
                for dataset, commits in found.items()
                for name, commit in (
                    commits.items()
                    if len(set(commits.values())) > 1
                    else [(dataset, next(iter(commits.values())))]
                )
            }
        }

    def fetch(self) -> str:
        """Download the chosen subsets into the Hub's cache; return a note on what was read."""
        loaded = {
            source: load_rows(source, path=self.path, revision=self.revision_of(source.dataset))
            for source in self.sources()
        }
        rows = sum(len(item.rows) for item in loaded.values())
        commits = [(source.dataset, item.commit) for source, item in loaded.items() if item.commit]
        note = "files of benchmark.path" if self.path is not None else self._note(commits)
        return f"{rows} rows of {len(loaded)} configurations; {note}"

    def make_examples(self, tokenizer: PromptTokenizer, seed: int) -> Sequence[Example]:
        """Return the examples of the chosen subsets, in the order of the data set.

        Raises:
            DatasetError: if data are missing or not as published, even of one subset: an average
                over fewer tasks would be a wrong number.
        """
        load = cache(self._load)
        examples: list[Example] = []
        for subset in self.chosen():
            source = self.source(subset)
            loaded = load(source)
            content = (self.content or {}).get("path") or self.path
            origin = f"{source.dataset}@{loaded.commit or content or 'unknown'}"
            chosen = [row for row in loaded.rows if self.belongs(row, subset)]
            if not chosen:
                raise DatasetError(f"{source} has no row of {subset}")
            examples += [
                replace(self.example(row, subset, f"{subset}-{number}", source), origin=origin)
                for number, row in enumerate(chosen)
            ]
        return examples

    @abstractmethod
    def source(self, subset: str) -> Source:
        """Return the source of a subset's rows."""

    def belongs(self, row: Row, subset: str) -> bool:
        """Whether a row of the subset's source belongs to the subset."""
        return True

    def extras(self, row: Row, subset: str, source: Source) -> dict[str, Any]:
        """Return the scorer's arguments besides the references."""
        return {}

    def references(self, row: Row, source: Source) -> tuple[str, ...]:
        """Return the right answers, from the column `answers` or else `answer`."""
        value = row["answers"] if "answers" in row else column(row, "answer", source)
        if isinstance(value, str):
            return (value,)
        if value is None:
            return ()
        if not isinstance(value, Sequence) or not all(
            isinstance(item, str | int | float) for item in value
        ):
            raise DatasetError(
                f"{source}: answers must be a string or a list of strings, got {value!r}"
            )
        return tuple(str(item) for item in value)

    def example(self, row: Row, subset: str, identifier: str, source: Source) -> Example:
        """Convert one row to an example."""
        limit = row.get("max_new_tokens")
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise DatasetError(
                f"{source}: max_new_tokens must be a whole number of at least 1, got {limit!r}"
            )
        return Example(
            id=identifier,
            task=subset,
            context=text_column(row, "context", source),
            question=text_column(row, "question", source),
            answer_prefix=str(row.get("answer_prefix") or ""),
            references=self.references(row, source),
            max_new_tokens=self.tasks[subset].max_new_tokens if limit is None else limit,
            extras=self.extras(row, subset, source),
            may_cut=self.may_cut,
            max_tokens=self.context_tokens,
        )

    def _load(self, source: Source) -> Loaded:
        commits = (self.content or {}).get("revision") or {}
        composed = commits.get(_named(source)) or commits.get(source.dataset)
        revision = self.revision_of(source.dataset)
        loaded = load_rows(source, path=self.path, revision=composed or revision)
        if composed is not None and self.path is None and loaded.commit not in (composed, None):
            raise DatasetError(
                f"{source}: revision {revision} is commit {loaded.commit} now, and was {composed} "
                "when the experiment was composed; run it again"
            )
        return loaded

    def _find_commit(self, source: Source) -> str | None:
        revision = self.revision_of(source.dataset)
        if is_commit(revision):
            return revision
        cached = cached_commits(source)
        return cached[-1] if cached else find_commit(source.dataset, revision, "dataset")

    def _note(self, found: Collection[tuple[str, str]]) -> str:
        """Say which data sets are not pinned, and which override pins them to the commits found."""
        moving = [name for name in self.hub_datasets() if not is_commit(self.revision_of(name))]
        if not moving:
            return "pinned to a commit"
        names = ", ".join(dict.fromkeys(map(self.revision_of, moving)))
        note = f"revision {names} is not pinned to a commit"
        commits = {name: {commit for set_, commit in found if set_ == name} for name in moving}
        if any(len(several) != 1 for several in commits.values()):
            # Not cached, or configurations at different commits: no single commit pins them.
            return note
        pins = {name: commit for name, (commit,) in commits.items()}
        if len(self.all_datasets()) == 1:
            return f"{note}; pin it with benchmark.revision={pins[moving[0]]}"
        each = ", ".join(f"{name}: {commit}" for name, commit in pins.items())
        return f"{note}; pin it with 'benchmark.revision={{{each}}}'"


def _named(source: Source) -> str:
    return f"{source.dataset} {source.config}"


def _sets(sources: Sequence[Source]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(source.dataset for source in sources))
