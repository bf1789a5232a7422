"""Files that appear whole or not at all, and files that are what they were."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import BinaryIO

import filelock

from bench.errors import UserError, naming
from bench.runtime import regular
from bench.runtime.fingerprint import file_digest
from bench.runtime.partial import open_partial

MARK = b"\nsha256 "  # between the content of a file in the cache and its digest
NOTICE_SECONDS = 5.0  # after which a run says that it waits for another one
DIGITS = 64  # of the digest, hexadecimal
LARGEST = 2**34  # bytes of a file in the cache
PACKAGE = "package:"  # package:NAME/FILE: a name that fits every machine


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other runs from what a lock file guards; one that waits long says so on stderr."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=NOTICE_SECONDS)
    except filelock.Timeout:
        say_on_stderr(f"{path}: another run holds it; waiting for that run")
        lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):  # as of a file system that went away: the lock goes with it
            lock.release()


def atomic_write(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new one, never half.

    A temporary file beside it is flushed to the disk and then renamed.

    Args:
        path: of the file.
        parts: of its content, in order.
    """
    stream = open_partial(path)
    partial = Path(stream.name)
    try:
        with naming(path), stream:
            stream.writelines(parts)
            flush_to_disk(stream)
            if sys.platform != "win32":  # which renames closed files alone
                partial.replace(path)
        if sys.platform == "win32":
            partial.replace(path)
    finally:
        with suppress(OSError):  # swept later; what happened before is what counts
            partial.unlink(missing_ok=True)


def flush_to_disk(stream: BinaryIO) -> None:
    """Return when a file's content is on the disk."""
    stream.flush()
    os.fsync(stream.fileno())


def say_on_stderr(text: str) -> None:
    """Print one line on stderr, where there is no reporter."""
    print(text, file=sys.stderr, flush=True)


def write_cached(path: Path, content: bytes | memoryview) -> None:
    """Write a file of the cache, the SHA-256 of its name and content at its end, atomically.

    Its folder is made if it is missing.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, content, MARK, _seal(path, content))


def _seal(path: Path, content: bytes | memoryview) -> bytes:
    """Digest of a file's name and content: a file under another one's name is damaged, too."""
    digest = hashlib.sha256(os.fsencode(path.name) + b"\0")
    digest.update(content)
    return digest.hexdigest().encode()


def read_cached(path: Path, say: Callable[[str], None] = say_on_stderr) -> bytes | None:
    """The content of a file that `write_cached` wrote; None if it has to be computed anew.

    Args:
        path: of the file.
        say: prints the line that names a damaged file.
    """
    if not os.path.lexists(path):
        return None
    try:
        raw = regular.read(path, LARGEST)
    except UserError as error:
        say(f"{error}; it is computed anew")
        return None
    length = len(raw) - len(MARK) - DIGITS
    content = raw[: max(0, length)]
    if raw[len(content) :] != MARK + _seal(path, content):
        say(damaged(path))
        return None
    return content


def damaged(path: Path) -> str:
    """The line about a file of the cache that is not what was written."""
    return f"{path}: is damaged or of an older format; it is computed anew"


def package_file(package: str, path: Path) -> str:
    """The name that records give a file of an installed package: `package:NAME/FILE`."""
    root = Path(str(distribution(package).locate_file("")))
    return f"{PACKAGE}{package}/{path.resolve().relative_to(root.resolve()).as_posix()}"


def locate(name: str) -> Path | None:
    """The file of a name as records have it; None if it is not on this machine."""
    path = Path(name)
    if name.startswith(PACKAGE):
        package, _, inside = name.removeprefix(PACKAGE).partition("/")
        try:
            path = Path(str(distribution(package).locate_file(inside)))
        except PackageNotFoundError:
            return None
    return path if path.is_file() else None


def same_files(digests: Mapping[str, str]) -> bool:
    """Whether files still have the content that they had; one that is gone cannot tell.

    Args:
        digests: name -> SHA-256.
    """
    located = {name: locate(name) for name in digests}
    return all(path is None or file_digest(path) == digests[n] for n, path in located.items())
