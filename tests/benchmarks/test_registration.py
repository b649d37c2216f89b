"""Benchmarks that other packages bring."""

import importlib
import sys

import pytest
from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate

from sah.benchmarks import registration
from sah.benchmarks.listing import listed_benchmarks

MODULE = """
from dataclasses import dataclass
from sah.benchmarks.mock import Mock
from sah.benchmarks.registration import register_benchmark


@register_benchmark("theirs", aliases=("mine",))
@dataclass(frozen=True, kw_only=True)
class Theirs(Mock):
    words: int
    title = "brought by a package"
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package with a benchmark, announced by an entry point."""
    (tmp_path / "their_package.py").write_text(MODULE)
    info = tmp_path / "their_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sah.benchmarks]\ntheirs = their_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    state = ConfigStore.get_state()
    registration.import_registered_packages()
    yield
    ConfigStore.set_state(state)
    del sys.modules["their_package"]
    registration._registered.pop("theirs")


@pytest.mark.parametrize("name", ["theirs", "mine"])
def test_a_registered_benchmark_is_an_option_by_name_and_alias(package, compose, name):
    config = compose("model=tiny", f"benchmark={name}", "benchmark.words=3")
    benchmark = instantiate(config.benchmark)
    assert type(benchmark).__name__ == "Theirs"
    assert (benchmark.name, benchmark.words, benchmark.max_new_tokens) == ("theirs", 3, 8)


def test_a_field_without_a_default_must_be_given(package, compose):
    config = compose("model=tiny", "benchmark=theirs")
    with pytest.raises(Exception, match="words"):
        instantiate(config.benchmark)


def test_a_registered_benchmark_is_listed_once_with_its_aliases(package, tmp_path):
    (item,) = listed_benchmarks(tmp_path)
    assert (item.name, item.aliases, item.title) == ("theirs", ("mine",), "brought by a package")
