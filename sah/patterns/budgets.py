"""Checking the numbers of patterns, and budgets given as a count or as a share."""

import math

from sah.attention.selection import require_fraction


def require_whole(name: str, field: str, value: object, least: int) -> None:
    """Check a whole number.

    Raises:
        ValueError: if it is not an integer of at least `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(
            f"{name}: {field} must be a whole number of at least {least}, got {value!r}"
        )


def require_share(name: str, field: str, value: object) -> None:
    """Check a share that may be 0.

    Raises:
        ValueError: if it is not a number in [0, 1].
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name}: {field} must be in [0, 1], got {value!r}")


def require_count_or_share(name: str, **budget: object) -> None:
    """Check a budget, of which exactly one is given: first the field of the count, then the share.

    Raises:
        ValueError: if both are, or none, or if the one is out of range.
    """
    (count_field, count), (share_field, share) = budget.items()
    if (count is None) == (share is None):
        raise ValueError(
            f"{name}: give exactly one of {count_field} and {share_field}, got {count_field}="
            f"{count} and {share_field}={share}; set the other one to null"
        )
    if count is not None:
        require_whole(name, count_field, count, 1)
    if share is not None:
        require_fraction(name, share_field, share)


def budget_of(total: int, count: int | None, share: float | None) -> int:
    """Return the budget out of `total`: the count, or the share rounded up; at most all."""
    if count is not None:
        return min(count, total)
    assert share is not None
    # In floating point 0.07 * 100 is slightly more than 7, which must not become 8.
    return math.ceil(total * share - 1e-9)
