"""The Hydra callback that checks an experiment before it runs and skips a complete one."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, flag_override
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.sah.search import check_search, is_search
from hydra_plugins.sah.sweeper import count_values
from sah.errors import ConfigurationError, SahError
from sah.execution.checks import check, check_output_root, find_complete
from sah.execution.hydra_settings import require_fixed_settings
from sah.terminal import plain

logger = logging.getLogger(__name__)


class ResumeCallback(Callback):
    """Before a single run: check or skip it. Before a sweep: put SweepLauncher in front.

    Hydra turns exceptions of callbacks into warnings. So what is refused here ends with
    SystemExit; the cells of a sweep are checked in its launcher.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Exit with status 0 if the experiment is complete, with 1 if it cannot work."""
        from sah.results.show import show_next, show_result

        with _refusals_exit():
            overrides = list(config.hydra.overrides.task)
            _refuse_launcher(config)
            _, result = find_complete(config)
            if result is None:
                check(config, overrides)
                return
        show_result(result)
        show_next(result)
        raise SystemExit(0)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the sweep, then wrap its launcher; SweepLauncher restores it in its setup.

        Exits with status 1 if it has no place for its results, an override has no values, or a
        search has settings that cannot work.
        """
        with _refusals_exit():
            require_fixed_settings(config)
            check_output_root(config)
            _check_values(config)
            if is_search(config):
                check_search(config)
        with flag_override(config.hydra, ["struct", "readonly"], False):
            config.hydra.launcher = {
                "_target_": "hydra_plugins.sah.sweep_launcher.SweepLauncher",
                "_recursive_": False,
                "wrapped": config.hydra.launcher,
            }


@contextmanager
def _refusals_exit() -> Iterator[None]:
    """Show the message of a configuration that cannot work, and exit with status 1."""
    try:
        yield
    except (SahError, OmegaConfBaseException) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            logger.exception("%s", error)
        sys.stderr.write(plain(f"{error}\n"))
        raise SystemExit(1) from error


def _refuse_launcher(config: DictConfig) -> None:
    """Refuse a launcher without -m, which Hydra would ignore."""
    for override in config.hydra.overrides.hydra:
        if override.lstrip("+~").startswith(("hydra/launcher", "hydra.launcher")):
            raise ConfigurationError(
                f"{override}: a single run has no launcher; add -m to make it a sweep"
            )


def _check_values(config: DictConfig) -> None:
    """Check that every override has values, whatever the sweeper."""
    loader = GlobalHydra.instance().config_loader()
    parser = OverridesParser.create(config_loader=loader)
    searches = not str(config.hydra.sweeper._target_).endswith((".SahSweeper", ".BasicSweeper"))
    for override in parser.parse_overrides(list(config.hydra.overrides.task)):
        count_values(override, searches=searches)
