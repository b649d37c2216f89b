"""`sah.run` and `sah.compose`: experiments from Python, as the command line makes them."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from sah.cli.run import refuse
from sah.errors import ConfigurationError, Interrupted
from sah.execution import building
from sah.results.schema import Result

if TYPE_CHECKING:
    from sah.execution.experiment import Experiment


def run(*overrides: str, config_dir: str | Path | None = None) -> Result:
    """Run one experiment in this process and return its result.

    The same as `python run.py OVERRIDES`: the same directory and files, the same checks before
    anything is loaded, and a complete experiment is not computed again. An interrupted one resumes.

        result = sah.run("model=smollm2", "attention=quest", "benchmark.samples=5")

    Args:
        overrides: as on the command line, such as "attention=quest" or "seed=1".
        config_dir: a folder with options of your own, as --config-dir on the command line.

    Raises:
        ConfigurationError: if the experiment cannot run as configured; before anything is loaded.
        SahError: if a model, data or results are missing or damaged.
        KeyboardInterrupt: if the user interrupts it; what is answered is kept.
    """
    from sah.execution.attempts import compute
    from sah.execution.checks import check, find_complete
    from sah.execution.progress import quiet_libraries
    from sah.results.state import read_state

    config = composed(overrides, config_dir)
    typed = [override for override in overrides if not _is_of_hydra(override)]
    folder, result = find_complete(config)
    if result is not None:
        return result
    check(config, typed)
    quiet_libraries()
    try:
        with _logged():
            return compute(config, typed)
    except Interrupted as interruption:
        done = ", ".join(["interrupted", read_state(folder).progress]).removesuffix(", ")
        message = f"{done}; call sah.run with the same overrides again to resume"
        raise KeyboardInterrupt(message) from interruption


def compose(*overrides: str, config_dir: str | Path | None = None) -> "Experiment":
    """Compose and validate an experiment. Loads no model and no data, and writes nothing.

        experiment = sah.compose("attention=snapkv")
        experiment.sparse_attention.evictor

    Args:
        overrides: as on the command line.
        config_dir: a folder with options of your own, as --config-dir on the command line.

    Raises:
        ConfigurationError: naming the key, the value and what it must be.
    """
    from sah.execution.experiment import Experiment

    return Experiment.from_config(composed(overrides, config_dir))


def composed(overrides: Sequence[str], config_dir: str | Path | None) -> DictConfig:
    """Compose the configuration of an experiment.

    Raises:
        ConfigurationError: for what the command line refuses, and for what only a sweep has.
    """
    for override in overrides:
        if not isinstance(override, str):
            raise ConfigurationError(
                f"{override!r} is not an override; give texts such as 'attention=quest'"
            )
        if override.startswith("-"):
            raise ConfigurationError(
                f"{override} is a flag of the command line, and this is one experiment: leave it "
                "out. For a sweep, call sah.run in a loop, or use `python run.py -m`"
            )
        if _is_sweep(override):
            raise ConfigurationError(
                f"{override} has several values, and this is one experiment: call sah.run in a "
                "loop, use `python run.py -m`, or quote a text that has a comma in it"
            )
        if _is_of_hydra(override) and not override.startswith("hydra.searchpath="):
            raise ConfigurationError(
                f"{override} is a setting of Hydra for the command line, which does nothing here; "
                "leave it out"
            )
    arguments = list(overrides)
    if config_dir is not None:
        folder = Path(config_dir)
        if not folder.is_dir():
            raise ConfigurationError(
                f"config_dir={str(config_dir)!r} is not a folder; give the one that holds your "
                "groups, such as FOLDER with FOLDER/masker/mine.yaml"
            )
        if any(override.startswith("hydra.searchpath=") for override in overrides):
            raise ConfigurationError(
                "config_dir and hydra.searchpath both say where options are found; list all "
                "folders in hydra.searchpath"
            )
        # The command line checks the files of such a folder.
        arguments = ["--config-dir", str(folder), *arguments]
    try:
        refuse(arguments)
    except SystemExit as refusal:
        raise ConfigurationError(str(refusal.code)) from None
    if config_dir is not None:
        quoted = str(folder.absolute()).replace("'", "\\'")
        return building.compose([*overrides, f"hydra.searchpath=['file://{quoted}']"])
    return building.compose(overrides)


def _is_sweep(override: str) -> bool:
    try:
        return bool(OverridesParser.create().parse_override(override).is_sweep_override())
    except (HydraException, ValueError):
        # Composing explains what is wrong with it.
        return False


def _is_of_hydra(override: str) -> bool:
    return override.lstrip("+~").startswith(("hydra.", "hydra/"))


@contextmanager
def _logged() -> Iterator[None]:
    """Let the log of SAH reach run.log at level INFO, as on the command line."""
    logger = logging.getLogger("sah")
    before = logger.level
    if before == logging.NOTSET:
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
