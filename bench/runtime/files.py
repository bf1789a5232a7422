"""Files that appear whole or not at all, and files that are what they were."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from bench.runtime.fingerprint import file_digest

PACKAGE = "package:"  # package:NAME/FILE: a name that fits every machine


def atomic_write(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new one, never half.

    A temporary file beside it is flushed to the disk and then renamed.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


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
