"""Progress of an experiment: a bar on a terminal, log lines elsewhere."""

import logging
import time
from collections.abc import Sequence
from typing import Self

from rich import progress as rich_progress
from rich.console import Console

logger = logging.getLogger(__name__)

_LINE_SECONDS = 30.0


def quiet_libraries() -> None:
    """Keep progress bars of transformers out of log files."""
    if not Console(stderr=True).is_terminal:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # type: ignore[no-untyped-call]


class Progress:
    """Shows how many examples are done, the score so far, and the time left."""

    def __init__(
        self, total: int, *, scores: Sequence[float | None], arm: str = "", bar: bool = True
    ) -> None:
        """Start counting.

        Args:
            total: number of examples.
            scores: of the examples already answered.
            arm: names the arm in log lines, where there are several.
            bar: whether to show a bar on a terminal; there can be only one at a time.
        """
        self._prefix = f"{arm}: " if arm else ""
        self.total = total
        self.done_before = len(scores)
        self._scores = list(scores)
        self._started = self._last_line = time.monotonic()
        self._bar: rich_progress.Progress | None = None
        console = Console(stderr=True)
        if bar and console.is_terminal:
            self._bar = rich_progress.Progress(
                rich_progress.BarColumn(bar_width=24),
                rich_progress.MofNCompleteColumn(),
                rich_progress.TextColumn("{task.fields[score]}"),
                rich_progress.TimeElapsedColumn(),
                rich_progress.TextColumn("left"),
                rich_progress.TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=total, completed=self.done_before, score="")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def done(self) -> int:
        """Number of answered examples."""
        return len(self._scores)

    @property
    def score(self) -> float | None:
        """Mean of the scores so far; None without any."""
        known = [value for value in self._scores if value is not None]
        return sum(known) / len(known) if known else None

    def advance(self, score: float | None) -> None:
        """Count one more example."""
        self._scores.append(score)
        done, so_far = self.done, self.score
        mean = "no score" if so_far is None else f"score so far {so_far:.3f}"
        if self._bar is not None:
            self._bar.update(self._task, advance=1, score=mean)
            return
        now = time.monotonic()
        if now - self._last_line >= _LINE_SECONDS and done < self.total:
            self._last_line = now
            left = (now - self._started) / (done - self.done_before) * (self.total - done)
            logger.info(
                "%s%d of %d examples, %s, about %.0f s left",
                *(self._prefix, done, self.total, mean, left),
            )
