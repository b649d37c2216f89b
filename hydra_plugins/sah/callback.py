"""The Hydra callback that checks an experiment before it runs and skips a complete one."""

import logging
import os
import sys
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, flag_override
from omegaconf.errors import OmegaConfBaseException

from sah.errors import ConfigurationError, SahError
from sah.execution.checks import check, find_complete
from sah.terminal import plain

logger = logging.getLogger(__name__)


class ResumeCallback(Callback):
    """Before a single run: check or skip it. Before a sweep: put SweepLauncher in front.

    Hydra turns exceptions of callbacks into warnings. So a single run ends with SystemExit,
    and a sweep is checked in its launcher.
    """

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Exit with status 0 if the experiment is complete, with 1 if it cannot work."""
        from sah.results.show import show_result

        try:
            overrides = list(config.hydra.overrides.task)
            _refuse_launcher(config)
            _, result = find_complete(config)
            if result is None:
                check(config, overrides)
                return
        except (SahError, OmegaConfBaseException) as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                logger.exception("%s", error)
            sys.stderr.write(plain(f"{error}\n"))
            raise SystemExit(1) from error
        show_result(result)
        raise SystemExit(0)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Wrap the chosen launcher; SweepLauncher restores it in its setup."""
        with flag_override(config.hydra, ["struct", "readonly"], False):
            config.hydra.launcher = {
                "_target_": "hydra_plugins.sah.sweep_launcher.SweepLauncher",
                "_recursive_": False,
                "wrapped": config.hydra.launcher,
            }


def _refuse_launcher(config: DictConfig) -> None:
    """Refuse a launcher without -m, which Hydra would ignore."""
    for override in config.hydra.overrides.hydra:
        if override.lstrip("+~").startswith(("hydra/launcher", "hydra.launcher")):
            raise ConfigurationError(
                f"{override}: a single run has no launcher; add -m to make it a sweep"
            )
