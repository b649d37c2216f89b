"""Progress of a sweep: on a terminal a bar for each slot and one for the whole, else log lines."""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sah.launching.plan import Cell
from sah.report.reading.order import natural
from sah.report.tables.state_table import duration
from sah.results.state import ExperimentState, read_state
from sah.terminal import plain

logger = logging.getLogger(__name__)

_REFRESH_SECONDS = 2.0
_LINE_SECONDS = 30.0
_MAX_ROWS = 20
# Lines of the terminal besides those of slots: the whole, and what was logged last.
_OTHER_ROWS = 4
_BAR_WIDTH = 16


class SweepMonitor:
    """Follows the cells of a sweep by reading their files; costs nothing between two updates."""

    def __init__(self, cells: Sequence[Cell], *, finished: int) -> None:
        self._cells = {cell.number: cell for cell in cells}
        # Words that all labels share say nothing about one cell.
        self._common = set.intersection(*(set(cell.label.split()) for cell in cells))
        self._finished = finished
        self._ended: dict[int, str] = {}
        # The first cell with each error: an error that cells share is told once.
        self._told: dict[str, int] = {}
        self._running: set[int] = set()
        self._last_refresh = 0.0
        self._started = self._last_line = time.monotonic()
        self._live: Live | None = None
        console = Console(stderr=True)
        if console.is_terminal:
            self._live = Live(console=console, refresh_per_second=2, transient=True)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, slots: Mapping[int, str]) -> None:
        """Take in the running cells with their slots; cells that ran before have ended."""
        for number in sorted(self._running - slots.keys()):
            self._note_end(number)
        started = slots.keys() - self._running
        if self._live is None:
            for number in sorted(started):
                logger.info("#%d starts on %s: %s", number, slots[number], self._label(number))
        changed = self._running != set(slots)
        self._running = set(slots)
        now = time.monotonic()
        due = changed or now - self._last_refresh >= _REFRESH_SECONDS
        if self._live is not None and due:
            self._last_refresh = now
            self._live.update(self._picture(slots))
        elif self._live is None and now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            logger.info("%s", self._counts())
            for slot, numbers in _by_slot(slots).items():
                state = read_state(self._cells[numbers[0]].directory)
                logger.info("  %s: %s, %s", slot, self._label_of(numbers), _answered(state))

    def _note_end(self, number: int) -> None:
        state = read_state(self._cells[number].directory)
        self._ended[number] = state.state
        if state.state == "interrupted":
            what = f"interrupted, {state.progress}"
        else:
            what = "done" if state.state == "done" else state.first_error_line or state.state
        if what == state.first_error_line:
            first = self._told.setdefault(what, number)
            what = what if first == number else f"failed as #{first}"
        line = f"#{number} {what}: {self._label(number)}"
        if self._live is not None:
            # Printed above the live table, which would overwrite a log line.
            self._live.console.print(Text(plain(line)), soft_wrap=True)
        elif state.state == "done":
            logger.info("%s", line)
        else:
            logger.error("%s", line)

    def _label(self, number: int) -> str:
        words = self._cells[number].label.split()
        return " ".join(word for word in words if word not in self._common) or " ".join(words)

    def _label_of(self, numbers: Sequence[int]) -> str:
        """Return the label of a cell, or what those of the arms of a job have in common."""
        if len(numbers) == 1:
            return f"#{numbers[0]} {self._label(numbers[0])}"
        labels = [self._cells[number].label.split() for number in numbers]
        shared = [word for word in labels[0] if all(word in label for label in labels)]
        words = [word for word in shared if word not in self._common]
        return ": ".join(filter(None, [f"{len(numbers)} arms", " ".join(words)]))

    def _counts(self) -> str:
        counts = Counter(self._ended.values())
        done, interrupted = counts["done"], counts["interrupted"]
        failed = len(self._ended) - done - interrupted
        waiting = len(self._cells) - len(self._ended) - len(self._running)
        return (
            f"{waiting} waiting, {len(self._running)} running, {done} done, "
            f"{self._finished} finished before, {failed} failed"
            + (f", {interrupted} interrupted" if interrupted else "")
        )

    def _picture(self, slots: Mapping[int, str]) -> Table:
        """Return a line for each slot, and one for all cells.

        The arms of a job answer one context after another together, so its first arm tells how
        far it is.
        """
        table = Table.grid(padding=(0, 2), expand=True)
        for justify in ("left", "left", "right", "right"):
            table.add_column(no_wrap=True, justify=justify)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        by_slot = _by_slot(slots)
        height = _MAX_ROWS if self._live is None else self._live.console.height - _OTHER_ROWS
        most = max(1, min(_MAX_ROWS, height))
        begun = 0.0
        for row, (slot, numbers) in enumerate(by_slot.items()):
            state = read_state(self._cells[numbers[0]].directory)
            begun += len(numbers) * _share(state, since_claim=True)
            if row < most:
                since = "" if state.owner is None else _ago(time.time() - state.owner.since)
                label = Text(plain(self._label_of(numbers)))
                table.add_row(slot, _bar(_share(state)), _answered(state), since, label)
        if len(by_slot) > most:
            table.add_row(f"and {len(by_slot) - most} more")
        elapsed, done = time.monotonic() - self._started, len(self._ended)
        table.add_row(
            "sweep",
            _bar((done + begun) / len(self._cells)),
            f"{done} of {len(self._cells)}",
            _ago(elapsed),
            self._outlook(done + begun, elapsed),
        )
        return table

    def _outlook(self, done: float, elapsed: float) -> str:
        """Say how long the rest takes if it goes on like this, and what has failed."""
        counts = Counter(self._ended.values())
        failed = len(self._ended) - counts["done"] - counts["interrupted"]
        is_over = len(self._ended) == len(self._cells)
        left = None if is_over or not done else (len(self._cells) - done) * elapsed / done
        parts = [
            "" if left is None else f"about {duration(left)} left",
            f"{failed} failed" if failed else "",
            f"{counts['interrupted']} interrupted" if counts["interrupted"] else "",
        ]
        return ", ".join(filter(None, parts))


def _by_slot(slots: Mapping[int, str]) -> dict[str, list[int]]:
    """Return the cells of each slot, by name."""
    found: dict[str, list[int]] = {slot: [] for slot in sorted(slots.values(), key=natural)}
    for number in sorted(slots):
        found[slots[number]].append(number)
    return found


def _bar(share: float) -> ProgressBar:
    return ProgressBar(total=1.0, completed=share, width=_BAR_WIDTH)


def _share(state: ExperimentState, *, since_claim: bool = False) -> float:
    """Return the share of the examples that are answered, or of those left at its claim."""
    before = state.owner.answered if since_claim and state.owner is not None else 0
    if state.examples is None or state.examples <= before:
        return 0.0
    return max(0, state.answered - before) / (state.examples - before)


def _answered(state: ExperimentState) -> str:
    if state.examples is None:
        return "loading"
    return f"{state.answered} of {state.examples}"


def _ago(seconds: float) -> str:
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
