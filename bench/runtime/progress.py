"""One bar per stage on stderr, with images a second and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_SECONDS = 15.0  # between two lines of a stage where there is no terminal


class Bar:
    """The progress of one stage; `advance` counts what is done, `note` shows a figure beside it."""

    def __init__(self, name: str, total: int, unit: str, console: Console) -> None:
        self._name = name
        self._total = total
        self._unit = unit
        self._console = console
        self._done = self._first = 0
        self._started = self._printed = time.monotonic()
        self._note = ""
        self._rich: Progress | None = None
        if console.is_terminal:
            self._rich = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
            )
            self._task = self._rich.add_task(name, total=total, rate="", note="")
            self._rich.start()

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
        if self._rich is not None:
            rate = f"{self._rate():,.0f} {self._unit}/s"
            self._rich.update(self._task, completed=self._done, rate=rate, note=self._note)
        elif time.monotonic() - self._printed > PLAIN_SECONDS:
            self._printed = time.monotonic()
            left = (self._total - self._done) / max(self._rate(), 1e-9)
            self._line(f"{left:,.0f} s left")

    def close(self) -> None:
        """Finish the bar."""
        if self._rich is not None:
            self._rich.stop()
        else:
            self._line(f"{time.monotonic() - self._started:,.1f} s")

    def _rate(self) -> float:
        return (self._done - self._first) / max(time.monotonic() - self._started, 1e-9)

    def _line(self, time_text: str) -> None:
        count = f"{self._done:,}/{self._total:,} {self._unit}"
        parts = [count, f"{self._rate():,.0f} {self._unit}/s", time_text, self._note]
        text = f"{self._name}: {', '.join(part for part in parts if part)}"
        self._console.print(text, highlight=False, soft_wrap=True)


class Reporter:
    """Where a run says what it does: stderr, as bars on a terminal and plain lines elsewhere."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._bars: dict[int, Bar] = {}  # of worker processes
        self.cell = ""  # of which cell, in front of every stage's name

    def say(self, text: str) -> None:
        """Print one line."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    @contextmanager
    def stage(self, name: str, total: int, unit: str = "img") -> Iterator[Bar]:
        """Show the progress of one stage of `total` units."""
        bar = Bar(f"{self.cell}{name}", total, unit, self.console)
        try:
            yield bar
        finally:
            bar.close()

    def show(self, worker: int, what: str, *values: Any) -> None:
        """Show what happened in a worker process, see `RemoteReporter`.

        Args:
            worker: which.
            what: `say`, `open`, or what `Bar` does.
            values: its arguments.
        """
        if what == "say":
            self.say(*values)
        elif what == "open":
            name, total, unit = values
            self._bars[worker] = Bar(name, total, unit, self.console)
        elif what == "close":
            self._bars.pop(worker).close()
        else:
            getattr(self._bars[worker], what)(*values)


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
