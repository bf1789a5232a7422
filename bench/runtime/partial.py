"""Partial files and folders: locked by the process that writes them, swept when none does.

A process that is killed leaves what it was writing. The lock of a file ends with its process, so
whoever gets the lock of a partial file may remove it.
"""

from __future__ import annotations

import multiprocessing.util
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO

from bench.errors import UserError
from bench.runtime import signals

if sys.platform != "win32":
    import fcntl

OWN = "ssl-gap"  # a file in multiprocessing's temporary folder that says whose it is
# Bytes of TMPDIR: a socket's name has 107 (unix(7)), of which multiprocessing's own parts take 31.
LONGEST_FOLDER = 75
PARTIAL_FILES = ".*.partial"
PARTIAL_FOLDERS = "partial-*"
TEMPORARY_FOLDERS = "pymp-*"  # multiprocessing's name, of any Python program


def open_partial(path: Path) -> BinaryIO:
    """A new file beside a path, `.NAME.` and letters and `.partial`, locked until it is closed.

    The letters are random: on one file system, processes of several machines may have one number.
    """
    _sweep_once(path.parent)
    while True:
        partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:16]}.partial")
        stream = partial.open("xb")
        _lock(stream.fileno(), wait=True)
        if _is_at(stream.fileno(), partial):
            return stream
        stream.close()  # swept between opening and locking


@contextmanager
def partial_folder(target: Path) -> Iterator[Path]:
    """A new folder beside `target`, locked; it becomes `target` unless an error is raised.

    The name of the new folder is `partial-TARGET-` and random letters.
    """
    _sweep_once(target.parent)
    partial, descriptor = _make_locked_folder(target)
    try:
        yield partial
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _make_locked_folder(target: Path) -> tuple[Path, int | None]:
    """A new partial folder, and the descriptor that keeps its lock; None on Windows."""
    while True:
        partial = Path(tempfile.mkdtemp(prefix=f"partial-{target.name}-", dir=target.parent))
        try:
            descriptor = _open_and_lock(partial, wait=True)
        except FileNotFoundError:
            continue  # swept before it was opened
        if descriptor is None or _is_at(descriptor, partial):
            return partial, descriptor
        os.close(descriptor)


def sweep_cache(cache_folder: Path) -> None:
    """Remove what killed runs left in the cache's folders and among the temporary files."""
    with suppress(OSError):  # there is none, or nobody may read it
        for folder in cache_folder.iterdir():
            if folder.is_dir():
                sweep(folder)
    for folder in Path(tempfile.gettempdir()).glob(TEMPORARY_FOLDERS):
        with suppress(OSError):  # the folder of another user
            if (folder / OWN).exists():
                _remove_if_unlocked(folder)


def sweep(folder: Path) -> None:
    """Remove the partial files and folders that no process writes, directly in a folder."""
    for pattern in (PARTIAL_FILES, PARTIAL_FOLDERS):
        for path in folder.glob(pattern):
            _remove_if_unlocked(path)


@cache
def _sweep_once(folder: Path) -> None:
    sweep(folder)


def _remove_if_unlocked(path: Path) -> None:
    with suppress(OSError):  # another process sweeps too, or nobody may
        descriptor = _open_and_lock(path, wait=False)
        if descriptor is None:
            return
        try:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A temporary folder that is removed at the end, or swept if the process is killed."""
    claim_temporary_folder()
    parent = multiprocessing.util.get_temp_dir()
    with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@cache
def claim_temporary_folder() -> None:
    """Mark and lock this process's temporary folder of multiprocessing; its children use it too.

    The process removes it at its end. If the process is killed, `sweep_cache` of a later one does.

    Raises:
        UserError: its name would be too long for sockets.
    """
    parent = tempfile.gettempdir()
    if sys.platform != "win32" and len(os.fsencode(parent)) > LONGEST_FOLDER:
        raise UserError(
            f"TMPDIR={parent}: is too long for the sockets of worker processes (more than "
            f"{LONGEST_FOLDER} bytes); set TMPDIR=/tmp"
        )
    folder = Path(multiprocessing.util.get_temp_dir())
    _open_and_lock(folder, wait=True)  # never closed: the lock lasts as long as the process
    (folder / OWN).touch()  # last: a marked folder that is not locked may be swept
    owner = os.getpid()
    signals.clean_at_end(lambda: _remove_own(folder, owner))


def _remove_own(folder: Path, owner: int) -> None:
    """Remove a folder in the process that made it; one that it forked leaves it."""
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _open_and_lock(path: Path, wait: bool) -> int | None:
    """Open and lock a file or folder; None if another process has it, or on Windows."""
    if sys.platform == "win32":
        return None
    descriptor = os.open(path, os.O_RDONLY)
    if _lock(descriptor, wait) or wait:
        return descriptor
    os.close(descriptor)
    return None


def _lock(descriptor: int, wait: bool) -> bool:
    """Lock what is open; whether that succeeded. Some file systems have no locks."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether a path still names what is open."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
