"""`benchmark.subset='*'`: one cell of a sweep for each subset of the benchmark."""

from collections.abc import Sequence

from hydra.core.override_parser.types import QuotedString

from sah.benchmarks.requirements import EVERY_SUBSET
from sah.errors import ConfigurationError
from sah.execution.building import build
from sah.launching.composer import Composer
from sah.types import Benchmark

_KEY = "benchmark.subset"


def expand_subsets(jobs: Sequence[Sequence[str]], composer: Composer) -> list[list[str]]:
    """Replace each job that asks for all subsets by one job for every subset.

    Raises:
        ConfigurationError: if the benchmark does not list its subsets.
        HydraException: if a job does not compose.
    """
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    expanded: list[list[str]] = []
    for job in jobs:
        position = next((n for n, text in enumerate(job) if _is_every(text, composer)), None)
        if position is None:
            expanded.append(list(job))
            continue
        others = [*job[:position], *job[position + 1 :]]
        # The subsets depend only on the overrides of the benchmark.
        about = tuple(text for text in others if text.lstrip("+~").startswith("benchmark"))
        if about not in known:
            known[about] = _subsets(about, composer)
        expanded += [
            [*job[:position], f"{_KEY}={subset}", *job[position + 1 :]] for subset in known[about]
        ]
    return expanded


def _is_every(text: str, composer: Composer) -> bool:
    override = composer.parse(text)
    if override.key_or_group != _KEY or override.is_delete():
        return False
    value = override.value()
    return (value.text if isinstance(value, QuotedString) else value) == EVERY_SUBSET


def _subsets(about: tuple[str, ...], composer: Composer) -> tuple[str, ...]:
    config = composer.compose([*about, f"{_KEY}=null"])
    benchmark: Benchmark = build(config, "benchmark")
    subsets = benchmark.available_subsets()
    if not subsets:
        raise ConfigurationError(
            f"benchmark.subset='{EVERY_SUBSET}': {config.benchmark.name} does not list its subsets"
        )
    return subsets
