"""Compose and bundle a sweep as `sah run -m` does, without starting it or writing anything."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_automatic_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from sah.errors import ConfigurationError
from sah.execution.checks import check_output_root
from sah.execution.hydra_settings import require_fixed_settings
from sah.launching.bundles import Bundle, bundle_cells
from sah.launching.plan import SweepPlan
from sah.launching.sweep import Sweep
from sah.paths import config_folder


@dataclass(frozen=True, kw_only=True)
class PlannedSweep:
    """The cells of a sweep and the jobs that would run them."""

    plans: Sequence[SweepPlan]
    """One for each batch; there are several only with hydra.sweeper.max_batch_size."""
    bundles: Sequence[Bundle]
    slots: int
    """Jobs that run at once; on a cluster, those that could start now."""
    launcher: str
    gpus_per_job: int
    output_root: Path


def plan_command(
    overrides: Sequence[str], *, config_name: str | None = None, config_dir: str | None = None
) -> PlannedSweep:
    """Plan the sweep of a command line.

    Uses private functions of Hydra 1.3, in the order of its own main function.

    Args:
        overrides: as typed after `sah run -m`.
        config_name: of --config-name.
        config_dir: of --config-dir.

    Raises:
        ConfigurationError: if the sweep has no experiment or cannot be listed, or the launcher
            refuses its settings. What is refused of single cells is in the plans.
        HydraException, OmegaConfBaseException: if the sweep itself does not compose.
    """
    if config_dir is not None and not Path(config_dir).is_dir():
        raise ConfigurationError(f"--config-dir {config_dir}: there is no such folder")
    with main_hydra([] if config_dir is None else [Path(config_dir)]) as hydra:
        name, given = config_name or "config", list(overrides)
        if hydra.get_mode(name, given) != RunMode.MULTIRUN:
            given.append("hydra.mode=MULTIRUN")
        return _plan(hydra, hydra.compose_config(name, given, RunMode.MULTIRUN))


@contextmanager
def main_hydra(folders: Sequence[Path]) -> Iterator[Hydra]:
    """Make Hydra as its own main function does.

    Args:
        folders: with options and configurations besides those of SAH, as with --config-dir.
    """
    search_path = create_automatic_config_search_path(None, None, str(config_folder()))
    for folder in folders:
        place = f"file://{folder.absolute()}"
        search_path.prepend("command-line", place, SearchPathQuery(provider="schema"))
    try:
        yield Hydra.create_main_hydra2("sah", search_path)
    finally:
        GlobalHydra.instance().clear()


def _plan(hydra: Hydra, config: DictConfig) -> PlannedSweep:
    require_fixed_settings(config)
    check_output_root(config, writes=False)
    context = HydraContext(config_loader=hydra.config_loader, callbacks=Callbacks())
    sweeper: Any = Plugins.instance().instantiate_sweeper(
        config=config, hydra_context=context, task_function=_not_run
    )
    launcher = config.hydra.runtime.choices["hydra/launcher"]
    if not hasattr(sweeper, "batches"):
        chosen = config.hydra.runtime.choices["hydra/sweeper"]
        raise ConfigurationError(
            f"hydra/sweeper={chosen} chooses its experiments while it runs, so that they cannot be "
            "listed before; plan one of them, or a sweep with hydra/sweeper=sah"
        )
    sweep = Sweep(context, config)
    jobs = [sweep.expand(batch) for batch in sweeper.batches(list(config.hydra.overrides.task))]
    if not any(jobs):
        raise ConfigurationError(
            "the sweep has no experiment: an override has no values, such as range(0,0)"
        )
    plans = [sweep.forecast(batch) for batch in jobs]
    # Another launcher runs one cell after another.
    is_ours = hasattr(sweeper.launcher, "slots")
    slots = sweeper.launcher.slots() if is_ours else 1
    bundles = [
        bundle
        for plan in plans
        for bundle in (
            bundle_cells(plan.pending, slots)
            if is_ours
            else [Bundle(cells=(cell,)) for cell in plan.pending]
        )
    ]
    return PlannedSweep(
        plans=plans,
        bundles=bundles,
        slots=slots,
        launcher=str(launcher),
        gpus_per_job=sweeper.launcher.settings().gpus_per_job if is_ours else 0,
        output_root=Path(str(config.output_root)),
    )


def _not_run(_: DictConfig) -> None:
    raise AssertionError("a plan runs nothing")
