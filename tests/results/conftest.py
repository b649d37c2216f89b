"""The directory of an experiment, its store, and its files."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import orjson
import pytest
from omegaconf import OmegaConf

from sah.results.identity import fingerprint_of
from sah.results.schema import MeanScore, Result, TaskResult
from sah.results.store import ResultStore
from sah.types import Score


@pytest.fixture
def fingerprint() -> str:
    """The fingerprint of the experiment."""
    return fingerprint_of({"seed": 0})


@pytest.fixture
def folder(tmp_path: Path, fingerprint: str) -> Path:
    """The output directory of one experiment."""
    return tmp_path / "outputs" / "model" / fingerprint


@pytest.fixture
def claimed() -> Callable[..., AbstractContextManager[None]]:
    """Claim a store as the experiment does."""

    def claim(store: ResultStore, *, resume: bool = True) -> AbstractContextManager[None]:
        return store.claimed(OmegaConf.create({"seed": 0}), ["seed=0"], resume)

    return claim


@pytest.fixture
def lines() -> Callable[[Path], list[dict[str, Any]]]:
    """Read a file of JSON lines, every one of which must be whole."""

    def read(path: Path) -> list[dict[str, Any]]:
        content = path.read_bytes()
        assert content == b"" or content.endswith(b"\n")
        return [orjson.loads(line) for line in content.splitlines()]

    return read


@pytest.fixture
def store(folder: Path, fingerprint: str) -> ResultStore:
    return ResultStore(folder, fingerprint)


@pytest.fixture
def reopen(
    folder: Path, fingerprint: str, claimed: Callable[..., AbstractContextManager[None]]
) -> Callable[[], ResultStore]:
    """Read what another process would find."""

    def read() -> ResultStore:
        found = ResultStore(folder, fingerprint)
        with claimed(found):
            return found

    return read


@pytest.fixture
def scores() -> list[Score]:
    return [Score(example_id="a", task="task", score=1.0, details={"words": 2})]


@pytest.fixture
def result(
    make_result: Callable[..., Result], folder: Path, fingerprint: str
) -> Callable[..., Result]:
    """Make the result of the scores; its model may carry a mark."""
    mean = MeanScore(score=1.0, stderr=None, n=1, contexts=1)

    def make(model: str = "tiny") -> Result:
        return make_result(
            directory=folder,
            fingerprint=fingerprint,
            model=model,
            score=1.0,
            n=1,
            tasks={"task": TaskResult(**vars(mean))},
        )

    return make
