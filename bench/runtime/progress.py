"""Progress on stderr: a bar for all cells above one for the stage, or plain lines elsewhere."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

PLAIN_SECONDS = 60.0  # at least, between two lines of a cell where there is no terminal
LEAST_SECONDS = 1.0  # of a stage before its rate is shown on a line
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
        seconds: an estimate for each cell, by its name; None where there is none.
        workers: cells that are at work at a time, at most.
        sequences: names of the cells that follow one another, those of one encoder.
    """

    def __init__(
        self,
        seconds: Mapping[str, float | None],
        workers: int,
        sequences: Sequence[Sequence[str]] = (),
    ) -> None:
        self._estimates = dict(seconds)
        self._sequences = sequences
        self._total = len(seconds)
        self._workers = workers
        self._at_work: dict[str, float] = {}  # since when
        self._measured = PRIOR_SECONDS
        self._expected = PRIOR_SECONDS
        self._first = time.monotonic()

    def start(self, cell: str) -> None:
        """Count a cell as at work, from now if it is not yet."""
        self._at_work.setdefault(cell, time.monotonic())

    def finish(self, cell: str, failed: bool) -> None:
        """Count a cell as finished; a failed one says nothing about the pace."""
        started = self._at_work.pop(cell, time.monotonic())
        expected = self._estimates.pop(cell)
        if expected is not None and not failed:
            self._measured += time.monotonic() - started
            self._expected += expected

    def left(self, stage: float) -> float | None:
        """Seconds left for all cells; None where a cell has no estimate.

        The measured pace of the finished cells scales the estimates. A cell at work that takes
        longer than estimated counts at once.

        Args:
            stage: seconds left for the stages at work, the longest of them.
        """
        if None in self._estimates.values():
            return None
        estimates = {cell: value or 0.0 for cell, value in self._estimates.items()}
        if not estimates:
            return 0.0
        now = time.monotonic()
        taken = {cell: now - since for cell, since in self._at_work.items()}
        pace = self._pace(estimates, taken)
        left = {cell: pace * value for cell, value in estimates.items()}
        for cell, seconds in taken.items():
            left[cell] = max(left[cell] - seconds, 0.0)
        if taken:
            longest = max(taken, key=lambda cell: left[cell])
            left[longest] = max(left[longest], stage)
        sequences = [sum(left.get(cell, 0.0) for cell in cells) for cells in self._sequences]
        return max([sum(left.values()) / self._workers, *left.values(), *sequences])

    def _pace(self, estimates: Mapping[str, float], taken: Mapping[str, float]) -> float:
        """Measured seconds for each estimated one."""
        late = {cell: seconds for cell, seconds in taken.items() if seconds > estimates[cell]}
        measured = self._measured + sum(late.values())
        return measured / (self._expected + sum(estimates[cell] for cell in late))

    def text(self, stage: float) -> str:
        """Which cells are at work, and the time left for all."""
        if not self._estimates:
            return self.finished_text()
        first = self._total - len(self._estimates) + 1
        last = max(first, first + len(self._at_work) - 1)
        cells = f"cell {last}" if first == last else f"cells {first}-{last}"
        text = f"{cells} of {self._total}"
        left = self.left(stage)
        return text if left is None else f"{text}, about {about(left)} left for all"

    def finished_text(self) -> str:
        """How many cells are finished, and the time left for all."""
        count = f"{self._total - len(self._estimates)} of {self._total} cells"
        left = self.left(0.0)
        if left is None or not self._estimates:
            return count
        return f"{count}, about {about(left)} left for all"

    def share(self, stage: float) -> float:
        """How much is done, 0..1."""
        left = self.left(stage)
        if left is None:
            return 1 - len(self._estimates) / self._total
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


