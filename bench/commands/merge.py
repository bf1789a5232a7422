"""`bench merge`: records of several folders in one, checked as a leaderboard checks. No torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bench.commands.leaderboard import suite_folders
from bench.errors import UserError
from bench.reporting import leaderboard
from bench.results import comparability, storage
from bench.results.record import Record
from bench.runtime import regular
from bench.runtime.files import atomic_write
from bench.statistics.cache import EXACT, all_resampled_scores

LARGEST_IMAGE = 2**28  # bytes
PNG = b"\x89PNG\r\n\x1a\n"
NOTHING = "nothing was merged"

Records = Mapping[Path, Record]
Places = dict[Path, tuple[Path, Record]]  # SUITE/TASK/METHOD/seedK.json -> where it is, and what
Wanted = Callable[[Path], bool]  # whether the record at SUITE/TASK/METHOD/seedK.json is asked for


def merge(sources: Sequence[Path], out: Path, cache: Path, dry_run: bool = False) -> Iterator[str]:
    """Copy the records of several folders into one, which may have records.

    Args:
        sources: have SUITE/TASK/METHOD/seedK.json.
        out: the folder that gets them.
        cache: folder for what can be computed again.
        dry_run: whether to make the checks alone.

    Yields:
        A line for each suite: how many records came from where. All checks were made before.

    Raises:
        UserError: a record cannot be used, two of one cell differ, or records of one suite cannot
            share a leaderboard; then nothing is written.
    """
    try:
        places = collected([out], needed=False)
        for name, (path, record) in collected(sources).items():
            _join(places, name, path, record)
        check(places, out, cache)
    except UserError as error:
        raise UserError(f"{error}; {NOTHING}") from None
    for suite, own in by_suite(places).items():
        for name, (path, record) in own.items():
            if path != out / name and not dry_run:
                copy(path, record, out / name)
        yield _summary(suite, own, sources, out)


def collected(
    sources: Sequence[Path], needed: bool = True, wanted: Wanted = lambda name: True
) -> Places:
    """The records of some folders, by place.

    Args:
        sources: have SUITE/TASK/METHOD/seedK.json.
        needed: whether each must have some.
        wanted: tells by its place whether a record is asked for; others are not looked at.

    Raises:
        UserError: one cannot be used, or two of one cell differ.
    """
    places: Places = {}
    for source in sources:
        if not needed and not storage.files(source, storage.IN_OUT):
            continue
        for folder in suite_folders(source, str(source)):
            records, problems = storage.read_valid(folder)
            for problem in problems:
                if wanted(problem.path.relative_to(source)):
                    raise UserError(f"{problem.path}: {problem.reason}")
            own = {p: r for p, r in records.items() if wanted(p.relative_to(source))}
            comparability.check_suite(own, folder)
            for path, record in own.items():
                _join(places, path.relative_to(source), path, record)
    return places


def _join(places: Places, name: Path, path: Path, record: Record) -> None:
    """Add a record; the same one may be there.

    Raises:
        UserError: another one is there.
    """
    first, known = places.setdefault(name, (path, record))
    if known.checksum != record.checksum:
        raise UserError(f"{first} and {path} are different records of one cell; move one away")


def by_suite(places: Places) -> dict[str, Places]:
    """The records of each suite."""
    suites: dict[str, Places] = defaultdict(dict)
    for name, place in sorted(places.items()):
        suites[name.parts[0]][name] = place
    return suites


def check(places: Places, out: Path, cache: Path) -> None:
    """Refuse records that could not share leaderboards.

    Scores are computed again from predictions. What differs from records that were there before is
    named as the later one of the two.

    Args:
        places: those that were there come first.
        out: the folder that would have them all.
        cache: folder for what can be computed again.

    Raises:
        UserError: names the records.
    """
    for path, record in places.values():
        for image in map(path.with_name, _images(path, record)):
            if not regular.read(image, LARGEST_IMAGE).startswith(PNG):
                raise UserError(f"{image}: is no PNG image; delete it")
    for name, error in storage.odd_stages({n: r for n, (_, r) in places.items()}).items():
        raise UserError(str(error).replace(str(name), str(places[name][0]), 1))
    scores, errors = all_resampled_scores(dict(places.values()), cache)
    for error in errors.values():
        raise error
    for path, record in places.values():
        if path in scores:
            _check_facts(path, record, scores[path].num_images)
    for suite in by_suite(places):
        records = dict(place for name, place in places.items() if name.parts[0] == suite)
        comparability.check_suite(records, out / suite)
        leaderboard.build(records, scores)


def _check_facts(path: Path, record: Record, num_images: int) -> None:
    """Refuse a record that contradicts itself or the number of images of its predictions.

    Raises:
        UserError: names the record and what does not fit.
    """
    count = record.num_images.get(f"{record.dataset}_test", num_images)
    if count != num_images:
        raise UserError(f"{path}: {count} test images, but its predictions are of {num_images}")
    if record.per_stage and record.selected_stage is not None and record.value is not None:
        own = record.per_stage[record.selected_stage]
        if abs(record.value - own) > EXACT:
            stage = f"{own} of the stage that it selected"
            raise UserError(f"{path}: value {record.value}, but {stage}")


def copy(path: Path, record: Record, target: Path) -> None:
    """Copy a record after its predictions and images, which need not be there; each appears whole.

    Raises:
        UserError: a file cannot be read or written.
    """
    files = [(name, LARGEST_IMAGE) for name in _images(path, record)]
    if record.predictions is not None:
        files.append((record.predictions.file, storage.LARGEST_ARRAYS))
    for name, limit in [*files, (path.name, storage.LARGEST_RECORD)]:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(target.with_name(name), regular.read(path.with_name(name), limit))
        except OSError as error:
            raise UserError(f"{target}: cannot be written ({error.strerror}); see --out") from None


def _images(path: Path, record: Record) -> list[str]:
    """The images beside a record that are there."""
    names = (record.samples, record.predictions_image)
    return [name for name in names if name and path.with_name(name).exists()]


def _summary(suite: str, places: Places, sources: Sequence[Path], out: Path) -> str:
    """How many records a suite has then, and from where."""
    counts = {source: 0 for source in sources}
    for name, (path, _) in places.items():
        if path != out / name:
            counts[next(source for source in sources if path.is_relative_to(source))] += 1
    parts = [f"{count} from {source}" for source, count in counts.items()]
    there = len(places) - sum(counts.values())
    return f"{out / suite}: {len(places)} records: {', '.join(parts)}, {there} were there"
