"""Files that somebody else may have written: regular ones, of a size that is known beforehand."""

from __future__ import annotations

import stat
from pathlib import Path

from bench.errors import UserError


def check(path: Path, limit: int) -> int:
    """The size of a regular file, in bytes.

    Args:
        path: of the file; a link to one will do.
        limit: bytes that it may have.

    Raises:
        UserError: it is a folder, pipe or device, or is too large.
        OSError: it is not there.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path}: is not a regular file")
    if status.st_size > limit:
        raise UserError(f"{path}: has {status.st_size:,} bytes, more than {limit:,}")
    return status.st_size


def read(path: Path, limit: int) -> bytes:
    """The content of a regular file of bounded size.

    Args:
        path: of the file; a link to one will do.
        limit: bytes that it may have.

    Raises:
        UserError: it is a folder, pipe or device, is too large, or cannot be read.
    """
    try:
        size = check(path, limit)
        with path.open("rb") as stream:
            content = stream.read(size + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:  # a name that no file can have
        raise UserError(f"{str(path)!r}: is not the name of a file") from None
    if len(content) > size:  # it has grown since
        raise UserError(f"{path}: grew while it was read")
    return content
