"""Names of very many files: one block of memory, which processes share, and no list of strings."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

CHUNK = 4096  # names that are decoded at a time


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
        for first in range(0, len(self), CHUNK):
            ends = self.ends[first : first + CHUNK].tolist()
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
