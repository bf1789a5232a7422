"""Standard streams that somebody closed, whose reader is gone, or whose disk is full."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from bench.errors import message, one_line


def open_closed() -> None:
    """Open closed standard streams on the null device.

    Else the next file that is opened takes the place of one, and what is printed goes into it.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            mode = "w" if descriptor else "r"
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8", closefd=False))


def shorten_threads_errors() -> None:
    """Print what ends a helper thread of a library in one line; the main thread reports the rest.

    multiprocessing hands over file descriptors in such a thread, which fails where few are allowed.
    """

    def say(ended: threading.ExceptHookArgs) -> None:
        text = message(ended.exc_value) if ended.exc_value else ""
        print(
            one_line(f"bench: a thread ended: {ended.exc_type.__name__}: {text}"), file=sys.stderr
        )

    threading.excepthook = say


@contextmanager
def guarded() -> Iterator[None]:
    """Let stdout and stderr print any character, and handle what cannot be written.

    An error of stdout names it; what stderr cannot take gets lost, as nobody could be told.
    """
    before = sys.stdout, sys.stderr
    for stream in before:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    stdout: Any = _Guarded(sys.stdout, "stdout")
    stderr: Any = _Guarded(sys.stderr, None)
    sys.stdout, sys.stderr = stdout, stderr
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class _Guarded:
    """A text stream like another, but for errors of writing.

    Args:
        stream: the other.
        name: of the file that an error names; None: there is none, and the text gets lost.
    """

    def __init__(self, stream: TextIO, name: str | None) -> None:
        self._stream = stream
        self._name = name
        self._failure: OSError | None = None

    def write(self, text: str) -> int:
        with self._handled():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        if self._failure is not None:  # nobody may have heeded it
            raise self._failure
        with self._handled():
            self._stream.flush()

    @contextmanager
    def _handled(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._discard()
            if self._name is not None:
                error.filename = self._name
                self._failure = error
                raise

    def _discard(self) -> None:
        """Let all of it get lost from now on: the interpreter flushes once more at its end."""
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, self._stream.fileno())
        os.close(descriptor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
