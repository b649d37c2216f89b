"""How much each parameter of a search matters for its objective."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

# N trials, L levels

_MOST_LEVELS = 6


def importances(
    parameters: Mapping[str, Sequence[Any]], values: Sequence[float]
) -> dict[str, float] | None:
    """Return the share of the variance that each parameter explains beyond the others.

    It is the adjusted R² that an additive model (analysis of variance by least squares, with one
    effect per level of each parameter) loses without the parameter, and 0 if it loses nothing.
    Interactions count for none of them. A number with more than six values is divided into
    quarters of equally many trials.

    Args:
        parameters: the value of each parameter in every trial.
        values: the objective of every trial.

    Returns:
        The shares in [0, 1], by parameter; None if all values are equal, or if there are not more
        trials than effects.
    """
    target = np.asarray(values, dtype=np.float64)
    if len(target) < 2 or np.ptp(target) == 0:
        return None
    effects = {name: _effects(given) for name, given in parameters.items()}
    whole = _adjusted_r2(list(effects.values()), target)
    if whole is None:
        return None
    lost = {}
    for name in effects:
        without = _adjusted_r2([one for key, one in effects.items() if key != name], target)
        assert without is not None, "it has fewer effects"
        lost[name] = max(0.0, whole - without)
    return lost


def _effects(given: Sequence[Any]) -> Float[np.ndarray, "N L"]:
    """Encode the level of each trial as a row of zeros and a one."""
    numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in given)
    if numbers and len(set(given)) > _MOST_LEVELS:
        array = np.asarray(given, dtype=np.float64)
        levels = np.searchsorted(np.quantile(array, (0.25, 0.5, 0.75)), array)
    else:
        names = [f"{one}" for one in given]
        levels = np.unique(names, return_inverse=True)[1]
    return np.eye(levels.max() + 1)[levels]


def _adjusted_r2(
    effects: Sequence[Float[np.ndarray, "N L"]], target: Float[np.ndarray, " N"]
) -> float | None:
    """Return the adjusted R² of the sum of some effects, at least 0; None without residuals."""
    count = len(target)
    design = np.concatenate([np.ones((count, 1)), *effects], axis=1)
    solution, _, rank, _ = np.linalg.lstsq(design, target, rcond=None)
    if rank >= count:
        return None
    residual = np.square(target - design @ solution).sum() / (count - rank)
    return max(0.0, float(1 - residual / target.var(ddof=1)))
