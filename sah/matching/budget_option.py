"""The option that scales how much an attention keeps or reads: its budget."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from hydra.utils import get_class

from sah.errors import ConfigurationError

Metric = Literal["resident", "density", "rows_read"]
METRICS: tuple[Metric, ...] = get_args(Metric)

_STAGES: Mapping[Metric, Sequence[str]] = {
    "resident": ("evict", "rewrite"),
    "density": ("maskers", "evict"),
    "rows_read": ("maskers", "evict"),
}
"""The stages of an attention that determine a metric, the first one that it has counts."""

_ATTENTION = "sparse_attention"


@dataclass(frozen=True, kw_only=True)
class BudgetOption:
    """An option of an attention with the range in which it is searched."""

    path: str
    """Its key in the configuration, such as `sparse_attention.evict.snapkv.fraction`."""
    value: float
    """Its value in the preset; a whole number stays one."""
    least: float
    most: float

    @property
    def name(self) -> str:
        """The key within the attention, without the name of its stage."""
        return self.path.removeprefix(f"{_ATTENTION}.").partition(".")[2] or self.path


def find_budget(
    attention: Mapping[str, Any], metric: Metric, *, path: str | None, longest: int
) -> BudgetOption:
    """Find the budget of a configured attention.

    Of the stages that determine the metric it is the last method's first option in
    `budget_options` that is not null. A method of eviction around another one has the budget of
    the inner one.

    Args:
        attention: the section `sparse_attention`, resolved.
        metric: what the budget is matched to.
        path: the option, if the user names it: relative to the attention, or the whole key.
        longest: highest budget in tokens.

    Raises:
        ConfigurationError: if there is none, naming the attention and the way out.
    """
    name = attention["name"]
    if attention.get("matched") is not None:
        raise ConfigurationError(
            f"{name} has a budget that was matched already; match the preset that it was made from"
        )
    if path is not None:
        return _option(name, path.removeprefix(f"{_ATTENTION}."), attention, longest)
    stages = _STAGES[metric]
    stage = next((stage for stage in stages if attention.get(stage)), None)
    if stage is None:
        lacks = "evictor and no rewriter" if metric == "resident" else "masker and no evictor"
        raise ConfigurationError(
            f"{name} has no {lacks}, so that no budget of it changes {metric}; leave it out of "
            "attention=, or choose another target"
        )
    key, method = list(attention[stage].items())[-1]
    found = next(_declared(f"{stage}.{key}", method), None)
    if found is None:
        kind = str(method["_target_"]).rpartition(".")[2]
        raise ConfigurationError(
            f"{name}: {kind} has no budget, an option that scales {metric}; leave it out of "
            f"attention=, or name an option with --budget {name}={stage}.{key}.OPTION"
        )
    return _option(name, found, attention, longest)


def _declared(path: str, method: Mapping[str, Any]) -> Iterator[str]:
    """Find the options that the class of a method declares as its budget, and that are set."""
    for name in getattr(get_class(str(method["_target_"])), "budget_options", ()):
        if method.get(name) is not None:
            yield f"{path}.{name}"
    if isinstance(method.get("of"), Mapping):
        yield from _declared(f"{path}.of", method["of"])


def _option(name: str, path: str, attention: Mapping[str, Any], longest: int) -> BudgetOption:
    *above, last = path.split(".")
    owner: Any = attention
    for key in above:
        owner = owner.get(key) if isinstance(owner, Mapping) else None
    value = owner.get(last) if isinstance(owner, Mapping) else None
    whole = f"{_ATTENTION}.{path}"
    if value == 1 and _is_share(owner, last):
        value = 1.0
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return BudgetOption(path=whole, value=value, least=1, most=max(value, longest))
    if isinstance(value, float) and 0 < value <= 1:
        return BudgetOption(path=whole, value=value, least=1e-4, most=1.0)
    raise ConfigurationError(
        f"{name}: the budget {whole}={value!r} must be a share in (0, 1] or a whole number of at "
        f"least 1; name another option with --budget {name}=PATH"
    )


def _is_share(owner: Mapping[str, Any], name: str) -> bool:
    """Whether a field takes fractions, although its value is written as a whole number."""
    hint = get_type_hints(get_class(str(owner["_target_"]))).get(name) if "_target_" in owner else 0
    return hint is float or float in get_args(hint)
