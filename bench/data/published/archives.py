"""Archives of other people, unpacked so that nothing gets outside of the target.

Refused by name: members with absolute names or `..`, links, devices and pipes, encrypted ones, a
name that comes twice, and archives that unpack to more than stated.
"""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

from bench.data.published.catalog import Archive
from bench.errors import SHOWN, UserError, one_line

BLOCK = 512  # bytes that a member counts at least, so that empty ones have an end too
ENCRYPTED = 0x1  # bit of a zip member's general purpose flags
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError)


class _MemberError(Exception):
    """What is wrong with an archive, in words that follow its path."""


@dataclass(frozen=True)
class _Member:
    """A regular file in an archive.

    Attributes:
        name: its path there.
        size: bytes.
        open: gives its content.
    """

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(archive: Archive, path: Path, folder: Path, advance: Callable[[int], None]) -> None:
    """Unpack the members that the catalog names, each to its path there.

    Args:
        archive: names the members and says what they unpack to.
        path: of the archive, a tar file of any compression or a zip file.
        folder: to unpack to; what is there is left in it when an error is raised.
        advance: called with the bytes of each file.

    Raises:
        UserError: the archive is damaged or refused; one line that names it.
    """
    patterns = [(re.compile(pattern), target) for pattern, target in archive.members]
    total = 0
    try:
        with _members(path) as members:
            for member in members:
                _check_name(member.name)
                target = _target(member.name, patterns)
                total += BLOCK if target is None else max(member.size, BLOCK)
                if total > archive.unpacked:
                    raise _MemberError(f"unpacks to more than {archive.unpacked:,} bytes")
                if target is not None:
                    _write(member, folder / target)
                    advance(member.size)
    except _MemberError as problem:
        raise UserError(f"{path}: refused, {problem}") from None
    except DAMAGED as error:
        raise UserError(f"{path}: is damaged ({one_line(str(error))}); remove it") from None


def _target(name: str, patterns: list[tuple[re.Pattern[str], str]]) -> PurePosixPath | None:
    """Where a member goes, below the folder; None if it is left out."""
    for pattern, target in patterns:
        match = pattern.fullmatch(name)
        if match:
            return PurePosixPath(match.expand(target))
    return None


def _check_name(name: str) -> None:
    """Refuse a path that could lead out of a folder, on any system."""
    if "\0" in name:
        raise _MemberError(f"a member has a name that no file can have ({_short(name)})")
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.anchor:
            raise _MemberError(f"a member has an absolute name ({_short(name)})")
        if ".." in path.parts:
            raise _MemberError(f"a member has '..' in its name ({_short(name)})")


def _write(member: _Member, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, path.open("xb") as target:
            shutil.copyfileobj(source, target)
    except (FileExistsError, NotADirectoryError):
        raise _MemberError(f"has two members {_short(member.name)}") from None


@contextmanager
def _members(path: Path) -> Iterator[Iterator[_Member]]:
    """The regular files of an archive, which are checked one after another."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield _zip_members(archive)
    else:
        with tarfile.open(path) as archive:
            yield _tar_members(archive)


def _tar_members(archive: tarfile.TarFile) -> Iterator[_Member]:
    for entry in archive:
        if entry.issym() or entry.islnk():
            raise _MemberError(f"a member is a link ({_short(entry.name)})")
        if entry.isreg():
            yield _Member(entry.name, entry.size, partial(_tar_content, archive, entry))
        elif entry.isdir():
            _check_name(entry.name)
        else:
            raise _MemberError(f"a member is a device or a pipe ({_short(entry.name)})")


def _tar_content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(entry)
    assert content is not None  # of a regular file
    return content


def _zip_members(archive: zipfile.ZipFile) -> Iterator[_Member]:
    for entry in archive.infolist():
        kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the file system had none
        if kind == stat.S_IFLNK:
            raise _MemberError(f"a member is a link ({_short(entry.filename)})")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _MemberError(f"a member is a device or a pipe ({_short(entry.filename)})")
        if entry.flag_bits & ENCRYPTED:
            raise _MemberError(f"a member is encrypted ({_short(entry.filename)})")
        if entry.is_dir():
            _check_name(entry.filename)
        else:
            yield _Member(entry.filename, entry.file_size, partial(archive.open, entry))


def _short(name: str) -> str:
    """A member's name of any content, as a message has it."""
    line = one_line(name)
    return line if len(line) <= 2 * SHOWN else f"{line[: 2 * SHOWN]}..."
