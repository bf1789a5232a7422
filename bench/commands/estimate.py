"""Estimates of the seconds and the disk space of a run, from measured ones. Imports no torch.

What the last runs took is in the records of the output folder. For what they lack,
`bench/config/costs.toml` has what suites took on a named machine; `benchmarks/first_run.py` writes
it.
"""

from __future__ import annotations

import glob
import shutil
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from statistics import median

from bench import plugins
from bench.commands import plan
from bench.commands.request import Cell, Request
from bench.config import loader, settings
from bench.config.schema import Suite
from bench.results import storage
from bench.results.record import Record
from bench.runtime.progress import about

UNKNOWN = "unknown until it runs"
MACHINE = {"processor", "device", "threads"}  # of a record's environment


@dataclass(frozen=True)
class Costs:
    """What a suite took where it was measured.

    Attributes:
        machine: where that was.
        seconds_once: of a whole run: images, start and leaderboard.
        seconds_per_1000_views: of pretraining, by method.
        seconds_per_row: of a task, by its name.
        megabytes: of the rendered `images`, of an `encoder`, of a `record` with its predictions,
            and of what is `in_flight` while an encoder is at work.
    """

    machine: str
    seconds_once: float = 0.0
    seconds_per_1000_views: dict[str, float] = field(default_factory=dict)
    seconds_per_row: dict[str, float] = field(default_factory=dict)
    megabytes: dict[str, float] = field(default_factory=dict)

    def pretraining(self, method: str, views: int) -> float | None:
        """Seconds for a method's views; one that was not measured is as fast as the median."""
        if not views:
            return 0.0
        rates = self.seconds_per_1000_views
        rate = rates.get(method, median(rates.values()) if rates else None)
        return None if rate is None else rate * views / 1000


