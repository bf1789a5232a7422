"""Ctrl-C, SIGTERM and SIGHUP on the command line: a line and a status, at any moment.

A worker is told by these, and by two more, that its machine is needed or its time is over.
Imports next to nothing: `end_at_once` is called before anything else is imported.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

INTERRUPTED = "interrupted; run the same command again to resume"
STATUS = {int(signal.SIGINT): 130, int(signal.SIGTERM): 143}
if hasattr(signal, "SIGHUP"):  # of a terminal that is closed
    STATUS[int(signal.SIGHUP)] = 129
REQUEUE = 75  # EX_TEMPFAIL: the status of a worker whose work is to be queued again
NOTICES = tuple(int(getattr(signal, n)) for n in ("SIGUSR1", "SIGUSR2") if hasattr(signal, n))
RETRY_SECONDS = 0.05  # after which a signal that a library swallowed is sent again

_said = threading.Event()  # that the command was interrupted
_cleaning: list[Callable[[], None]] = []  # what `end_at_once` does before the end
_received: list[tuple[int, int]] = []  # numbers of signals, and the status that each asks for


def statuses(arguments: Sequence[str]) -> Mapping[int, int]:
    """The signals that end a command, and the exit status of each.

    Args:
        arguments: of the command line, without the program.
    """
    if arguments[:1] != ["work"]:
        return STATUS
    return STATUS | dict.fromkeys((int(signal.SIGTERM), *NOTICES), REQUEUE)


def end_at_once(arguments: Sequence[str] = ()) -> None:
    """From now on end the process by a line and a status: there is nothing that could be lost.

    A signal that is ignored, as nohup does, stays ignored.

    Args:
        arguments: of the command line, without the program.
    """
    ends = statuses(arguments)

    def end(number: int, frame: Any) -> None:
        try:
            if not _said.is_set():
                os.write(2, f"bench: {INTERRUPTED}\n".encode())
            for clean in _cleaning:
                clean()
        finally:
            os._exit(ends[number])

    for number in ends:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)


def say_no_more() -> None:
    """From now on end the process at a signal without a line: it was printed."""
    _said.set()


def clean_at_end(clean: Callable[[], None]) -> None:
    """Call something before a signal ends the process at once, which skips what else would."""
    _cleaning.append(clean)


@contextmanager
def left_to_the_system() -> Iterator[None]:
    """Let these signals end the process at once, for a wait in which no code of Python runs."""
    if threading.current_thread() is not threading.main_thread():
        yield  # which alone may set what a signal does
        return
    before = _handlers((*STATUS, *NOTICES))
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[None]:
    """Let these signals come when this is over: raised amid torch's import they abort a process."""
    if threading.current_thread() is not threading.main_thread():
        yield  # which alone may set what a signal does
        return
    arrived: list[int] = []
    before = _handlers((*STATUS, *NOTICES))
    for number in before:
        signal.signal(number, lambda number, frame: arrived.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in arrived[:1]:
            signal.raise_signal(number)


@contextmanager
def raised(numbers: tuple[int, ...], ends: Mapping[int, int] = STATUS) -> Iterator[None]:
    """Raise `Interrupted` at these signals, which lets everything that was begun end in order.

    Processes that are forked meanwhile end at SIGTERM and ignore the others: their parent decides.

    Args:
        numbers: of the signals.
        ends: the exit status of each.
    """
    _received.clear()
    if threading.current_thread() is not threading.main_thread():
        yield  # which alone may set what a signal does
        return
    owner = os.getpid()

    def interrupt(number: int, frame: Any) -> None:
        from bench.errors import Interrupted

        if os.getpid() == owner:
            _received.append((number, ends[number]))
            raise Interrupted("", ends[number])
        if number == signal.SIGTERM:
            os._exit(STATUS[number])

    before = _handlers(numbers)
    hook = sys.unraisablehook
    sys.unraisablehook = _send_again(hook)
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook


def received() -> int | None:
    """The status that the first signal within `raised` asks for; None if there was none."""
    return _received[0][1] if _received else None


def _handlers(numbers: Sequence[int]) -> dict[int, Any]:
    """What is done at signals; those that are ignored are none of them."""
    handlers = {number: signal.getsignal(number) for number in numbers}
    return {n: handler for n, handler in handlers.items() if handler != signal.SIG_IGN}


def _send_again(hook: Any) -> Any:
    """A hook for exceptions in places that cannot raise, where an interrupt must not get lost."""

    def unraisable(problem: Any) -> None:
        if _received and issubclass(problem.exc_type, KeyboardInterrupt):
            again = threading.Timer(RETRY_SECONDS, os.kill, (os.getpid(), _received[-1][0]))
            again.daemon = True
            again.start()
        else:
            hook(problem)

    return unraisable
