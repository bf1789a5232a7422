"""Claims on work that several machines share: a file each, alive while its heartbeat is young.

A claim is made by exclusive creation, which file systems of networks have, too; no lock is used.
Its holder writes it again every few seconds. A claim that was not written for as long as it says
is taken over. Ages are differences of two dates of the file system: clocks of machines differ.

A takeover creates the claim's next generation, which one worker alone can. So a worker that ends
at any moment, also within a takeover, leaves only a claim that becomes old. The newest generation
counts. A worker that was paused until its claim was taken over is told so by its next heartbeat.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from bench.errors import UserError, one_line
from bench.runtime import regular
from bench.runtime.progress import Stage

Progress = tuple[str, Stage]  # a cell that is at work, and how far it is

FOLDER = "claims"  # of a suite's records
BEAT = 30.0  # seconds between two heartbeats, at most
BEATS = 4  # heartbeats, at least, before a claim is old
STALE = 600  # seconds without a heartbeat after which a claim is taken over, by default
LONGEST = 24 * 3600  # the same, at most
SIZE = 4096  # bytes of a claim, which is written in place; spaces fill them

Line = Annotated[str, Field(max_length=1000), AfterValidator(one_line)]


class Holder(BaseModel):
    """The content of a claim's file.

    Attributes:
        host: its machine's name.
        pid: its process there; 0 of a claim that cannot be read.
        token: no other claim has it.
        started: when it was made, by the file system's clock.
        stale_after: seconds without a heartbeat after which it may be taken over.
        cell: that is at work; empty before and between cells.
        stage: how far that cell is.
    """

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    host: Line = "an unknown machine"
    pid: int = 0
    token: Line = ""
    started: float = 0.0
    stale_after: Annotated[float, Field(gt=0, le=LONGEST)] = STALE
    cell: Line = ""
    stage: Stage = Stage()

    def __str__(self) -> str:
        return f"{self.host} pid {self.pid}" if self.pid else self.host


@dataclass(frozen=True)
class Claim:
    """The newest generation of a claim.

    Attributes:
        name: of what is claimed.
        generation: how often it was taken over.
        holder: who has it.
        age: seconds since its last heartbeat.
        held: seconds since it was made.
    """

    name: str
    generation: int
    holder: Holder
    age: float
    held: float

    @property
    def is_alive(self) -> bool:
        """Whether its holder is at work. A date in the future is no heartbeat either."""
        return abs(self.age) <= self.holder.stale_after


def read(folder: Path) -> dict[str, Claim]:
    """The claims in a folder, by name; of each the newest generation."""
    generations = _generations(folder)
    now = _now(folder) if generations else 0.0
    claims = (_read(folder, name, max(known), now) for name, known in generations.items())
    return {claim.name: claim for claim in claims if claim}


def _generations(folder: Path) -> dict[str, list[int]]:
    """The generations of every claim, by name."""
    found: dict[str, list[int]] = {}
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            name, _, generation = path.name.rpartition(".")
            if name and generation.isdecimal():
                found.setdefault(name, []).append(int(generation))
    return dict(sorted(found.items()))


def _path(folder: Path, name: str, generation: int) -> Path:
    return folder / f"{name}.{generation}"


def _now(folder: Path) -> float:
    """The file system's time, by which it dates files: that of a new file."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".clock-") as file:
            os.utime(file.name)
            return Path(file.name).stat().st_mtime
    except OSError:  # of a folder in which one may only read
        return time.time()


def _read(folder: Path, name: str, generation: int, now: float) -> Claim | None:
    """One claim; None if it was released meanwhile."""
    path = _path(folder, name, generation)
    holder = Holder()  # of a claim that is being made, or damaged
    try:
        with suppress(ValidationError):
            holder = Holder.model_validate_json(regular.read(path, SIZE))
        written = path.stat().st_mtime
    except (UserError, OSError):
        if not os.path.lexists(path):
            return None
        written = path.lstat().st_mtime
    return Claim(name, generation, holder, now - written, now - (holder.started or written))


