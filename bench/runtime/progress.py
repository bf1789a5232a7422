"""Progress on stderr: a bar for all cells above one for the stage, or plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

PLAIN_SECONDS = 60.0  # at least, between two lines of a cell where there is no terminal
PRIOR_SECONDS = 30.0  # of estimated work that count as measured before any cell has finished
MINUTE, HOUR = 60, 3600  # seconds


def about(seconds: float) -> str:
    """A rough time in words: 40 s, 6 min, 2.5 h."""
    if seconds < MINUTE:
        return f"{max(10, 10 * round(seconds / 10))} s"
    return f"{seconds / MINUTE:.0f} min" if seconds < 1.5 * HOUR else f"{seconds / HOUR:.1f} h"


class Overall:
    """The progress of all cells of a run.

    Args:
        seconds: an estimate for each cell, in order; None where there is none.
    """

    def __init__(self, seconds: Sequence[float | None]) -> None:
        self._estimates = list(seconds)
        self._finished = 0
        self._measured = PRIOR_SECONDS
        self._expected = PRIOR_SECONDS
        self._first = time.monotonic()
        self._started = self._first

    def finish(self, failed: bool) -> None:
        """Count a cell as finished; a failed one says nothing about the pace."""
        now = time.monotonic()
        expected = self._estimates[self._finished]
        if expected is not None and not failed:
            self._measured += now - self._started
            self._expected += expected
        self._finished += 1
        self._started = now

    def left(self, stage: float) -> float | None:
        """Seconds left for all cells; None where a cell has no estimate.

        The measured pace of the finished cells scales the estimates. A cell at work that takes
        longer than estimated counts at once.

        Args:
            stage: seconds left for the stage at work.
        """
        rest = [seconds for seconds in self._estimates[self._finished :] if seconds is not None]
        if len(rest) < len(self._estimates) - self._finished:
            return None
        if not rest:
            return 0.0
        taken = time.monotonic() - self._started
        projected = (self._measured + taken + stage) / (self._expected + rest[0])
        pace = max(self._measured / self._expected, projected)
        return max(pace * rest[0] - taken, stage) + pace * sum(rest[1:])

    def text(self, stage: float) -> str:
        """Which cell is at work, and the time left for all."""
        total = len(self._estimates)
        if self._finished == total:
            return self.finished_text()
        cell = f"cell {self._finished + 1} of {total}"
        left = self.left(stage)
        return cell if left is None else f"{cell}, about {about(left)} left for all"

    def finished_text(self) -> str:
        """How many cells are finished, and the time left for all."""
        total = len(self._estimates)
        count = f"{self._finished} of {total} cells"
        left = self.left(0.0)
        if left is None or self._finished == total:
            return count
        return f"{count}, about {about(left)} left for all"

    def share(self, stage: float) -> float:
        """How much is done, 0..1."""
        left = self.left(stage)
        if left is None:
            return self._finished / len(self._estimates)
        taken = time.monotonic() - self._first
        return taken / max(taken + left, 1e-9)


class _Display(Progress):
    """The bars on a terminal: that of all cells, and below it those of the stages."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=reporter.console,
            refresh_per_second=4,
        )

    def get_renderables(self) -> Iterator[RenderableType]:
        overall = self._reporter.overall
        if overall is not None:
            stage = self._reporter.stage_left()
            grid = Table.grid(padding=(0, 1))
            bar = ProgressBar(total=1.0, completed=overall.share(stage), width=30)
            grid.add_row(Text(overall.text(stage)), bar)
            yield grid
        for task in self.tasks:
            yield self.make_tasks_table([task])
            if task.fields["note"]:  # in a line of its own: 80 columns do not hold both
                yield Text(f"  {task.fields['note']}")


