"""`bench cache`: what can be computed again, by kind, size and last use; and removing the old."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench.errors import UserError
from bench.runtime.progress import about

# Folders of the cache, and what is in them.
KINDS = {
    "scenes": "rendered images",
    "manifests": "what reading images told",
    "encoders": "pretrained encoders",
    "features": "features of encoders, while they are probed",
    "finetuned": "fine-tuned networks and the scores of learning rates",
    "checkpoints": "trainings that were stopped, and logs of losses",
    "resampled": "resampled scores",
    "settings": "resolved settings",
}
SPARED = 24 * 3600.0  # seconds since its last use in which a running program may need a file again
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", re.IGNORECASE)
DAY = 86_400.0


@dataclass(frozen=True)
class Entry:
    """One encoder, checkpoint, folder of features ...: files that are of use together.

    Attributes:
        kind: of `KINDS`.
        paths: files and folders.
        size: bytes.
        used: when one of them was last read or written, seconds since 1970.
    """

    kind: str
    paths: tuple[Path, ...]
    size: int
    used: float


def entries(cache: Path) -> list[Entry]:
    """What is in a cache.

    Args:
        cache: its folder; other files and folders in it do not count.
    """
    found = []
    for kind in KINDS:
        parts: dict[str, list[Path]] = defaultdict(list)
        with suppress(OSError):
            for path in sorted((cache / kind).iterdir()):
                if path.suffix != ".lock":
                    parts[path.name.partition(".")[0]].append(path)
        found += [_entry(kind, paths) for paths in parts.values()]
    return found


def _entry(kind: str, paths: Sequence[Path]) -> Entry:
    files = [file for path in paths for file in _files(path)]
    sizes = []
    times = []
    for file in files:
        with suppress(OSError):  # it was removed meanwhile
            status = file.stat()
            sizes.append(status.st_size)
            times.append(max(status.st_atime, status.st_mtime))
    return Entry(kind, tuple(paths), sum(sizes), max(times, default=0.0))


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir() or path.is_symlink():
        yield path
        return
    for folder, _, names in os.walk(path):
        yield from (Path(folder) / name for name in names)


def lines(cache: Path) -> Iterator[str]:
    """Each kind with its number, size and last use, and the sum."""
    found = entries(cache)
    yield f"{cache}: {size_text(sum(entry.size for entry in found))}"
    now = time.time()
    for kind, what in KINDS.items():
        own = [entry for entry in found if entry.kind == kind]
        if own:
            size = size_text(sum(entry.size for entry in own))
            last = about(max(0.0, now - max(entry.used for entry in own)))
            yield f"  {kind:<12}{len(own):>7,}  {size:>9}  last used {last} ago: {what}"


def prune(
    cache: Path, days: float | None, size: str | None, dry_run: bool, say: Callable[[str], None]
) -> None:
    """Remove what was not used for a long time; what was used in the last day stays.

    All of it can be computed again.

    Args:
        cache: the folder.
        days: what was last used so many days ago is removed.
        size: then the least recently used are removed, until the cache has this size: 20GB.
        dry_run: say what would be removed, and remove nothing.
        say: prints a line.

    Raises:
        UserError: neither is given, or the size is none.
    """
    if days is None and size is None:
        raise UserError("say what to remove: --older-than DAYS, --to SIZE, or both")
    most = None if size is None else parse_size(size)
    found = sorted(entries(cache), key=lambda entry: entry.used)
    total = sum(entry.size for entry in found)
    now = time.time()
    removed = []
    for entry in found:
        age = now - entry.used
        if age < SPARED:
            break
        if (days is not None and age >= days * DAY) or (most is not None and total > most):
            removed.append(entry)
            total -= entry.size
    if not dry_run:
        for entry in removed:
            _remove(entry)
    verb = "would remove" if dry_run else "removed"
    freed = size_text(sum(entry.size for entry in removed))
    say(f"{verb} {len(removed):,} of {len(found):,} entries, {freed}; {size_text(total)} stay")
    if most is not None and total > most:
        say(f"the rest was used within a day, so that {cache} stays above {size_text(most)}")


def _remove(entry: Entry) -> None:
    for path in entry.paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def parse_size(text: str) -> int:
    """A size in bytes: 500MB, 20 GB, 1.5t.

    Raises:
        UserError: it is none.
    """
    match = SIZE.fullmatch(text.strip())
    if match is None:
        raise UserError(f"--to {text}: is no size; write 500MB or 20GB")
    return int(float(match[1]) * UNITS[match[2].lower()])


def size_text(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} TB"