@dataclass(frozen=True)
class Stage:
    """How far a cell is.

    Attributes:
        name: of its stage; empty where none is shown.
        done: units of `total`.
        total: units of the stage.
        left: seconds left for the stage; None where its rate is not known yet.
    """

    name: str = ""
    done: int = 0
    total: int = 0
    left: float | None = None


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

    def stage(self) -> Stage:
        """How far the stage is."""
        return Stage(self._name, self._done, self._total, self.left() or None)

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
        measured = time.monotonic() - self._started >= LEAST_SECONDS
        rate = f"{self._rate():,.0f} {self._unit}/s" if measured else ""
        parts = [count, rate, time_text if measured else "", self._note]
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
        # The open bars of each worker, the innermost last; this process is 0.
        self._bars: dict[int, list[Bar]] = defaultdict(list)
        self._cells: dict[int, str] = {}  # that each worker is at
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
        """Seconds left for the stages at work, the longest of them; 0 if there is none."""
        return max((bars[-1].left() for bars in self._bars.values() if bars), default=0.0)

    def at_work(self) -> dict[str, Stage]:
        """How far each cell is that is at work, by its name; any thread may ask."""
        stages = {}
        for worker, cell in list(self._cells.items()):
            bars = list(self._bars.get(worker, []))
            stages[cell] = bars[-1].stage() if bars else Stage()
        return stages

    def start_cell(self, cell: str) -> None:
        """Count a cell as at work."""
        self._start(0, cell)

    def _start(self, worker: int, cell: str) -> None:
        self._cells[worker] = cell
        if self.overall is not None:
            self.overall.start(cell)

    def finish_cell(self, cell: str, failed: bool = False) -> None:
        """Count a cell as finished."""
        if self.overall is not None:
            self.overall.finish(cell, failed)

    @contextmanager
    def cells(
        self,
        seconds: Mapping[str, float | None],
        workers: int,
        sequences: Sequence[Sequence[str]] = (),
    ) -> Iterator[None]:
        """Show the progress of all cells above that of each stage.

        Args:
            seconds: an estimate for each cell, by its name; None where there is none.
            workers: cells that are at work at a time, at most.
            sequences: names of the cells that follow one another, those of one encoder.
        """
        self.overall = Overall(seconds, workers, sequences)
        try:
            with self._shown():
                yield
        finally:
            self.overall = None

    @contextmanager
    def stage(self, name: str, total: int, unit: str = "img") -> Iterator[Bar]:
        """Show the progress of one stage of `total` units."""
        with self._shown():
            self._open(0, f"{self.cell}{name}", total, unit)
            try:
                yield self._bars[0][-1]
            finally:
                self._bars[0].pop().close()

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

    def show(self, worker: int, what: str, *values: Any) -> None:
        """Show what happened in a worker process, see `RemoteReporter`.

        Args:
            worker: which.
            what: `say`, `start_cell`, `open`, or what `Bar` does.
            values: its arguments.
        """
        if what == "say":
            self.say(*values)
        elif what == "start_cell":
            self._start(worker, *values)
        elif what == "open":
            self._open(worker, *values)
        elif what == "close":
            self._bars[worker].pop().close()
        else:
            getattr(self._bars[worker][-1], what)(*values)

    def forget(self, worker: int) -> None:
        """Close the bars of a worker process that is gone."""
        self._cells.pop(worker, None)
        for bar in self._bars.pop(worker, []):
            bar.close()

    def _open(self, worker: int, name: str, total: int, unit: str) -> None:
        self._bars[worker].append(Bar(name, total, unit, self))


class RemoteReporter(Reporter):
    """A reporter of a worker process, whose parent shows what it says.

    Args:
        send: takes what happened, as `Reporter.show` takes it.
    """

    def __init__(self, send: Callable[..., None]) -> None:
        super().__init__()
        self._send = send

    def say(self, text: str) -> None:
        """Have one line printed."""
        self._send("say", text)

    def start_cell(self, cell: str) -> None:
        """Have a cell counted as at work."""
        self._send("start_cell", cell)

    @contextmanager
    def stage(self, name: str, total: int, unit: str = "img") -> Iterator[Bar]:
        """Have the progress of one stage shown."""
        self._send("open", f"{self.cell}{name}", total, unit)
        try:
            yield RemoteBar(self._send)
        finally:
            self._send("close")


class RemoteBar(Bar):
    """The progress of a stage of a worker process."""

    def __init__(self, send: Callable[..., None]) -> None:
        self._send = send

    def skip(self, count: int) -> None:
        """Count work done by an earlier run."""
        self._send("skip", count)

    def note(self, text: str) -> None:
        """Have `text` shown with the progress."""
        self._send("note", text)

    def advance(self, count: int) -> None:
        """Count `count` more units as done."""
        self._send("advance", count)

    def close(self) -> None:
        """Finish the bar."""
        self._send("close")