class Bar:
    """The progress of one stage; `advance` counts what is done, `note` shows a figure beside it."""

    def __init__(self, name: str, total: int, unit: str, reporter: Reporter) -> None:
        self._name = name
        self._total = total
        self._unit = unit
        self._reporter = reporter
        self._done = 0
        self._first = 0
        self._started = time.monotonic()
        self._note = ""
        self._display = reporter.display
        if self._display is not None:
            self._task = self._display.add_task(name, total=total, rate="", note="")

    def skip(self, count: int) -> None:
        """Count work done by an earlier run; it does not enter the rate."""
        self._first += count
        self.advance(count)

    def note(self, text: str) -> None:
        """Show `text` (a loss, an accuracy) with the progress."""
        self._note = text

    def advance(self, count: int) -> None:
        """Count `count` more units as done."""
        self._done += count
        if self._display is not None:
            rate = f"{self._rate():,.0f} {self._unit}/s"
            self._display.update(self._task, completed=self._done, rate=rate, note=self._note)
        elif self._reporter.is_due():
            self._line(f"{self.left():,.0f} s left")

    def left(self) -> float:
        """Seconds left for the stage at its rate; 0 before anything is done."""
        rate = self._rate()
        return (self._total - self._done) / rate if rate > 0 else 0.0

    def close(self) -> None:
        """Finish the bar."""
        if self._display is not None:
            self._display.remove_task(self._task)
        elif self._reporter.is_due():
            self._line(f"{time.monotonic() - self._started:,.1f} s")

    def _rate(self) -> float:
        return (self._done - self._first) / max(time.monotonic() - self._started, 1e-9)

    def _line(self, time_text: str) -> None:
        count = f"{self._done:,}/{self._total:,} {self._unit}"
        parts = [count, f"{self._rate():,.0f} {self._unit}/s", time_text, self._note]
        text = f"{self._name}: {', '.join(part for part in parts if part)}"
        overall = self._reporter.overall
        self._reporter.say(f"{overall.text(self.left())}; {text}" if overall else text)


class Reporter:
    """Where a run says what it does: stderr, as bars on a terminal and plain lines elsewhere.

    Attributes:
        console: stderr.
        cell: in front of the name of every stage.
        overall: the progress of all cells, where there are several.
        display: the bars, while any is shown on a terminal.
    """

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.cell = ""
        self.overall: Overall | None = None
        self.display: _Display | None = None
        self._bar: Bar | None = None
        self._printed = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line."""
        self._printed = time.monotonic()
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def say_finished(self, text: str) -> None:
        """Print the line of a finished cell; without bars also how many cells are finished."""
        if self.overall is not None and self.display is None:
            text = f"{text}; {self.overall.finished_text()}"
        self.say(text)

    def is_due(self) -> bool:
        """Whether the last line is long enough ago for another one within the same cell."""
        return time.monotonic() - self._printed >= PLAIN_SECONDS

    def stage_left(self) -> float:
        """Seconds left for the stage at work; 0 if there is none."""
        return 0.0 if self._bar is None else self._bar.left()

    def finish_cell(self, failed: bool = False) -> None:
        """Count a cell as finished."""
        if self.overall is not None:
            self.overall.finish(failed)

    @contextmanager
    def cells(self, seconds: Sequence[float | None]) -> Iterator[None]:
        """Show the progress of all cells above that of each stage.

        Args:
            seconds: an estimate for each cell, in order; None where there is none.
        """
        self.overall = Overall(seconds)
        try:
            with self._shown():
                yield
        finally:
            self.overall = None

    @contextmanager
    def stage(self, name: str, total: int, unit: str = "img") -> Iterator[Bar]:
        """Show the progress of one stage of `total` units."""
        with self._shown():
            outer = self._bar
            bar = Bar(f"{self.cell}{name}", total, unit, self)
            self._bar = bar
            try:
                yield bar
            finally:
                self._bar = outer
                bar.close()

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """Keep the bars on the terminal, if stderr is one."""
        if self.display is not None or not self.console.is_terminal:
            yield
            return
        self.display = _Display(self)
        try:
            with self.display:
                yield
        finally:
            self.display = None
