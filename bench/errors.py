"""The exception that a user's mistake raises, and that of a run that was stopped."""

from __future__ import annotations

import difflib
import errno
import os
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pydantic import ValidationError

TRACEBACK = re.compile(r".*Traceback.*\(most recent call last\):")
NAMED = re.compile(r"[\w.]*(Error|Exception)(: |$)")  # a line that begins with its exception's type
# What torch says of files that processes share. The shared memory of a GPU is another one.
SHARED_MEMORY = re.compile(
    r"shared memory object|shared memory\(shm\)|dataloader's workers are out of shared memory|"
    r"killed by signal: Bus error|file </?torch_|/dev/shm"
)
SHARED_MODULES = ("multiprocessing/synchronize.py", "multiprocessing/shared_memory.py")
FULL_SHARED_MEMORY = (
    "shared memory (/dev/shm) is full; give it more: docker run --shm-size=8g, or "
    "mount -o remount,size=8g /dev/shm"
)
IN_THE_WAY = {
    errno.EISDIR: "a folder is where a file should be: move it away",
    errno.ENOTDIR: "a file is where a folder should be: move it away",
    errno.EROFS: "use a folder that can be written",
}
FULL = (errno.ENOSPC, errno.EDQUOT)
TOO_LARGE = os.strerror(errno.EFBIG)
LIMITED = f"{TOO_LARGE}: files may not become so large here; raise the limit (ulimit -f)"
LOST = re.compile(r"killed by signal: Killed|process pool was terminated abruptly")
LONGEST = 100_000  # characters of an exception's text that are kept
SHOWN = 40  # characters up to which a wrong value is quoted


class UserError(Exception):
    """A mistake in the request, the data or the machine's set-up, that the user can fix.

    Its message is one line: what is wrong, where (file, key or image), and what to do. The
    command line prints it without a traceback and exits with status 2; inside a cell it becomes
    the record's `error`.
    """

    def __init__(self, text: str = "") -> None:
        # A loader's worker hands its error on with the traceback in front of the message.
        super().__init__(text if TRACEBACK.search(text) else _printable(text))

    def __str__(self) -> str:
        lines = super().__str__().strip().splitlines() or ["no message"]
        line = lines[-1].removeprefix(f"{UserError.__module__}.{UserError.__name__}: ")
        return _printable(line)


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


def printable(value: Any) -> Any:
    """Tables, lists and values, each text of them with nothing that a terminal does not show."""
    return each_text(value, lambda text: text if text.isprintable() else one_line(text))


def each_text(value: Any, change: Callable[[str], str]) -> Any:
    """Tables, lists and values, with each text and each key changed."""
    if isinstance(value, dict):
        return {change(str(key)): each_text(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [each_text(item, change) for item in value]
    return change(value) if isinstance(value, str) else value


def _printable(text: str) -> str:
    """Text with what a terminal does not show as escape sequences."""
    shown = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(shown)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the file system name this path where it names none, as in writing."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def message(error: BaseException) -> str:
    """What an exception says, in one line: its first, and its type where that names none."""
    return explanation(error) or _with_type(error)


def explanation(error: BaseException) -> str:
    """The line about an exception that a user, a disk or the machine causes; empty for others."""
    if isinstance(error, UserError):
        return str(error)
    chain = list(_chain(error))
    if any(map(_is_full_shared_memory, chain)):
        return LIMITED if any(TOO_LARGE in text_of(each) for each in chain) else FULL_SHARED_MEMORY
    if isinstance(error, OSError):
        return _of_file_system(error)
    lost = [each for each in chain if isinstance(each, MemoryError) or LOST.search(text_of(each))]
    if lost:
        return f"{_with_type(lost[0])}; too little memory ends processes, see how much is free"
    if isinstance(error, ImportError | UnicodeError | RecursionError):
        return _with_type(error)
    return ""


def all_lines(error: BaseException) -> list[str]:
    """Every line of what an exception says, if there are several."""
    if isinstance(error, UserError):
        return []
    text = text_of(error).strip().encode("utf-8", "backslashreplace").decode()
    lines = text[:LONGEST].splitlines()
    return lines if len(lines) > 1 else []


def text_of(error: BaseException) -> str:
    """The text of an exception; of one that cannot say it, why not."""
    try:
        return str(error)
    except Exception as other:  # whatever somebody's `__str__` raises
        return f"has no text ({type(other).__name__})"


def _with_type(error: BaseException) -> str:
    first = _first_line(text_of(error))
    if NAMED.match(first):
        return first
    return f"{type(error).__name__}: {first or 'no message'}"


def _first_line(text: str) -> str:
    """The first line of an exception's text, of the exception itself.

    Loaders and TorchScript put a traceback in front of it.
    """
    given = [line for line in text.splitlines() if line.strip()]
    starts = [index for index, line in enumerate(given) if TRACEBACK.fullmatch(line)]
    if starts:
        after = [line for line in given[starts[-1] + 1 :] if not line[0].isspace()]
        given = after or given[:1]
    first = one_line(given[0]) if given else ""
    if first.endswith(":") and len(given) > 1:
        first = f"{first} {one_line(given[1])}"  # a heading alone says nothing
    return first


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that it was raised from, or while handling which."""
    seen: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in seen:
        yield following
        seen.append(following)
        following = following.__cause__ or following.__context__


def _is_full_shared_memory(error: BaseException) -> bool:
    text = text_of(error)
    if "Too many open files" in text:
        return False
    if isinstance(error, OSError) and error.errno in FULL and error.filename is None:
        frames = traceback.extract_tb(error.__traceback__)
        return any(frame.filename.endswith(SHARED_MODULES) for frame in frames)
    return bool(SHARED_MEMORY.search(text))


def _of_file_system(error: OSError) -> str:
    """The file, where it is known, and what is wrong with it."""
    reason = error.strerror or _with_type(error)
    if error.errno in IN_THE_WAY:
        reason = f"{reason}; {IN_THE_WAY[error.errno]}"
    if error.errno in FULL:
        reason = f"the disk is full ({reason}); free some space and run again"
    file = error.filename
    if isinstance(file, bytes):
        file = os.fsdecode(file)
    return one_line(reason if file is None else f"{file}: {reason}")


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
