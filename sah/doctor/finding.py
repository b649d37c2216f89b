"""The finding of one check."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One entry in the doctor's report."""

    check: str
    status: Status
    message: str
    advice: str = ""
    """What to do about it; empty if there is nothing to do."""


def ok(check: str, message: str) -> Finding:
    """Return a finding that needs no action."""
    return Finding(check=check, status="ok", message=message)


def warning(check: str, message: str, advice: str) -> Finding:
    """Return a finding for a sweep that runs, but may not measure what was intended."""
    return Finding(check=check, status="warning", message=message, advice=advice)


def error(check: str, message: str, advice: str) -> Finding:
    """Return a finding for a sweep that would fail or give wrong numbers."""
    return Finding(check=check, status="error", message=message, advice=advice)


def counted(number: int, noun: str) -> str:
    """Return "1 prompt", "2 prompts" and so on."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def sized(size: float) -> str:
    """Return a number of bytes as 540 MB or 17.2 GB."""
    return f"{size / 1e6:.0f} MB" if size < 1e9 else f"{size / 1e9:.1f} GB"
