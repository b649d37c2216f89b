"""The directory of an experiment, its store, and its files."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import orjson
import pytest
from omegaconf import OmegaConf

from sah.results.schema import Result
from sah.results.store import ResultStore
from sah.types import Score


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The output directory of one experiment."""
    return tmp_path / "outputs" / "model" / "fingerprint"


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
def store(folder: Path) -> ResultStore:
    return ResultStore(folder, "fingerprint")


@pytest.fixture
def reopen(
    folder: Path, claimed: Callable[..., AbstractContextManager[None]]
) -> Callable[[], ResultStore]:
    """Read what another process would find."""

    def read() -> ResultStore:
        found = ResultStore(folder, "fingerprint")
        with claimed(found):
            return found

    return read


@pytest.fixture
def scores() -> list[Score]:
    return [Score(example_id="a", task="task", score=1.0, details={"words": 2})]


@pytest.fixture
def result(make_result: Callable[..., Result], folder: Path) -> Callable[..., Result]:
    """Make a result of the experiment; its model may carry a mark."""

    def make(model: str = "tiny") -> Result:
        return make_result(directory=folder, fingerprint="fingerprint", model=model)

    return make
