"""What the configuration needs from Python: resolvers, and attention= for sparse_attention=."""

import math
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from sah.paths import config_folder


def _directory(_root_: DictConfig) -> str:
    from sah.results.identity import directory

    return str(directory(_root_))


def _subdirectory(_root_: DictConfig) -> str:
    from sah.results.identity import directory

    return str(directory(_root_).relative_to(str(_root_.output_root)))


def _calibration(method: str, model: str) -> str:
    from sah.maskers.shared.calibration_files import calibration_reference

    return calibration_reference(method, model)


def _product(*factors: float) -> float:
    return math.prod(factors)


OmegaConf.register_new_resolver("sah.calibration", _calibration, replace=True)
OmegaConf.register_new_resolver("sah.product", _product, replace=True)
OmegaConf.register_new_resolver("sah.directory", _directory, replace=True)
OmegaConf.register_new_resolver("sah.subdirectory", _subdirectory, replace=True)


def _register_attention_alias() -> None:
    store = ConfigStore.instance()
    for option in sorted((config_folder() / "sparse_attention").glob("*.yaml")):
        node: dict[str, Any] = {"defaults": [{"override /sparse_attention": option.stem}]}
        store.store(group="attention", name=option.stem, node=node, package="_global_")


_register_attention_alias()
