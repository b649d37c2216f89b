"""What the configuration needs from Python: resolvers, and attention= for sparse_attention=."""

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sah.content import CONTENT
from sah.execution.building import register_attentions
from sah.paths import config_folder


def _directory(_root_: DictConfig) -> str:
    from sah.results.identity import directory

    return str(directory(_root_))


def _subdirectory(_root_: DictConfig) -> str:
    from sah.results.identity import directory

    return str(directory(_root_).relative_to(str(_root_.output_root)))


def _calibration(method: str, model: str) -> str:
    from sah.content.calibration_files import calibration_reference

    return calibration_reference(method, model)


def _content(*names: str, _parent_: DictConfig) -> dict[str, Any]:
    """Digests of the files that fields beside this one name, and versions of packages."""
    from sah.content import content_of_fields

    fields = [name for name in names if name in _parent_]
    given = {name: _parent_[name] for name in fields if not OmegaConf.is_missing(_parent_, name)}
    with suppress(OSError):
        # A file that cannot be read is refused, with the reason, when it is opened.
        return content_of_fields(given, names)
    return {}


def _checkpoint(*, _parent_: DictConfig) -> dict[str, Any]:
    """Digest of a model folder, or the commit of a model on the Hub."""
    from sah.content import content_of_checkpoint

    if OmegaConf.is_missing(_parent_, "name_or_path"):
        return {}
    with suppress(OSError):
        return content_of_checkpoint(str(_parent_.name_or_path), _parent_.get("revision"))
    return {}


def _data_sets(*, _parent_: DictConfig) -> dict[str, Any]:
    """Digest of the files of a suite, or the commits of its data sets on the Hub."""
    from hydra.errors import HydraException
    from hydra.utils import get_class

    from sah.errors import SahError
    from sah.results.identity import resolved

    keys = [key for key in _parent_ if key not in ("_target_", CONTENT)]
    # A suite that cannot be made or read is refused, with the reason, when it is built.
    with suppress(SahError, HydraException, OSError, TypeError, ValueError):
        found: dict[str, Any] = get_class(str(_parent_._target_))(
            **{str(key): resolved(_parent_[key]) for key in keys}
        ).find_content()
        return found
    return {}


def _model_name(name_or_path: str) -> str:
    """The name of a model in directories and tables: that of its folder, or its id on the Hub."""
    folder = Path(name_or_path)
    return folder.absolute().name if folder.is_dir() else name_or_path


def _product(*factors: float) -> float:
    return math.prod(factors)


OmegaConf.register_new_resolver("sah.calibration", _calibration, replace=True)
OmegaConf.register_new_resolver("sah.content", _content, replace=True)
OmegaConf.register_new_resolver("sah.checkpoint", _checkpoint, replace=True)
OmegaConf.register_new_resolver("sah.data_sets", _data_sets, replace=True)
OmegaConf.register_new_resolver("sah.model_name", _model_name, replace=True)
OmegaConf.register_new_resolver("sah.product", _product, replace=True)
OmegaConf.register_new_resolver("sah.directory", _directory, replace=True)
OmegaConf.register_new_resolver("sah.subdirectory", _subdirectory, replace=True)

register_attentions([config_folder()])
