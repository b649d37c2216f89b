"""What a search with hydra/sweeper=optuna needs: checks before it starts, and a record of it."""

import hashlib
import logging
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, OmegaConf

from sah.errors import ConfigurationError
from sah.results.search_record import Search, Trial, record_trials

logger = logging.getLogger(__name__)

_DIRECTIONS: tuple[Literal["maximize", "minimize"], ...] = ("maximize", "minimize")


def is_search(config: DictConfig) -> bool:
    """Whether the sweeper of a sweep is Optuna's."""
    return str(config.hydra.sweeper._target_).endswith(".OptunaSweeper")


def check_search(config: DictConfig) -> None:
    """Check the settings of a search that Optuna would refuse with a traceback, or too late.

    Raises:
        ConfigurationError: naming the setting.
    """
    sweeper = config.hydra.sweeper
    if sweeper.storage is not None:
        raise ConfigurationError(
            f"hydra.sweeper.storage={sweeper.storage}: a search takes no database, whose trials "
            "may be of another model, benchmark or objective; leave the option out: with "
            "hydra.sweeper.sampler.seed the same command resumes from the results below "
            f"output_root={config.output_root}"
        )
    _direction(config)
    for name in ("n_trials", "n_jobs"):
        if not isinstance(sweeper[name], int) or sweeper[name] < 1:
            raise ConfigurationError(
                f"hydra.sweeper.{name} must be an integer of at least 1, got {sweeper[name]!r}"
            )


def _direction(config: DictConfig) -> Literal["maximize", "minimize"]:
    given = config.hydra.sweeper.direction
    # An enum by default, a text from the command line.
    name = getattr(given, "name", given)
    found = next((one for one in _DIRECTIONS if one == name), None)
    if found is None:
        raise ConfigurationError(
            f"hydra.sweeper.direction={given} must be maximize or minimize: objective="
            f"{config.objective!r} is one number; combine several in one expression"
        )
    return found


class SearchRecorder:
    """Records the trials of a search for `sah report`."""

    def __init__(self, config: DictConfig) -> None:
        """Name the search after its settings.

        Args:
            config: the sweep's own configuration, `hydra` included.
        """
        self._output_root = Path(str(config.output_root))
        self._trials: list[Trial] = []
        sweeper = OmegaConf.to_container(config.hydra.sweeper, resolve=True, enum_to_str=True)
        assert isinstance(sweeper, dict), "a node"
        parser = OverridesParser.create()
        overrides = parser.parse_overrides(
            [f"{key}={value}" for key, value in (sweeper["params"] or {}).items()]
            + list(config.hydra.overrides.task)
        )
        # The last override of a key counts.
        last = {one.get_key_element(): one for one in overrides}
        fixed = {key: one for key, one in last.items() if not one.is_sweep_override()}
        self._fixed = fixed.keys()
        shown = [
            str(one.input_line)
            for key, one in fixed.items()
            if key not in ("output_root", "objective")
        ]
        study = str(config.hydra.job.config_name)
        title = sweeper["study_name"] or ("" if study == "config" else study)
        name = " ".join([title, *shown]).strip()
        self._search = Search(
            name=name or "search", objective=str(config.objective), direction=_direction(config)
        )
        # More trials of the same search have the same key.
        settings = {key: value for key, value in sweeper.items() if key != "n_trials"}
        self._key = _key(settings, study, shown, str(config.objective))

    def add(self, returns: Sequence[JobReturn]) -> None:
        """Record a batch of trials; one that cannot be written is only logged."""
        self._trials += map(self._trial, returns)
        search = Search(**{**vars(self._search), "trials": self._trials})
        try:
            record_trials(self._output_root, self._key, search)
        except OSError as error:
            logger.warning("sah report will not show this search: %s", error)

    def _trial(self, job: JobReturn) -> Trial:
        parsed = OverridesParser.create().parse_overrides(list(job.overrides or ()))
        chosen = {one.get_key_element(): one.value() for one in parsed}
        value = job.return_value if job.status == JobStatus.COMPLETED else None
        return Trial(
            parameters={
                key: one if isinstance(one, bool | int | float | None) else str(one)
                for key, one in chosen.items()
                if key not in self._fixed
            },
            value=None if value is None else float(value),
            directory=Path(os.path.relpath(str(job.working_dir), self._output_root)).as_posix(),
        )


def _key(settings: dict[Any, Any], *names: Any) -> str:
    content = orjson.dumps([settings, *names], option=orjson.OPT_SORT_KEYS, default=str)
    key = hashlib.blake2b(content, digest_size=6).hexdigest()
    if settings["sampler"].get("seed", 0) is None:
        # Without a seed each start asks for other trials.
        key += datetime.now(UTC).strftime("-%Y%m%d-%H%M%S")
    return key
