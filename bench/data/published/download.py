"""Downloads over HTTP that resume, and are renamed only when the checksum is right.

What arrives is appended to NAME.part; NAME.part.json has its address and the server's validator
(ETag or Last-Modified). A part resumes only if the server still has the same file: `If-Range`
of RFC 9110, section 13.1.5.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from bench.data.published.catalog import Archive
from bench.errors import UserError, one_line
from bench.runtime.progress import Bar, Reporter

TIMEOUT = 60.0  # seconds without a byte
IDLE_TRIES = 3  # one after another that get no farther
WAIT = 2.0  # seconds between two tries
CHUNK = 2**20
MEGABYTE = 10**6
RETRIED = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that may pass
AGENT = "ssl-gap (https://pypi.org/project/ssl-gap)"


class UnavailableError(UserError):
    """No mirror has an archive, or there is none: it has to be put in place by hand."""


class MirrorError(Exception):
    """Why a mirror does not help, in words that follow its address."""


class _BrokenError(Exception):
    """Why a transfer ended early, though another try may go on."""


def download(archive: Archive, folder: Path, reporter: Reporter) -> Path:
    """Download an archive from the first mirror that has it, unless it is there already.

    Args:
        archive: what to download.
        folder: where to.
        reporter: says what each mirror answers, and shows the progress.

    Raises:
        UnavailableError: no mirror has it.
        UserError: the disk is full, or another file has its name.
    """
    path = folder / archive.name
    if path.exists():
        _check_present(archive, path)
        return path
    problem = "there is no mirror"
    for url in archive.urls:
        try:
            _Download(url, archive, path, reporter).run()
        except MirrorError as error:
            problem = f"{url}: {error}"
            reporter.say(problem)
        else:
            return path
    raise UnavailableError(f"{archive.name}: cannot be downloaded ({problem})")


class Megabytes:
    """A progress bar that counts bytes and shows megabytes."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._bytes = 0

    def advance(self, count: int) -> None:
        """Count `count` more bytes as done."""
        before = self._bytes // MEGABYTE
        self._bytes += count
        self._bar.advance(self._bytes // MEGABYTE - before)


@contextmanager
def megabytes(reporter: Reporter, title: str, size: int) -> Iterator[Megabytes]:
    """Show the progress of a stage of `size` bytes."""
    with reporter.stage(title, size // MEGABYTE, "MB") as bar:
        yield Megabytes(bar)


def _check_present(archive: Archive, path: Path) -> None:
    """Refuse a file that is there but is not the archive; it may be somebody's own."""
    problem = _problem(archive, path)
    if problem:
        raise UserError(f"{path}: {problem}; move it away")


def _problem(archive: Archive, path: Path) -> str:
    """In which way a file is not the archive; empty if it is."""
    size = path.stat().st_size
    if size != archive.size:
        return f"has {size:,} bytes, not {archive.size:,}"
    algorithm, _, expected = archive.checksum.partition(":")
    if not algorithm:
        return ""
    with path.open("rb") as stream:
        checksum = hashlib.file_digest(stream, algorithm).hexdigest()
    return "" if checksum == expected else f"has the {algorithm} {checksum}, not {expected}"


def check_space(folder: Path, needed: int) -> None:
    """Refuse to begin what the disk cannot hold.

    Args:
        folder: on the disk.
        needed: bytes.

    Raises:
        UserError: fewer bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        gigabytes = f"{needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free"
        raise UserError(f"{folder}: {gigabytes}; free some or use another --data-root")


def part_size(archive: Archive, folder: Path) -> int:
    """Bytes of an archive that are downloaded already."""
    for name in (archive.name, f"{archive.name}.part"):
        path = folder / name
        if path.is_file():
            return min(path.stat().st_size, archive.size)
    return 0


@dataclass
class _Download:
    """One archive from one mirror."""

    url: str
    archive: Archive
    path: Path
    reporter: Reporter

    @property
    def part(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def state(self) -> Path:
        return self.path.with_name(f"{self.path.name}.part.json")

    def run(self) -> None:
        """Download until the file is whole, check it, and give it its name.

        Raises:
            MirrorError: the mirror does not have it, or cannot be reached.
            UserError: the disk is full.
        """
        self._transfer()
        problem = _problem(self.archive, self.part)
        if problem:
            self._discard()
            raise MirrorError(f"{self.archive.name} {problem}; it was removed")
        self.part.replace(self.path)
        self.state.unlink(missing_ok=True)
        if not self.archive.checksum:
            self.reporter.say(f"{self.path}: not verified, no public source states a checksum")

    def _transfer(self) -> None:
        """Try until all bytes are there; give up when several tries got no farther than before."""
        title = f"downloading {self.archive.name}"
        with megabytes(self.reporter, title, self.archive.size) as bar:
            farthest = self._resumable()[0]
            bar.advance(farthest)
            idle = 0
            while idle < IDLE_TRIES:
                if idle:
                    time.sleep(WAIT)
                try:
                    self._try(bar)
                    return
                except _BrokenError as error:
                    problem = str(error)
                size = self.part.stat().st_size if self.part.exists() else 0
                idle = 0 if size > farthest else idle + 1
                farthest = max(farthest, size)
        hint = "; run the same command again to resume" if farthest else ""
        raise MirrorError(problem + hint)

    def _resumable(self) -> tuple[int, str]:
        """Bytes that are there, and the validator of the file that they are of; 0 if none are."""
        try:
            state = json.loads(self.state.read_text())
            size = self.part.stat().st_size
            validator = str(state["validator"]) if state["url"] == self.url else ""
        except (OSError, ValueError, LookupError, TypeError):
            return 0, ""
        return (size, validator) if validator and 0 < size <= self.archive.size else (0, "")

    def _try(self, bar: Megabytes) -> None:
        """One request, for the bytes that are missing."""
        start, validator = self._resumable()
        if start == self.archive.size:
            return
        headers = {"User-Agent": AGENT}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": validator}
        request = urllib.request.Request(self.url, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                self._receive(response, start, validator, bar)
        except urllib.error.HTTPError as error:
            self._refused(error)
        except urllib.error.URLError as error:
            problem = f"cannot be reached ({_reason(error.reason)})"
            if isinstance(error.reason, socket.gaierror):  # offline: the next try is no better
                raise MirrorError(problem) from None
            raise _BrokenError(problem) from None
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.filename:
                raise
            raise _BrokenError(f"the connection broke ({_reason(error)})") from None

    def _refused(self, error: urllib.error.HTTPError) -> None:
        """Say what an HTTP status means for the next try."""
        text = f"HTTP {error.code} ({one_line(str(error.reason))})"
        error.close()
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            self._discard()
        elif error.code not in RETRIED:
            raise MirrorError(text)
        raise _BrokenError(text)

    def _receive(self, response: Any, start: int, validator: str, bar: Megabytes) -> None:
        """Append the body to the part, which begins anew unless this is its rest."""
        headers: Message = response.headers
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            start = 0
        elif not _is_rest(headers, start, validator):
            self._discard()
            raise _BrokenError("has another file by now")
        self._check_size(headers, start)
        if not start:
            self._discard()
            state = {"url": self.url, "validator": _validator(headers)}
            self._write_state(json.dumps(state))
        size = start
        with self.part.open("ab", buffering=0) as stream:
            while chunk := response.read(CHUNK):
                size += len(chunk)
                if size > self.archive.size:
                    raise MirrorError(f"sends more than {self.archive.size:,} bytes")
                self._write(stream, chunk)
                bar.advance(len(chunk))
        if size < self.archive.size:
            raise _BrokenError(f"the connection broke (after {size:,} bytes)")

    def _check_size(self, headers: Message, start: int) -> None:
        """Refuse a file of another size before it is downloaded."""
        length = headers.get("Content-Length", "")
        if length.isdecimal() and start + int(length) != self.archive.size:
            size = start + int(length)
            raise MirrorError(f"has a file of {size:,} bytes, not {self.archive.size:,}")

    def _write_state(self, text: str) -> None:
        try:
            self.state.write_text(text)
        except OSError as error:
            raise self._disk_error(error) from None

    def _write(self, stream: io.FileIO, chunk: bytes) -> None:
        left = memoryview(chunk)
        try:
            while left:
                left = left[stream.write(left) :]
        except OSError as error:
            raise self._disk_error(error) from None

    def _disk_error(self, error: OSError) -> UserError:
        text = os.strerror(error.errno) if error.errno else str(error)
        hint = "free some space and run the same command again to resume"
        return UserError(f"{self.part}: cannot be written ({text}); {hint}")

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.state.unlink(missing_ok=True)


def _is_rest(headers: Message, start: int, validator: str) -> bool:
    """Whether a part that was sent is the rest of the file of which the first bytes are there."""
    begins = headers.get("Content-Range", "").startswith(f"bytes {start}-")
    return begins and _validator(headers) in ("", validator)


def _validator(headers: Message) -> str:
    """What identifies the server's file; empty where nothing does. A weak ETag does not."""
    etag = str(headers.get("ETag", ""))
    strong = etag and not etag.startswith("W/")
    validator = etag if strong else str(headers.get("Last-Modified", ""))
    return validator if validator.isprintable() else ""


def _reason(error: object) -> str:
    """What went wrong, as one line."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return one_line(text) or type(error).__name__
