"""The one exception a user's mistake raises."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """A mistake in the request, the data or the machine's set-up, that the user can correct.

    Its message is one line: what is wrong, where (file, key or image), and what to do. The
    command line prints it without a traceback and exits with status 2; inside a cell it becomes
    the record's `error`.
    """

    def __str__(self) -> str:
        # A loader's worker hands its error on with the traceback in front of the message.
        last = super().__str__().strip().splitlines()[-1]
        return last.removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for an unknown name, with close matches, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    return UserError(f"unknown {kind} '{name}': {hint}")


def from_validation(where: str, error: ValidationError, hint: str = "") -> UserError:
    """The first fault that a schema reports, as one line: file, key, what is wrong, hint."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    fault = f"key '{key}': {message[0].lower()}{message[1:]}" if key else message
    return UserError(f"{where}: {fault}{f'; {hint}' if hint else ''}")
