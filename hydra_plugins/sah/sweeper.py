"""hydra/sweeper=sah: the basic sweeper, but it goes on after a failure and checks cells once."""

import math
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep, Override, RangeSweep
from hydra.core.utils import JobReturn
from hydra.errors import CompactHydraException

from hydra_plugins.sah.sweep_launcher import SweepLauncher

_ATTENTION = ("attention", "sparse_attention")


# Composing this many takes half a day; listing many more would fill the memory first.
_MOST_CELLS = 1_000_000


@dataclass
class _SweeperConf(BasicSweeperConf):
    _target_: str = "hydra_plugins.sah.sweeper.SahSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="sah", node=_SweeperConf, provider="sah")


class SahSweeper(BasicSweeper):
    """Runs the product of the overrides.

    Unlike the basic sweeper it leaves validation to SweepLauncher instead of composing every
    job for it, continues with the next batch after a failure, and ends with the table of all
    results, the next command, and one line for all failures. It writes no multirun.yaml to the
    output root, where even a refused sweep would replace that of the sweep before; the one of
    every sweep is in its folder below `.sweeps`.
    """

    @staticmethod
    def split_arguments(
        overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """Expand the sweep; `attention=glob(*)` means all presets for any model.

        It excludes `native`, which needs a model with its own indexer, and `custom`.

        Raises:
            ConfigurationError: for an override without a value, an interval, more cells than a
                sweep can have, or a batch without cells.
        """
        from sah.errors import ConfigurationError

        composes_maskers = any("maskers" in override.get_key_element() for override in overrides)
        for override in overrides:
            value = override.value()
            if isinstance(value, Glob) and override.key_or_group in _ATTENTION:
                value.exclude.append("native")
                if not composes_maskers:
                    value.exclude.append("custom")
        counts = {override.get_key_element(): count_values(override) for override in overrides}
        # The last of those with one key counts; Hydra would list the values of all.
        last = {override.get_key_element(): override for override in overrides}
        if math.prod(counts.values()) > _MOST_CELLS:
            factors = " x ".join(
                f"{count:,} of {key}" for key, count in counts.items() if count > 1
            )
            raise ConfigurationError(
                f"a sweep of {math.prod(counts.values()):,} experiments ({factors}) is too large; "
                f"sweep over fewer values, at most {_MOST_CELLS:,} experiments at a time"
            )
        if max_batch_size is not None and max_batch_size < 1:
            raise ConfigurationError(
                f"hydra.sweeper.max_batch_size must be at least 1 or null, got {max_batch_size}"
            )
        split: list[list[list[str]]] = BasicSweeper.split_arguments(
            list(last.values()), max_batch_size
        )
        return split

    def batches(self, arguments: list[str]) -> list[list[list[str]]]:
        """Return the overrides of every job, batch by batch; starts nothing.

        Raises:
            ConfigurationError: as `split_arguments`.
        """
        assert self.hydra_context is not None, "set by Hydra"
        assert self.config is not None, "set by Hydra"
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        return self.split_arguments(overrides, self.max_batch_size)

    def sweep(self, arguments: list[str]) -> Any:
        """Run all batches.

        Raises:
            CompactHydraException: when all have run, if an experiment has no result; or if the
                sweep itself cannot write.
        """
        from sah.errors import SahError
        from sah.launching.outcome import UNFINISHED

        launcher = self.launcher
        if not isinstance(launcher, SweepLauncher):
            raise CompactHydraException(
                "hydra/sweeper=sah needs the callback hydra.callbacks.resume of conf/config.yaml"
            )
        returns: list[JobReturn] = []
        first = 0
        try:
            for batch in self.batches(arguments):
                returns.extend(launcher.launch(launcher.sweep.expand(batch), first))
                first += len(batch)
            launcher.sweep.show_results()
        except SahError as error:
            raise CompactHydraException(str(error)) from error
        except OSError as error:
            raise CompactHydraException(
                f"filesystem: {error}; a sweep writes below output_root={self.config.output_root}: "
                "make room there, or choose another place"
            ) from error
        left = [f"{number} {name}" for name in UNFINISHED if (number := launcher.unfinished[name])]
        if left:
            number, _, name = left[0].partition(" ")
            left[0] = f"{number} of {len(returns)} experiments {name}"
            raise CompactHydraException(", ".join(left))
        return [returns]


def count_values(override: Override, *, searches: bool = False) -> int:
    """Count the values of an override without listing them.

    Args:
        override: of the command line, or of hydra.sweeper.params.
        searches: whether the sweeper chooses values itself, as Optuna does, instead of listing all.

    Raises:
        ConfigurationError: if there is none, or if the sweeper cannot use them.
    """
    from sah.errors import ConfigurationError
    from sah.execution.building import nearest

    if not override.is_sweep_override():
        return 1
    value, text, key = override.value(), override.input_line, override.get_key_element()
    if isinstance(value, IntervalSweep):
        if searches:
            return 1
        raise ConfigurationError(
            f"{text}: an interval has no values to list; let hydra/sweeper=optuna choose from it, "
            f"or list values: {key}=0.1,0.2"
        )
    if isinstance(value, RangeSweep):
        start, stop, step = value.start or 0, value.stop or 0, value.step
        if not all(map(math.isfinite, (start, stop, step))) or step == 0:
            raise ConfigurationError(f"{text}: a range has finite bounds and a step other than 0")
        count = max(0, math.ceil((stop - start) / step))
        why = "is a range without values: it ends where it begins, or before"
    else:
        count = sum(1 for _ in override.sweep_iterator())
        why = "has no values"
        if isinstance(value, Glob):
            assert override.config_loader is not None, "of an override of the command line"
            options = override.config_loader.get_group_options(override.key_or_group)
            wildcard = "".join(value.include).strip("*")
            why = f"matches no option of {override.key_or_group}; {nearest(wildcard, options)}"
            if count and searches:
                listed = ",".join(map(str, override.sweep_iterator()))
                raise ConfigurationError(
                    f"{text}: a sweeper that searches takes a list of names: {key}={listed}"
                )
    if count == 0:
        raise ConfigurationError(f"{text} {why}")
    return count