class Claims:
    """The claims of this process; a thread sends their heartbeats.

    Args:
        folder: of the claims; made when the first one is.
        stale_after: seconds without a heartbeat after which others may take a claim over.
        progress: the cell of a claim that is at work, if any, by the claim's name.
        lost: called, in another thread, with the claim that took the place of one of these.
    """

    def __init__(
        self,
        folder: Path,
        stale_after: float,
        progress: Callable[[str], Progress | None],
        lost: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._stale_after = stale_after
        self._progress = progress
        self._lost = lost
        self._held: dict[str, tuple[int, Holder]] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release every claim: what is not finished is for others."""
        self._over.set()
        for name in list(self._held):
            self.release(name)

    def take(self, name: str) -> bool:
        """Claim something, or take an old claim on it over; whether that succeeded.

        Raises:
            UserError: the folder cannot be written.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            return self._take(name)
        except OSError as error:
            raise UserError(f"{self._folder}: cannot be written ({error.strerror})") from None

    def _take(self, name: str) -> bool:
        previous = read(self._folder).get(name)
        if previous and previous.is_alive:
            return False
        generation = previous.generation + 1 if previous else 0
        path = _path(self._folder, name, generation)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        try:
            holder = Holder(
                host=socket.gethostname(),
                pid=os.getpid(),
                token=uuid.uuid4().hex,
                started=os.fstat(descriptor).st_mtime,
                stale_after=self._stale_after,
            )
            os.write(descriptor, _content(holder))
        finally:
            os.close(descriptor)
        if not self._is_newest(name, generation, previous):
            path.unlink(missing_ok=True)
            return False
        self._held[name] = generation, holder
        return True

    def _is_newest(self, name: str, generation: int, previous: Claim | None) -> bool:
        """Whether no other worker claimed and released between a look and the new claim."""
        if max(_generations(self._folder).get(name, [0])) > generation:
            return False
        if previous is None:
            return True
        now = _read(self._folder, name, previous.generation, 0.0)
        return now is not None and now.holder.token == previous.holder.token

    def release(self, name: str) -> None:
        """Remove a claim of this process, the generations before it first."""
        with self._lock:
            held = self._held.pop(name, None)
            if held is None:
                return
            for generation in sorted(_generations(self._folder).get(name, [])):
                if generation <= held[0]:
                    with suppress(OSError):  # it becomes old
                        _path(self._folder, name, generation).unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._over.wait(min(BEAT, self._stale_after / BEATS)):
            for name in list(self._held):
                with self._lock:
                    holds = self._renew(name)
                if not holds:
                    self._lost(name)

    def _renew(self, name: str) -> bool:
        """Write a claim again, in place; whether it is still there and the newest one."""
        if name not in self._held:
            return True  # released meanwhile
        generation, holder = self._held[name]
        try:
            known = _generations(self._folder).get(name, [])
            if known and max(known) == generation:
                # Without O_CREAT: what was removed stays so.
                descriptor = os.open(_path(self._folder, name, generation), os.O_WRONLY)
                try:
                    os.write(descriptor, self._content(name, holder))
                finally:
                    os.close(descriptor)
                return True
        except FileNotFoundError:
            pass
        except OSError:
            return True  # the file system does not answer; the next heartbeat tries again
        del self._held[name]
        return False

    def _content(self, name: str, holder: Holder) -> bytes:
        """A claim's file with how far its work is; without, where that is no text or too long."""
        with suppress(Exception):  # whatever somebody's stage says, the worker lives
            cell, stage = self._progress(name) or ("", Stage())
            content = _content(holder.model_copy(update={"cell": cell, "stage": stage}))
            if len(content) == SIZE:
                return content
        return _content(holder)


def _content(holder: Holder) -> bytes:
    """A claim's file, of always the same size: readers see the old one or the new one."""
    return holder.model_dump_json().encode().ljust(SIZE)
