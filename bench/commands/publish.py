"""`bench publish`: somebody's records, checked and laid out for a pull request. No torch.

`bench merge` makes the checks that any two folders need. What is refused here beyond them is what
nobody else could run again or tell apart: code that is not known, and names that are taken.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from bench import plugins, specs
from bench.commands import merge
from bench.commands.merge import Places
from bench.commands.plan import check_settings
from bench.commands.request import Request
from bench.config import loader
from bench.errors import UserError, unknown
from bench.results import comparability, storage
from bench.results.record import Provenance, Record
from bench.statistics.cache import find_metric

NOTHING = "nothing was published"
SMOKE = "smoke"  # the suite that measures nothing


def publish(
    sources: Sequence[Path],
    out: Path,
    into: Path,
    methods: Collection[str],
    source: str,
    cache: Path,
) -> Iterator[str]:
    """Copy the records that a reference lacks into a new folder, after every check.

    A cell that the reference has from the same method is left out.

    Args:
        sources: have SUITE/TASK/METHOD/seedK.json.
        out: the new folder.
        into: the reference that the records are to join.
        methods: whose records; of all where none is named.
        source: address of the code or weights of what does not ship with the project; may be empty.
        cache: folder for what can be computed again.

    Yields:
        A line for each suite, then what to type next. All checks were made before.

    Raises:
        UserError: a record cannot join the reference; then nothing is written.
    """
    try:
        _check_arguments(out, into, source)
        there = merge.collected([into], needed=False)
        given = merge.collected(sources, wanted=lambda n: not methods or n.parts[2] in methods)
        known = {name.parts[2] for name in given}
        for method in methods:
            if method not in known:
                raise unknown("method", method, known)
        others = {n: p for n, p in given.items() if n not in there or p[1] != there[n][1]}
        for path, record in others.values():
            _check_plugins(path, record)
            _check_name(path, record, there)
        new = {n: (p, _for_others(r, source)) for n, (p, r) in others.items() if n not in there}
        for path, record in new.values():
            _check_known(path, record, there, cache)
        _check_copies(new, there)
        if not new:
            raise UserError(f"{into} has every cell of {', '.join(map(str, sources))}")
        suites = {name.parts[0] for name in new}
        beside = {name: place for name, place in there.items() if name.parts[0] in suites}
        merge.check(beside | new, into, cache)
    except UserError as error:
        raise UserError(f"{error}; {NOTHING}") from None
    for suite, own in merge.by_suite(new).items():
        for name, (path, record) in own.items():
            merge.copy(path, record, out / name)
            if record != given[name][1]:
                storage.save(record, out / name)
        left_out = sum(name.parts[0] == suite for name in given.keys() - new.keys())
        yield f"{out / suite}: {_of(own)}; {left_out} left out, which {into} has"
    yield from _next(new, out, into)


def _check_arguments(out: Path, into: Path, source: str) -> None:
    """Refuse folders and an address that cannot be used.

    Raises:
        UserError: names the option.
    """
    if not into.is_dir():
        raise UserError(f"--into {into}: no such folder; name results/reference of a clone")
    if storage.files(out, storage.IN_OUT):
        raise UserError(f"--out {out}: has records; give a new folder")
    try:
        Provenance(source=source)
    except ValidationError:
        raise UserError(f"--source {source}: must be an address, https://...") from None


def _check_plugins(path: Path, record: Record) -> None:
    """Refuse a record of another version or role than what ships has, or of other code by its name.

    Raises:
        UserError: names the record.
    """
    facts: tuple[tuple[plugins.Kind, str, int, str], ...] = (
        ("methods", record.method, record.method_version, record.method_digest),
        ("tasks", record.task, record.task_version, record.task_digest),
    )
    for kind, name, version, own in facts:
        if not own:
            _check_version(path, kind, name, version)
        elif name in plugins.names(kind) and plugins.source(kind, name).origin == "shipped":
            raise UserError(
                f"{path}: the name {name} is taken by a {kind[:-1]} of this project; give yours "
                "another one"
            )
    # Gaps are measured from these rows, and gains: the weights of another backbone may be a file.
    role = "pretrained"
    if not record.method_digest:
        role = plugins.describe("methods", record.method).role
    elif record.method == f"{specs.REFERENCE}@{record.other_backbone}":
        role = "reference"
    if record.role != role:
        raise UserError(f"{path}: has role {record.role}, but {record.method} is {role}")


def _check_version(path: Path, kind: plugins.Kind, name: str, version: int) -> None:
    try:
        now = plugins.describe(kind, name).version
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if version != now:
        raise UserError(
            f"{path}: is of version {version} of {name}, which is now {now}; run it again"
        )


def _check_name(path: Path, record: Record, there: Places) -> None:
    """Refuse a record whose method has the name of another one.

    Raises:
        UserError: names the record, and one of the other method.
    """
    for other_path, other in there.values():
        what = comparability.other_method(record, other) if other.method == record.method else ""
        if what:
            raise UserError(
                f"{path}: the name {record.method} is taken by {other_path}, of another {what}; "
                "give yours another one"
            )


def _check_known(path: Path, record: Record, there: Places, cache: Path) -> None:
    """Refuse a new record that nobody else could compute again.

    Raises:
        UserError: names the record and what is not known of it.
    """
    if record.suite == SMOKE:
        raise UserError(f"{path}: {SMOKE} tests the code and measures nothing; run another suite")
    if record.status == "failed":
        raise UserError(f"{path}: failed; run it again, or leave it out with --methods")
    if record.environment.get("dirty"):
        raise UserError(f"{path}: ran with changes that were not committed; run it again without")
    metric, reason = find_metric(record.metric)
    if metric is None:
        raise UserError(f"{path}: its score cannot be computed again, {reason}")
    if _foreign(record) and not record.provenance.source:
        raise UserError(
            f"{path}: its code or weights do not ship; say where they are, --source https://..."
        )
    if record.suite in loader.names():
        suite = loader.load(record.suite)
        request = Request(suite, (), (record.task,), (), None, path, cache, "cpu")
        check_settings(path, record, request)
    elif not any(name.parts[0] == record.suite for name in there):
        raise UserError(f"{path}: {unknown('suite', record.suite, loader.names())}")


def _check_copies(new: Places, there: Places) -> None:
    """Refuse a new record with the very predictions of another cell: no other run gives them.

    Raises:
        UserError: names both.
    """
    first: dict[tuple[str, str, str], Path] = {}
    for name, (path, record) in (there | new).items():
        if record.predictions is not None:
            own = (record.suite, record.task, record.predictions.sha256)
            other = first.setdefault(own, path)
            if other != path and name in new:
                raise UserError(
                    f"{path}: has the predictions of {other}; leave one out, or run it again"
                )


def _foreign(record: Record) -> bool:
    """Whether a record is of code or weights that nobody could find by what it says."""
    public = str(record.weights.get("weights", "")).startswith("timm:")
    return bool(record.task_digest or (record.method_digest and not public))


def _for_others(record: Record, source: str) -> Record:
    """The record with the address of what does not ship, and without folders of this machine."""
    provenance = record.provenance
    if source and _foreign(record):
        provenance = provenance.model_copy(update={"source": source})
    files = {
        Path(name).name if Path(name).is_absolute() else name: content
        for name, content in record.files.items()
    }
    return record.model_copy(update={"provenance": provenance, "files": files})


def _of(places: Places) -> str:
    """How many records of which methods there are."""
    methods = dict.fromkeys(name.parts[2] for name in places)
    count = "1 record" if len(places) == 1 else f"{len(places)} records"
    return f"{count} of {', '.join(methods)}"


def _next(new: Places, out: Path, into: Path) -> Iterator[str]:
    """What to type for a pull request."""
    first = next(iter(new)).parts[2]
    branch = re.sub(r"[^\w.-]+", "-", f"results-{first}")
    title = shlex.quote(f"Results: {_of(new)}")
    folders = [shlex.quote(str(folder)) for folder in (out, into)]
    yield "next, in a clone of the project:"
    yield f"git switch -c {branch}"
    yield "bench merge {0} --out {1} && bench leaderboard --out {1}".format(*folders)
    yield f"git add {folders[1]} && git commit -m {title} && git push -u origin {branch}"
