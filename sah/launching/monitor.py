"""Progress of a sweep: a live table on a terminal, log lines elsewhere."""

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sah.launching.plan import Cell
from sah.results.state import ExperimentState, read_state
from sah.terminal import plain

logger = logging.getLogger(__name__)

_REFRESH_SECONDS = 2.0
_LINE_SECONDS = 30.0
_MAX_ROWS = 20


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
        self._last_line = time.monotonic()
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
            for number in sorted(slots):
                state = read_state(self._cells[number].directory)
                logger.info("  #%d %s", number, _answered(state))

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

    def _picture(self, slots: Mapping[int, str]) -> Group:
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for column in ("#", "where", "since", "examples", "experiment"):
            table.add_column(column, no_wrap=column != "experiment")
        for number in sorted(slots)[:_MAX_ROWS]:
            state = read_state(self._cells[number].directory)
            since = "" if state.owner is None else _ago(time.time() - state.owner.since)
            table.add_row(
                str(number),
                slots[number],
                since,
                _answered(state),
                Text(plain(self._label(number))),
            )
        if len(slots) > _MAX_ROWS:
            table.add_row("", f"and {len(slots) - _MAX_ROWS} more", "", "", "")
        return Group(table, Text(self._counts()))


def _answered(state: ExperimentState) -> str:
    if state.examples is None:
        return "loading"
    return f"{state.answered} of {state.examples}"


def _ago(seconds: float) -> str:
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
