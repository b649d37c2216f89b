"""Requirements that the options of a benchmark must meet."""

from collections.abc import Sequence

from sah.errors import ConfigurationError

EVERY_SUBSET = "*"


def chosen_subsets(
    benchmark: str, chosen: str | Sequence[str] | None, known: Sequence[str]
) -> tuple[str, ...]:
    """Return the chosen subsets in the order of `known`; None chooses all.

    Raises:
        ConfigurationError: for an unknown name, listing the known ones.
    """
    if chosen is None:
        return tuple(known)
    if chosen == EVERY_SUBSET:
        raise ConfigurationError(
            f"benchmark.subset='{EVERY_SUBSET}' makes one cell of a sweep for each subset; add -m, "
            "or choose null for all subsets in one experiment"
        )
    names = {chosen} if isinstance(chosen, str) else set(chosen)
    unknown = sorted(names - set(known))
    if unknown or not names:
        raise ConfigurationError(
            f"benchmark.subset={chosen!r}: {benchmark} has no such subset; choose from "
            f"{', '.join(known)}, or null for all"
        )
    return tuple(name for name in known if name in names)


def require_positive(benchmark: str, field: str, value: int | None) -> None:
    """Check an optional count.

    Raises:
        ConfigurationError: if it is below 1.
    """
    if value is not None and value < 1:
        raise ConfigurationError(f"{benchmark}: benchmark.{field} must be at least 1, got {value}")


def require_context(context_tokens: int, max_tokens: int | None) -> None:
    """Check the prompt length that a benchmark asks for against the limit of the model, if known.

    Raises:
        ConfigurationError: naming both.
    """
    if max_tokens is not None and context_tokens > max_tokens:
        raise ConfigurationError(
            f"benchmark.context_tokens={context_tokens} is more than the {max_tokens} tokens the "
            "model takes; lower it, or choose a model with a longer context"
        )
