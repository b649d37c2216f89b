"""What a check found."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the doctor's report."""

    check: str
    status: Status
    message: str
    advice: str = ""
    """What to do about it; empty where there is nothing to do."""


def ok(check: str, message: str) -> Finding:
    """All is well."""
    return Finding(check=check, status="ok", message=message)


def warning(check: str, message: str, advice: str) -> Finding:
    """The sweep works, and may not mean what one thinks."""
    return Finding(check=check, status="warning", message=message, advice=advice)


def error(check: str, message: str, advice: str) -> Finding:
    """The sweep fails, or its numbers are wrong."""
    return Finding(check=check, status="error", message=message, advice=advice)
