"""The exception that a user's mistake raises, and that of a run that was stopped."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pydantic import ValidationError

SHOWN = 40  # characters up to which a wrong value is quoted


class UserError(Exception):
    """A mistake in the request, the data or the machine's set-up, that the user can fix.

    Its message is one line: what is wrong, where (file, key or image), and what to do. The
    command line prints it without a traceback and exits with status 2; inside a cell it becomes
    the record's `error`.
    """

    def __str__(self) -> str:
        # A loader's worker hands its error on with the traceback in front of the message.
        lines = super().__str__().strip().splitlines() or ["no message"]
        line = lines[-1].removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
        return _printable(line)  # names of files may be no text


class Interrupted(KeyboardInterrupt):
    """The end of a run by Ctrl-C or SIGTERM; its message says what is there.

    Args:
        message: one line; empty where nothing was rendered.
        status: the exit status of the command.
    """

    CTRL_C: ClassVar[int] = 130
    SIGTERM: ClassVar[int] = 143

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def one_line(text: str) -> str:
    """Text of any origin as one line of characters that a terminal shows."""
    return _printable(" ".join(text.split()))


def _printable(text: str) -> str:
    """Text with what a terminal does not show as escape sequences."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(shown)


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not there, with the near ones, or all of them."""
    known = sorted(known)
    name = _short(name)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    return UserError(f"unknown {kind} '{name}': {hint}")


def from_validation(
    where: object, error: ValidationError, hint: str = "", key: str | None = None
) -> UserError:
    """The error for a file that breaks its schema: the first key that is wrong, and its value.

    Args:
        where: the file, and the part of it.
        error: what pydantic says.
        hint: what to do.
        key: the dotted key, where it is not the location that pydantic names.
    """
    first = error.errors(include_url=False)[0]
    if key is None:
        key = ".".join(str(part) for part in first["loc"])
    named = f"key '{_short(key)}'{_quoted(first['input'])}"
    message = one_line(first["msg"].removeprefix("Value error, "))
    parts = [f"{where}: {f'{named}: ' if key else ''}{message}", hint]
    return UserError("; ".join(part for part in parts if part))


def _short(name: str) -> str:
    """A name of any content, as a message has it."""
    line = one_line(name[: 3 * SHOWN])
    return f"{line}..." if len(name) > 3 * SHOWN else line


def _quoted(value: object) -> str:
    """A wrong value in parentheses; nothing if it is long."""
    bounded = isinstance(value, str | float) or (isinstance(value, int) and abs(value) < 10**SHOWN)
    text = str(value) if bounded else ""
    return f" ('{one_line(text)}')" if bounded and len(text) <= SHOWN else ""
