"""hydra/sweeper=sah: Hydra's basic sweeper, which goes on after a failure and checks once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Glob, Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException

_ATTENTION = ("attention", "sparse_attention")


@dataclass
class _SweeperConf(BasicSweeperConf):
    _target_: str = "hydra_plugins.sah.sweeper.SahSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="sah", node=_SweeperConf, provider="sah")


class SahSweeper(BasicSweeper):
    """Runs the product of the overrides.

    Unlike the basic sweeper it does not compose every job to validate it, since
    SweepLauncher does; it goes on with the next batch after a failure; and ends with one
    line for all failures, behind the summary that SweepLauncher shows.
    """

    @staticmethod
    def split_arguments(
        overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """Expand the sweep; `attention=glob(*)` means the presets, which `custom` is none of."""
        composes_maskers = any("maskers" in override.get_key_element() for override in overrides)
        for override in overrides:
            value = override.value()
            if isinstance(value, Glob) and override.key_or_group in _ATTENTION:
                if not composes_maskers:
                    value.exclude.append("custom")
        split: list[list[list[str]]] = BasicSweeper.split_arguments(overrides, max_batch_size)
        return split

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Leave it to SweepLauncher, which looks at every job before anything runs."""

    def sweep(self, arguments: list[str]) -> Any:
        """Run all batches.

        Raises:
            CompactHydraException: if an experiment failed, when all have run; or if the
                sweep itself cannot write.
        """
        launcher, returns = self.launcher, []
        expand = self._expand

        class KeepGoing:
            def launch(
                self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
            ) -> list[JobReturn]:
                returns.extend(launcher.launch(expand(job_overrides), initial_job_idx))
                # With nothing to look at, the basic sweeper finds no failure to end at.
                return []

        self.launcher = KeepGoing()
        try:
            super().sweep(arguments)
        except OSError as error:
            raise CompactHydraException(
                f"filesystem: {error}; a sweep writes below output_root={self.config.output_root}: "
                "make room there, or choose another place"
            ) from error
        finally:
            self.launcher = launcher
        failed = sum(job.status == JobStatus.FAILED for job in returns)
        if failed:
            raise CompactHydraException(f"{failed} of {len(returns)} experiments failed")
        return [returns]

    def _expand(self, job_overrides: Sequence[Sequence[str]]) -> list[list[str]]:
        """The jobs, with one for each subset where all of them are asked for."""
        from sah.errors import SahError
        from sah.launching.composer import Composer
        from sah.launching.subsets import expand_subsets

        try:
            loader: Any = self.hydra_context.config_loader
            return expand_subsets(job_overrides, Composer(loader, self.config))
        except SahError as error:
            raise CompactHydraException(str(error)) from error
