"""The one exception a user's mistake raises."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in the request, the data or the machine's set-up, that the user can mend.

    Its message is one line: what is wrong, where (file, key or image), and what to do. The
    command line prints it without a traceback and exits with status 2; inside a cell it becomes
    the record's `error`.
    """

    def __str__(self) -> str:
        # A loader's worker hands its error on with the traceback in front of the message.
        last = super().__str__().strip().splitlines()[-1]
        return last.removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not there, with the near ones, or all of them."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    return UserError(f"unknown {kind} '{name}': {hint}")
