"""hydra/sweeper=sah: the basic sweeper, but it goes on after a failure and checks cells once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.types import Glob, Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException

from hydra_plugins.sah.sweep_launcher import SweepLauncher

_ATTENTION = ("attention", "sparse_attention")


@dataclass
class _SweeperConf(BasicSweeperConf):
    _target_: str = "hydra_plugins.sah.sweeper.SahSweeper"


ConfigStore.instance().store(group="hydra/sweeper", name="sah", node=_SweeperConf, provider="sah")


class SahSweeper(BasicSweeper):
    """Runs the product of the overrides.

    Unlike the basic sweeper it leaves validation to SweepLauncher instead of composing every
    job for it, continues with the next batch after a failure, and ends with one line for
    all failures, after the summary of SweepLauncher.
    """

    @staticmethod
    def split_arguments(
        overrides: list[Override], max_batch_size: int | None
    ) -> list[list[list[str]]]:
        """Expand the sweep; `attention=glob(*)` means all presets, which excludes `custom`."""
        composes_maskers = any("maskers" in override.get_key_element() for override in overrides)
        for override in overrides:
            value = override.value()
            if isinstance(value, Glob) and override.key_or_group in _ATTENTION:
                if not composes_maskers:
                    value.exclude.append("custom")
        split: list[list[list[str]]] = BasicSweeper.split_arguments(overrides, max_batch_size)
        return split

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Do nothing: SweepLauncher checks every job before anything runs."""

    def sweep(self, arguments: list[str]) -> Any:
        """Run all batches.

        Raises:
            CompactHydraException: when all have run, if an experiment failed; or if the sweep
                itself cannot write.
        """
        from sah.errors import SahError

        launcher, returns = self.launcher, []
        if not isinstance(launcher, SweepLauncher):
            raise CompactHydraException(
                "hydra/sweeper=sah needs the callback hydra.callbacks.resume of conf/config.yaml"
            )

        class KeepGoing:
            def launch(
                self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
            ) -> list[JobReturn]:
                jobs = launcher.sweep.expand(job_overrides)
                returns.extend(launcher.launch(jobs, initial_job_idx))
                # The basic sweeper stops at a failure among the jobs that it is given.
                return []

        self.launcher = KeepGoing()
        try:
            super().sweep(arguments)
        except SahError as error:
            raise CompactHydraException(str(error)) from error
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
