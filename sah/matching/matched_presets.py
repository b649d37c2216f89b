"""Presets with matched budgets, as options of the group sparse_attention."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from sah.attention import Matched
from sah.errors import ConfigurationError
from sah.matching.matching import Candidate, Target
from sah.paths import sanitise

_OF_STUDY = re.compile(r"\$\{.*\bstudy\.")


def save(candidates: Sequence[Candidate], target: Target, folder: Path) -> list[Path]:
    """Write FOLDER/sparse_attention/NAME@METRIC-VALUE.yaml for each attention that met the target.

    `--config-dir FOLDER` then makes them options of `sparse_attention=`.

    Returns:
        The files, in order.

    Raises:
        ConfigurationError: if one cannot be written.
    """
    paths = []
    for one in candidates:
        if not one.search.is_met:
            continue
        name = f"{one.name}@{target.metric}-{target.value:g}"
        path = folder / "sparse_attention" / f"{sanitise(name)}.yaml"
        text = _comment(one, target) + yaml.safe_dump(
            _preset(one, target, name), sort_keys=False, width=100
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(
                f"--save: {str(path)!r} cannot be written ({error.strerror}); give another folder"
            ) from error
        paths.append(path)
    return paths


def _comment(one: Candidate, target: Target) -> str:
    best = one.search.best
    assert best is not None, "the target was met"
    return (
        f"# {one.option.name}={best:g} measures {target.metric} {one.search.measured[best]:.4g} on "
        f"the tuning split\n# (sah match --target {target.metric}={target.value:g}).\n"
    )


def _preset(one: Candidate, target: Target, name: str) -> dict[str, Any]:
    config = one.config.copy()
    best = one.search.best
    assert best is not None, "the target was met"
    OmegaConf.update(config, one.option.path, best)
    as_typed: Any = OmegaConf.to_container(config.sparse_attention, resolve=False)
    resolved: Any = OmegaConf.to_container(config.sparse_attention, resolve=True)
    matched = {
        "_target_": f"sah.attention.{Matched.__name__}",
        "metric": target.metric,
        "target": target.value,
        "measured": float(f"{one.search.measured[best]:.6g}"),
        "model": config.model.name,
        "benchmark": config.benchmark.name,
        "contexts": one.contexts,
    }
    return {**_fixed(as_typed, resolved), "name": name, "matched": matched}


def _fixed(as_typed: Any, resolved: Any) -> Any:
    """Resolve what refers to the variables of a study, which would change the budget later.

    Paths and digests of files stay interpolations, since they depend on the machine.
    """
    if isinstance(as_typed, Mapping):
        return {key: _fixed(child, resolved[key]) for key, child in as_typed.items()}
    if isinstance(as_typed, list) and isinstance(resolved, list):
        return [_fixed(*pair) for pair in zip(as_typed, resolved, strict=True)]
    return resolved if isinstance(as_typed, str) and _OF_STUDY.search(as_typed) else as_typed