def load(suite: str) -> Costs | None:
    """The measured costs of a suite; None where it was not measured."""
    text = (resources.files("bench.config") / "costs.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text).get(suite)
    return None if table is None else Costs(**table)


def costs_of(request: Request) -> Costs | None:
    """The costs of a suite by the records in the output folder, and as shipped for what they lack.

    Pretraining of a suite that does not ship costs what it does in one that ships, if backbone and
    crop are the same.

    Returns:
        None where there are none.
    """
    return _costs(request, _last_runs(request))


def _costs(request: Request, records: Collection[Record]) -> Costs | None:
    shipped = load(request.suite.name) or _pretraining_alike(request.suite)
    if not records:
        return shipped
    own = measure(records, 0.0, {})
    if shipped is None:
        return own
    rates = shipped.seconds_per_1000_views | own.seconds_per_1000_views
    tasks = shipped.seconds_per_row | own.seconds_per_row
    return replace(
        shipped,
        machine=" and ".join(dict.fromkeys([own.machine, shipped.machine])),
        seconds_per_1000_views=rates,
        seconds_per_row=tasks,
    )


def _pretraining_alike(suite: Suite) -> Costs | None:
    """What views cost in a suite that ships with the same backbone and crop; None if none does."""
    for name in loader.names():
        other, costs = loader.load(name), load(name)
        same = (other.backbone, other.pretraining.crop) == (suite.backbone, suite.pretraining.crop)
        if costs and same:
            return Costs(costs.machine, seconds_per_1000_views=costs.seconds_per_1000_views)
    return None


def _last_runs(request: Request) -> list[Record]:
    """The records of the suite that were made on the kind of device of a request.

    `auto` is what the latest of them was made on: which devices there are, torch alone knows.
    """
    records = [
        record
        for record in storage.read_valid(request.folder)[0].values()
        if record.suite_sha256 == request.suite.sha256 and record.environment.keys() >= MACHINE
    ]
    if not records:
        return []
    on_cpu = request.device == "cpu"
    if request.device == "auto":
        on_cpu = _is_of_cpu(max(records, key=lambda record: record.created))
    return [record for record in records if _is_of_cpu(record) == on_cpu]


def _is_of_cpu(record: Record) -> bool:
    return bool(record.environment["device"] == "cpu")


def measure(records: Collection[Record], once: float, megabytes: Mapping[str, float]) -> Costs:
    """The costs of a suite from the records of a run of it.

    Args:
        records: of one machine; at least one.
        once: seconds of the run that no record has.
        megabytes: as `Costs` has them.
    """
    rates: dict[str, list[float]] = defaultdict(list)
    tasks: dict[str, list[float]] = defaultdict(list)
    for record in records:
        views = record.pretraining.views_seen
        if views:
            rates[record.method].append(1000 * record.pretraining.seconds / views)
        if record.status == "ok" and "evaluate" in record.timings:
            tasks[record.task].append(record.timings["evaluate"])
    about_it = next(iter(records)).environment
    return Costs(
        machine=f"{about_it['processor']}, {about_it['device']}, {about_it['threads']} threads",
        seconds_once=round(once, 1),
        seconds_per_1000_views={name: round(median(v), 2) for name, v in sorted(rates.items())},
        seconds_per_row={name: round(median(v), 1) for name, v in sorted(tasks.items())},
        megabytes={name: round(value, 1) for name, value in megabytes.items()},
    )


def seconds(
    cells: Sequence[Cell], request: Request, cache: Path | None = None
) -> list[float | None]:
    """An estimate for each cell; the first cell of an encoder includes its pretraining.

    Args:
        cells: those of one encoder follow one another.
        request: names the suite.
        cache: that may have encoders, where it is not the request's.

    Returns:
        Seconds; None for what no record and no shipped measurement tells.
    """
    records = _last_runs(request)
    costs = _costs(request, records)
    estimates: list[float | None] = []
    encoders = set[tuple[str, int]]()
    for cell in cells:
        views = 0
        if (cell.method, cell.seed) not in encoders:
            encoders.add((cell.method, cell.seed))
            if not _is_kept(cell, records, cache or request.cache):
                views = _views(cell.method, request)
        estimates.append(None if costs is None else _seconds(cell, views, costs))
    return estimates


def by_name(cells: Sequence[Cell], request: Request) -> dict[str, float | None]:
    """`seconds` of each cell, by its name."""
    names = [str(cell) for cell in cells]
    return dict(zip(names, seconds(cells, request), strict=True))


def _seconds(cell: Cell, views: int, costs: Costs) -> float | None:
    training = costs.pretraining(cell.method, views)
    task = costs.seconds_per_row.get(cell.task)
    return None if training is None or task is None else training + task


def _is_kept(cell: Cell, records: Collection[Record], cache: Path) -> bool:
    """Whether a record is of a cell's encoder, and the cache has one of the method.

    Which one, its key would tell; that takes the images.
    """
    version = plugins.describe("methods", cell.method).version
    own = (cell.method, cell.seed, version)
    recorded = any((r.method, r.seed, r.method_version) == own for r in records)
    name = f"{glob.escape(cell.method)}-*.safetensors"
    return recorded and any((cache / "encoders").glob(name))


def _views(method: str, request: Request) -> int:
    recipe = settings.resolved_recipe(request.suite, method, request.cache)
    return int(recipe.get("views", 0))


def dry_run(request: Request) -> Iterator[str]:
    """What a run would compute, its time and its disk space; nothing is computed or written.

    Raises:
        UserError: the request or the records in its folder cannot be used.
    """
    with tempfile.TemporaryDirectory() as folder:  # settings are resolved into a cache
        elsewhere = replace(request, cache=Path(folder))
        cells = plan.cells(elsewhere)
        todo = [cell for cell in cells if not plan.is_up_to_date(cell, elsewhere)]
        plan.check_tables(todo, elsewhere)
        found = seconds(todo, elsewhere, request.cache)
        estimates = dict(zip(todo, found, strict=True))
        notices = list(plan.notices(elsewhere))
    yield plan.title(request.suite)
    yield from notices
    yield plan.counts(cells, todo)
    for cell in cells:
        if cell in estimates:
            yield f"  {cell}: to run, {_time(estimates[cell])}"
        else:
            yield f"  {cell}: up to date"
    costs = costs_of(request)
    yield _total(estimates, request.workers, costs)
    yield _disk(todo, request, costs)
    if request.data_root is None and not request.suite.synthetic and todo:
        yield "data: needs --data-root, the folder with the suite's data sets"
    yield "dry run: nothing was computed or written"


def _time(estimate: float | None) -> str:
    return UNKNOWN if estimate is None else f"about {about(estimate)}"


def _total(estimates: Mapping[Cell, float | None], workers: int, costs: Costs | None) -> str:
    if not estimates:
        return "time: none"
    if costs is None or None in estimates.values():
        return f"time: {UNKNOWN}"
    encoders: dict[tuple[str, int], float] = defaultdict(float)
    for cell, value in estimates.items():
        encoders[cell.method, cell.seed] += value or 0.0
    at_once = max(sum(encoders.values()) / workers, *encoders.values())
    total = costs.seconds_once + at_once
    return f"time: about {about(total)} (as measured on {costs.machine})"


def _disk(todo: Sequence[Cell], request: Request, costs: Costs | None) -> str:
    """The space that the cache and the results need, and what is free there."""
    if not todo:
        return "disk: none"
    if costs is None or not costs.megabytes:
        return f"disk: {UNKNOWN}"
    encoders = {(cell.method, cell.seed) for cell in todo}
    trained = sum(plugins.describe("methods", method).trains_on_suite for method, _ in encoders)
    size = costs.megabytes
    stays = size["images"] + trained * size["encoder"]
    results = len(todo) * size["record"]
    return (
        f"disk: {_space(stays + size['in_flight'])} in {request.cache} while it runs, "
        f"{_space(stays)} afterwards, {_free(request.cache)}; "
        f"{_space(results)} in {request.folder}, {_free(request.folder)}"
    )


def _space(megabytes: float) -> str:
    if megabytes < 1000:
        return f"{max(1.0, megabytes):.0f} MB"
    return f"{megabytes / 1000:.1f} GB"


def _free(path: Path) -> str:
    """The free space where a folder is or would be."""
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    return f"{_space(shutil.disk_usage(existing).free / 1e6)} free"
