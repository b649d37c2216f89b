"""Hydra's own settings that would move results away from where everything else looks for them."""

from typing import Any

from omegaconf import DictConfig

from sah.errors import ConfigurationError

_FIXED: dict[str, Any] = {
    "job.chdir": False,
    "run.dir": "${sah.directory:}",
    "sweep.dir": "${output_root}",
    "sweep.subdir": "${sah.subdirectory:}",
    "output_subdir": None,
}
"""The values of conf/config.yaml, as written there."""


def require_fixed_settings(config: DictConfig) -> None:
    """Check that Hydra's settings about directories are those of conf/config.yaml.

    The directory of an experiment is named after what it computes: resume, `sah status` and
    `sah report` find it by its name. Hydra's settings could only put files elsewhere.

    Args:
        config: a composed configuration; one without Hydra's part passes.

    Raises:
        ConfigurationError: naming the first setting that differs.
    """
    if "hydra" not in config:
        return
    for name, fixed in _FIXED.items():
        node = config.hydra
        *above, key = name.split(".")
        for part in above:
            node = node[part]
        # As written, since an interpolation may not resolve yet.
        value = node._get_node(key)._value()
        if value != fixed and not (name == "job.chdir" and value is None):
            raise ConfigurationError(
                f"hydra.{name}={value} is refused: the directory of an experiment is named after "
                "what it computes, so that resume, `sah status` and `sah report` find it; leave "
                "this out, and choose the folder of all results with output_root=DIR"
            )
