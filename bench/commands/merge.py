"""`bench merge`: records of several folders in one, checked as a leaderboard checks. No torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.commands.leaderboard import suite_folders
from bench.errors import UserError
from bench.reporting import leaderboard
from bench.results import comparability, storage
from bench.results.record import Record
from bench.runtime import regular
from bench.runtime.files import atomic_write
from bench.statistics.cache import all_resampled_scores

LARGEST_IMAGE = 2**28  # bytes
NOTHING = "nothing was merged"

Records = Mapping[Path, Record]


def merge(sources: Sequence[Path], out: Path, cache: Path) -> Iterator[str]:
    """Copy the records of several folders into one, which may have records.

    Args:
        sources: have SUITE/TASK/METHOD/seedK.json.
        out: the folder that gets them.
        cache: folder for what can be computed again.

    Yields:
        A line for each suite: how many records came from where. All checks were made before.

    Raises:
        UserError: a record cannot be used, two of one cell differ, or records of one suite cannot
            share a leaderboard; then nothing is written.
    """
    try:
        suites = _collected(sources, out)
        for suite, places in suites.items():
            _check(suite, places, out, cache)
    except UserError as error:
        raise UserError(f"{error}; {NOTHING}") from None
    for suite, places in suites.items():
        for target, (path, record) in places.items():
            if path != target:
                _copy(path, record, target)
        yield _summary(suite, places, sources, out)


Places = dict[Path, tuple[Path, Record]]  # where a record belongs -> where it is, and what


def _collected(sources: Sequence[Path], out: Path) -> dict[str, Places]:
    """The records of every suite; those that are in the folder stay.

    Raises:
        UserError: one cannot be used, or two of one cell differ.
    """
    suites: dict[str, Places] = defaultdict(dict)
    folders = sorted({path.parents[2] for path in storage.files(out, storage.IN_OUT)})
    for source in sources:
        folders += suite_folders(source, str(source))
    for folder in folders:
        records, problems = storage.read_valid(folder)
        if problems:
            raise UserError(f"{problems[0].path}: {problems[0].reason}")
        comparability.check_suite(records, folder)
        for path, record in records.items():
            target = out / path.relative_to(folder.parent)
            first, known = suites[folder.name].setdefault(target, (path, record))
            if known.checksum != record.checksum:
                raise UserError(
                    f"{first} and {path} are different records of one cell; move one away"
                )
    return suites


def _check(suite: str, places: Places, out: Path, cache: Path) -> None:
    """Refuse records that could not share a leaderboard.

    Raises:
        UserError: names the records.
    """
    for target, error in storage.odd_stages({t: r for t, (_, r) in places.items()}).items():
        raise UserError(str(error).replace(str(target), str(places[target][0])))
    records = dict(places.values())
    scores, errors = all_resampled_scores(records, cache)
    for error in errors.values():
        raise error
    comparability.check_suite(records, out / suite)
    leaderboard.build(records, scores)


def _copy(path: Path, record: Record, target: Path) -> None:
    """Copy a record after its predictions and images, which need not be there; each appears whole.

    Raises:
        UserError: a file cannot be read or written.
    """
    files = [(name, LARGEST_IMAGE) for name in (record.samples, record.predictions_image) if name]
    files = [(name, limit) for name, limit in files if path.with_name(name).exists()]
    if record.predictions is not None:
        files.append((record.predictions.file, storage.LARGEST_ARRAYS))
    for name, limit in [*files, (path.name, storage.LARGEST_RECORD)]:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(target.with_name(name), regular.read(path.with_name(name), limit))
        except OSError as error:
            raise UserError(f"{target}: cannot be written ({error.strerror}); see --out") from None


def _summary(suite: str, places: Places, sources: Sequence[Path], out: Path) -> str:
    """How many records a suite has now, and from where."""
    counts = {source: 0 for source in sources}
    for target, (path, _) in places.items():
        if path != target:
            counts[next(source for source in sources if path.is_relative_to(source))] += 1
    parts = [f"{count} from {source}" for source, count in counts.items()]
    there = len(places) - sum(counts.values())
    return f"{out / suite}: {len(places)} records: {', '.join(parts)}, {there} were there"
