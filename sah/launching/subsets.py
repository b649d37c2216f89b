"""`benchmark.subset='*'`: one cell of a sweep for each subset of the benchmark."""

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.types import QuotedString
from hydra.utils import instantiate
from omegaconf import OmegaConf

from sah.benchmarks.checks import EVERY_SUBSET
from sah.errors import ConfigurationError
from sah.launching.composer import Composer

_KEY = "benchmark.subset"


def expand_subsets(jobs: Sequence[Sequence[str]], composer: Composer) -> list[list[str]]:
    """Put a job for each subset in the place of one that asks for all of them.

    Raises:
        ConfigurationError: if the benchmark does not say which subsets it has.
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
        # Only what the benchmark is made of changes what its subsets are.
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
    settings: Any = OmegaConf.to_container(config.benchmark, resolve=True)
    subsets: tuple[str, ...] = instantiate(settings, _convert_="all").available_subsets()
    if not subsets:
        raise ConfigurationError(
            f"benchmark.subset='{EVERY_SUBSET}': {config.benchmark.name} does not say which "
            "subsets it has"
        )
    return subsets
