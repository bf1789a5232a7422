"""Manifests: what reading the files of a folder once has told, kept in the cache.

A start lists the files and asks the file system for their sizes, times and inodes. Where all are as
they were, the manifest has the rest, and no file is read. Otherwise what changed is read.

Names of very many files are one block of memory, which processes share, and no list of strings.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from bench.runtime.files import locked, read_cached, write_cached
from bench.runtime.fingerprint import digest

VERSION = 1  # raise when an inspection of the same file may tell something else
THREADS = 8
DECODED = 4096  # names at a time
CHUNK = 8192  # files that are inspected before more are queued
STATS = 5  # of a file: size, mtime, ctime (both ns), inode, and 1; all 0 where there is no file
MARGIN = 2 * 10**9  # ns; times of files are as coarse as that (FAT)
KEPT = 8  # manifests of a folder: its splits, and those of before a change
KINDS = {"U8": np.uint8, "I32": np.int32, "I64": np.int64}  # of safetensors
HEADER = 8  # bytes of a safetensors file that have the length of its header


class FileNames(Sequence[str]):
    """A sequence of file names.

    Args:
        block: uint8 (B,), the names one after the other, in the file system's encoding.
        ends: int64 (N,), where each ends in the block.
        reopen: makes the same names in another process, where both arrays are mapped from a file.
    """

    def __init__(
        self,
        block: NDArray[np.uint8],
        ends: NDArray[np.int64],
        reopen: tuple[Callable[..., FileNames], tuple[Any, ...]] | None = None,
    ) -> None:
        self.block = block
        self.ends = ends
        self._reopen = reopen

    @classmethod
    def of(cls, names: Iterable[str]) -> FileNames:
        """The same names in this form."""
        if isinstance(names, FileNames):
            return names
        builder = Builder()
        for name in names:
            builder.append(name)
        return builder.names()

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self[position] for position in range(*index.indices(len(self))))
        position = range(len(self))[index]
        start = self.ends[position - 1] if position else 0
        return os.fsdecode(self.block[start : self.ends[position]].tobytes())

    def __iter__(self) -> Iterator[str]:
        start = 0
        for first in range(0, len(self), DECODED):
            ends = self.ends[first : first + DECODED].tolist()
            content = self.block[start : ends[-1]].tobytes()
            offset = start
            for end in ends:
                yield os.fsdecode(content[start - offset : end - offset])
                start = end

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FileNames):
            return np.array_equal(self.ends, other.ends) and np.array_equal(self.block, other.block)
        if isinstance(other, Sequence):
            return len(self) == len(other) and all(map(str.__eq__, self, other))
        return NotImplemented

    def __hash__(self) -> int:
        return hash((len(self), self.block.tobytes()))

    def __repr__(self) -> str:
        return f"FileNames({len(self):,} names)"

    def __reduce__(self) -> tuple[Callable[..., FileNames], tuple[Any, ...]]:
        return self._reopen or (FileNames, (np.asarray(self.block), np.asarray(self.ends)))

    def take(self, positions: Iterable[int]) -> FileNames:
        """The names at some positions, in that order."""
        return FileNames.of(self[int(position)] for position in positions)


class Builder:
    """Collects names into a `FileNames`."""

    def __init__(self) -> None:
        self._block = bytearray()
        self._ends = array("q")

    def append(self, name: str) -> None:
        """Add a name at the end."""
        self._block += os.fsencode(name)
        self._ends.append(len(self._block))

    def names(self) -> FileNames:
        """What was added; the builder is used up."""
        block = np.frombuffer(self._block, np.uint8)
        ends = np.frombuffer(self._ends, np.int64) if self._ends else np.empty(0, np.int64)
        return FileNames(block, ends)


@dataclass(frozen=True)
class Inspection:
    """One file: SHA-256, width and height as stored, EXIF orientation; or what is wrong with it."""

    content: str = ""
    size: tuple[int, int] = (0, 0)
    orientation: int = 0
    problem: str = ""


@dataclass(frozen=True)
class Inspections:
    """Those of many files, in order.

    Attributes:
        names: paths of the files below their folder.
        contents: uint8 (N, 32), SHA-256 of each; zeros where there is a problem.
        sizes: int32 (N, 2), width and height as stored, pixels.
        orientations: uint8 (N,), the EXIF orientation; 0 where there is none.
        fingerprint: SHA-256 of the names and contents of all files without a problem.
        problems: what is wrong, by position.
    """

    names: FileNames
    contents: NDArray[np.uint8]
    sizes: NDArray[np.int32]
    orientations: NDArray[np.uint8]
    fingerprint: str = ""
    problems: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of_none(cls, names: FileNames) -> Inspections:
        """A place for those of some files."""
        count = len(names)
        return cls(
            names,
            np.zeros((count, 32), np.uint8),
            np.zeros((count, 2), np.int32),
            np.zeros(count, np.uint8),
        )

    def without_problems(self) -> NDArray[np.int64]:
        """The positions of the files that nothing is wrong with."""
        return np.setdiff1d(np.arange(len(self.names)), np.array([*self.problems], np.int64))


def inspections(
    root: Path,
    names: FileNames,
    inspect: Callable[[str], Inspection],
    advance: Callable[[int], None],
    manifests: Path | None,
) -> Inspections:
    """What reading each file tells; of those that the manifest knows, without reading them.

    A file that is written while it is read, or within two seconds before that, is read at the next
    start again. One with a problem is read at every start.

    Args:
        root: the folder of the files.
        names: their paths below it.
        inspect: reads a file.
        advance: called with the number of files that are done.
        manifests: the folder of manifests; None to read every file.
    """
    if manifests is None:
        return _with_fingerprint(
            _read(Inspections.of_none(names), range(len(names)), inspect, advance)
        )
    folder = manifests / digest([VERSION, str(root.resolve())])[:24]
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "lock"):
        return _Manifests(folder, root, names).inspections(inspect, advance)


class _Manifests:
    """The manifests of a folder, and a listing of its files as they are now."""

    def __init__(self, folder: Path, root: Path, names: FileNames) -> None:
        self._folder = folder
        self._names = names
        self._started = time.time_ns()
        self._stats = _stats(root, names)
        listing = hashlib.blake2b(digest_size=16)
        for part in (names.block, names.ends, self._stats):
            listing.update(np.ascontiguousarray(part).data)
        self._path = folder / f"{listing.hexdigest()}.manifest"

    def inspections(
        self, inspect: Callable[[str], Inspection], advance: Callable[[int], None]
    ) -> Inspections:
        """From a manifest of the same listing, or from others and by reading."""
        known = _load(self._path)
        if known is None:
            result, unknown = self._from_others()
            advance(len(self._names) - len(unknown))
            return self._keep(_read(result, unknown, inspect, advance))
        os.utime(self._path)  # the least recently used are removed
        result, read_at = known
        young = self._stats[:, 1:3].max(1, initial=0) >= read_at - MARGIN
        unread = np.flatnonzero(young | ~result.contents.any(1)).tolist()
        advance(len(self._names) - len(unread))
        if not unread:
            return result
        changed = _read(_writable(result), unread, inspect, advance)
        if young.any() or len(changed.problems) < len(unread):
            return self._keep(changed)
        return Inspections(**{**vars(result), "problems": changed.problems})

    def _keep(self, result: Inspections) -> Inspections:
        """Write a manifest and return what it has, mapped into memory."""
        result = _with_fingerprint(result)
        arrays: dict[str, np.ndarray] = {
            "block": np.asarray(result.names.block),
            "ends": np.asarray(result.names.ends),
            "stats": self._stats,
            "contents": np.asarray(result.contents),
            "sizes": np.asarray(result.sizes),
            "orientations": np.asarray(result.orientations),
        }
        about = {"fingerprint": result.fingerprint, "read_at": str(self._started)}
        write_cached(self._path, save(arrays, about))
        old = sorted(self._folder.glob("*.manifest"), key=lambda path: path.stat().st_mtime)
        for path in old[:-KEPT]:
            path.unlink(missing_ok=True)
        loaded = _load(self._path)
        assert loaded is not None
        return Inspections(**{**vars(loaded[0]), "problems": result.problems})

    def _from_others(self) -> tuple[Inspections, list[int]]:
        """What manifests of other listings know of the files, and the positions that none knows."""
        result = Inspections.of_none(self._names)
        unknown = dict(
            zip(_identities(self._names, self._stats), range(len(self._names)), strict=True)
        )
        for path in self._folder.glob("*.manifest"):
            loaded = _load(path)
            if loaded is None:
                continue
            other, read_at = loaded
            stats = _mapped(path)["stats"]
            usable = (stats[:, 1:3].max(1, initial=0) < read_at - MARGIN) & other.contents.any(1)
            for position, identity in enumerate(_identities(other.names, stats)):
                if usable[position] and identity in unknown:
                    mine = unknown.pop(identity)
                    result.contents[mine] = other.contents[position]
                    result.sizes[mine] = other.sizes[position]
                    result.orientations[mine] = other.orientations[position]
        return result, sorted(unknown.values())


def _stats(root: Path, names: FileNames) -> NDArray[np.int64]:
    """Size, times and inode of each file, int64 (N, STATS)."""
    stats = array("q")
    prefix = f"{root}/"
    for name in names:
        try:
            status = os.stat(prefix + name)  # noqa: PTH116 - a million Paths take seconds
        except (OSError, ValueError):
            stats.extend((0,) * STATS)  # reading it tells what is wrong
            continue
        times = (status.st_mtime_ns, status.st_ctime_ns)
        stats.extend((status.st_size, *times, status.st_ino, 1))
    return np.array(stats, np.int64).reshape(len(names), STATS)


def _identities(names: FileNames, stats: NDArray[np.int64]) -> Iterable[bytes]:
    """A digest of name and stats for each file."""
    for name, row in zip(names, stats, strict=True):
        yield hashlib.blake2b(os.fsencode(name) + b"\0" + row.tobytes(), digest_size=16).digest()


def _read(
    result: Inspections,
    positions: Iterable[int],
    inspect: Callable[[str], Inspection],
    advance: Callable[[int], None],
) -> Inspections:
    """Inspect the files at some positions and fill in what that tells."""
    positions = list(positions)
    problems = dict(result.problems)
    with ThreadPoolExecutor(THREADS) as pool:
        for first in range(0, len(positions), CHUNK):
            part = positions[first : first + CHUNK]
            names = [result.names[position] for position in part]
            for position, one in zip(part, pool.map(inspect, names), strict=True):
                advance(1)
                problems.pop(position, None)
                if one.problem:
                    problems[position] = one.problem
                result.contents[position] = bytearray.fromhex(one.content or "00" * 32)
                result.sizes[position] = one.size
                result.orientations[position] = one.orientation
    return Inspections(**{**vars(result), "problems": dict(sorted(problems.items()))})


def _with_fingerprint(result: Inspections) -> Inspections:
    """The same with the digest of names and contents, as `digest([names, contents])` has it."""
    kept = result.without_problems()
    state = hashlib.sha256(b"[[")
    for order, position in enumerate(kept):
        name = json.dumps(result.names[int(position)])
        state.update(f"{',' if order else ''}{name}".encode())
    state.update(b"],[")
    for order, position in enumerate(kept):
        content = result.contents[position].tobytes().hex()
        state.update(f'{"," if order else ""}"{content}"'.encode())
    state.update(b"]]")
    return Inspections(**{**vars(result), "fingerprint": state.hexdigest()})


def _writable(result: Inspections) -> Inspections:
    """A copy in memory of what is mapped from a file."""
    arrays = {key: np.array(getattr(result, key)) for key in ("contents", "sizes", "orientations")}
    return Inspections(**{**vars(result), **arrays})


def _load(path: Path) -> tuple[Inspections, int] | None:
    """The inspections of a manifest, mapped into memory, and when they were begun (ns); or None.

    Positions without a content have problems, of which a manifest knows nothing.
    """
    content = read_cached(path)
    if content is None:
        return None
    about = _header(content)["__metadata__"]
    del content
    arrays = _mapped(path)
    result = Inspections(
        _names(path),
        arrays["contents"],
        arrays["sizes"],
        arrays["orientations"],
        about["fingerprint"],
    )
    return result, int(about["read_at"])


def _names(path: Path) -> FileNames:
    """The names of a manifest, in a process that was handed them."""
    arrays = _mapped(path)
    return FileNames(arrays["block"], arrays["ends"], (_names, (path,)))


def _mapped(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file, mapped into memory."""
    with path.open("rb") as file:
        start = file.read(HEADER)
        start += file.read(int.from_bytes(start, "little"))
    header = _header(start)
    header.pop("__metadata__")
    arrays: dict[str, np.ndarray] = {}
    for name, part in header.items():
        kind, shape = KINDS[part["dtype"]], tuple(part["shape"])
        offset = len(start) + part["data_offsets"][0]
        mapped = 0 not in shape  # nothing cannot be mapped
        arrays[name] = (
            np.memmap(path, kind, "r", offset, shape) if mapped else np.empty(shape, kind)
        )
    return arrays


def _header(content: bytes) -> dict[str, Any]:
    """The header of a safetensors file."""
    length = int.from_bytes(content[:HEADER], "little")
    header: dict[str, Any] = json.loads(content[HEADER : HEADER + length])
    return header
