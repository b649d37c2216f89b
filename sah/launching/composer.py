"""Compose the cells of a sweep several times faster than Hydra composes jobs.

Most overrides of a sweep set values (seed=1,2,3), which Hydra applies last, to a configuration
that depends only on the group choices. So each combination of group choices is composed
once, and values are applied to copies of it. Uses private functions of Hydra 1.3;
tests/launching/test_plan.py compares the result with Hydra's own.
"""

import pickle
from collections.abc import Sequence

from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, flag_override


class Composer:
    """Composes the job configurations of one sweep."""

    def __init__(self, loader: ConfigLoaderImpl, master: DictConfig) -> None:
        self._loader = loader
        self._master = master
        self._parser = OverridesParser.create(config_loader=loader)
        _, self._repository = loader._parse_overrides_and_create_caching_repo(
            master.hydra.job.config_name, list(master.hydra.overrides.hydra)
        )
        self._parsed: dict[str, tuple[Override, bool]] = {}
        # Pickles: copying one is six times faster than deepcopy.
        self._bases: dict[tuple[str, ...], bytes] = {}

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """Compose one job, with the same result as `load_sweep_config`.

        But a job with several GPUs splits its model over them, unless the model is placed in
        another way.

        Raises:
            HydraException: as Hydra would, for an unknown group, option or key.
        """
        parsed = [self._parse(override) for override in overrides]
        if any(override.is_hydra_override() for override, _ in parsed):
            return _split_over_gpus(self._loader.load_sweep_config(self._master, list(overrides)))
        groups = tuple(
            text for text, (_, is_group) in zip(overrides, parsed, strict=True) if is_group
        )
        if groups not in self._bases:
            base = self._loader.load_sweep_config(self._master, list(groups))
            self._bases[groups] = pickle.dumps(base)
        config: DictConfig = pickle.loads(self._bases[groups])  # noqa: S301 (our own)
        values = [override for override, is_group in parsed if not is_group]
        ConfigLoaderImpl._apply_overrides_to_config(values, config)
        with flag_override(config.hydra, ["struct", "readonly"], False):
            config.hydra.overrides.task = list(overrides)
            naming = config.hydra.job.config.override_dirname
            config.hydra.job.override_dirname = get_overrides_dirname(
                overrides=[override for override, _ in parsed],
                kv_sep=naming.kv_sep,
                item_sep=naming.item_sep,
                exclude_keys=naming.exclude_keys,
            )
        return _split_over_gpus(config)

    def parse(self, text: str) -> Override:
        """Parse an override as Hydra does."""
        return self._parse(text)[0]

    def _parse(self, text: str) -> tuple[Override, bool]:
        """Parse an override; return it and whether it chooses an option of a group."""
        if text not in self._parsed:
            override = self._parser.parse_override(text)
            is_value = isinstance(override.value(), dict)
            is_group = not is_value and self._repository.group_exists(override.key_or_group)
            self._parsed[text] = (override, is_group)
        return self._parsed[text]


def _split_over_gpus(config: DictConfig) -> DictConfig:
    """Set `model.tensor_parallel`, where it is null, to the GPUs of the job; changed in place."""
    gpus = OmegaConf.select(config, "hydra.launcher.gpus_per_job", default=1)
    model = config.get("model")
    is_open = (
        OmegaConf.is_dict(model)
        and "tensor_parallel" in model
        and model.tensor_parallel is None
        and model.get("device") == "auto"
        and "device_map" not in model.get("model_kwargs", {})
    )
    if is_open and isinstance(gpus, int) and gpus > 1:
        with flag_override(config, ["struct", "readonly"], False):
            config.model.tensor_parallel = gpus
        with flag_override(config.hydra, ["struct", "readonly"], False):
            # As if it had been typed: it is part of the experiment's identity.
            config.hydra.overrides.task.append(f"model.tensor_parallel={gpus}")
    return config
