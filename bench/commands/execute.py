"""The cells of a run, computed: one encoder at a time, one task after another, each recorded."""

from __future__ import annotations

import copy
import dataclasses
import io
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from bench import errors, plugins
from bench.commands import plan
from bench.commands.request import Cell, Request
from bench.config import settings
from bench.config.schema import PRETRAINING
from bench.data.datasets import Datasets, fingerprints, open_datasets
from bench.encoders.backbone import check_name
from bench.encoders.encoder import Encoder
from bench.encoders.pretraining import DAMAGED
from bench.encoders.weights import how_read
from bench.encoders.weights import warnings as weights_warnings
from bench.errors import UserError
from bench.evaluation.features import discard
from bench.evaluation.task import Task, TaskResult
from bench.metrics import registry
from bench.results import storage
from bench.results.record import (
    EncoderFacts,
    HyperparameterFacts,
    Provenance,
    Record,
)
from bench.runtime import distributed, switches
from bench.runtime import workers as processes
from bench.runtime.device import peak_memory_mb, seed_everything, select_device, share_cores
from bench.runtime.environment import describe
from bench.runtime.files import atomic_write
from bench.runtime.partial import claim_temporary_folder, sweep_cache
from bench.runtime.pool import check_daemon
from bench.runtime.progress import Reporter
from bench.training.context import Context
from bench.training.method import load_or_pretrain
from bench.training.tracking import Tracking


def open_for(cells: Sequence[Cell], request: Request, reporter: Reporter) -> Datasets:
    """The data sets that some cells use, opened and checked.

    Raises:
        UserError: they cannot be used.
    """
    check_daemon()
    plan.check_cache(request.cache)
    claim_temporary_folder()
    distributed.init()
    if distributed.is_main():
        sweep_cache(request.cache)
    names = set[str]()
    for cell in cells:
        if plugins.load("methods", cell.method).datasets:
            names.add(PRETRAINING)
        task = plugins.load("tasks", cell.task)
        name = settings.task_settings(request.suite, cell.task).dataset
        declared = request.suite.datasets.get(name)
        if declared is not None and declared.kind not in task.dataset_kinds:
            raise UserError(
                f"suite {request.suite.name}, [tasks.{cell.task}]: data set '{name}' is of kind "
                f"{declared.kind}; {cell.task} uses {' or '.join(task.dataset_kinds)}"
            )
        names.add(name)
    return open_datasets(request.suite, names, request.data_root, request.cache, reporter)


def compute(
    cells: Sequence[Cell],
    request: Request,
    reporter: Reporter,
    datasets: Datasets | None = None,
    announce: Callable[[Cell, Record], None] | None = None,
    following: Callable[[], list[Cell]] | None = None,
) -> None:
    """Compute and record every cell; one that fails is recorded as failed, and the rest go on.

    The features of an encoder are removed from the cache when all of its cells are recorded.

    Args:
        cells: those of one encoder follow one another.
        request: how, and where to.
        reporter: for progress.
        datasets: what `open_for` returned, if it was called before.
        announce: called after each record is written; by default its score is printed.
        following: called in the main process whenever an encoder can be begun: those of `cells`
            that are next, of one encoder; none at the end. By default all of them, in order.

    Raises:
        UserError: the data or the output folder cannot be used at all.
    """
    if announce is None:

        def announce(cell: Cell, record: Record) -> None:
            _print_score(cell, record, reporter)

    check_daemon()
    plan.check_cache(request.cache)
    distributed.init()
    device = select_device(request.device)
    _check_settings(cells, request, device)
    _check_weights(cells, _Job(request, datasets or {}, device, 1), reporter)
    datasets = datasets or open_for(cells, request, reporter)
    plan.check_data(cells, request, fingerprints(datasets))
    groups = plan.groups(cells)
    workers = _worker_count(groups, request, device)
    job = _Job(request, datasets, device, workers)
    source: Iterable[list[Cell]] = groups
    if following is not None:
        source = iter(partial(distributed.from_main, following), [])
    results = _in_turn(source, job, reporter)
    if workers > 1:
        results = _side_by_side(source, job, reporter)
    for cell, record in results:
        reporter.finish_cell(str(cell), failed=record.status == "failed")
        announce(cell, record)
    reporter.cell = ""


def _check_settings(cells: Sequence[Cell], request: Request, device: torch.device) -> None:
    """Refuse settings that timm or the device cannot do.

    Raises:
        UserError: names the key.
    """
    check_name(request.suite.backbone.name)
    resolved = [
        settings.resolved_recipe(request.suite, name, request.cache)
        for name in dict.fromkeys(cell.method for cell in cells)
    ]
    resolved += [
        settings.resolved_task_settings(request.suite, name, request.cache)
        for name in dict.fromkeys(cell.task for cell in cells)
    ]
    if device.type == "cpu" and any(each.get("precision") == "fp16" for each in resolved):
        raise UserError("precision = 'fp16': needs a GPU; use auto, bf16 or no on a processor")


def _check_weights(cells: Sequence[Cell], job: _Job, reporter: Reporter) -> None:
    """Read all weights from elsewhere before hours are spent, and say how they were read.

    Raises:
        UserError: some cannot be read, lack a part of the encoder, or break a promise.
    """
    first = {cell.method: cell for cell in reversed(cells)}
    for method, cell in first.items():
        if plugins.describe("methods", method).is_from_elsewhere:
            encoder = load_or_pretrain(job.context(cell, reporter))
            facts = "; ".join(f"{word} {text}" for word, text in how_read(encoder))
            reporter.say(f"{method}: {facts}")


def _worker_count(groups: Sequence[Sequence[Cell]], request: Request, device: torch.device) -> int:
    """How many encoders are computed at the same time, each in a process of its own."""
    cells = [cell for group in groups for cell in group]
    sources = [plugins.source("methods", cell.method) for cell in cells]
    sources += [plugins.source("tasks", cell.task) for cell in cells]
    from_this_process = any(source.origin == "object" for source in sources)
    if device.type != "cpu" or distributed.world_size() > 1 or from_this_process:
        return 1
    return min(request.workers, len(groups))


@dataclass(frozen=True)
class _Job:
    """What the cells of every encoder are computed with.

    Attributes:
        request: how, and where to.
        datasets: opened.
        device: where to compute.
        workers: processes that share this machine.
        paths: plug-ins that a worker process does not know yet.
    """

    request: Request
    datasets: Datasets
    device: torch.device
    workers: int
    paths: plugins.AddedPaths = field(default_factory=plugins.added_paths)

    def start(self) -> processes.Work:
        """Prepare a worker process; return what computes the cells of one encoder."""
        self.paths.add()
        return self.compute

    def compute(self, cells: Sequence[Cell], reporter: Reporter) -> Iterator[tuple[Cell, Record]]:
        """Compute the cells of one encoder; yield each once it is recorded."""
        context = self.context(cells[0], reporter)
        reporter.cell = f"{context.method} seed {context.seed}: "
        if self.device.type == "cpu":
            share_cores(self.workers, self.request.threads)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)  # what earlier encoders took
        yield from _compute_encoder(cells, context, self.request)

    def context(self, cell: Cell, reporter: Reporter) -> Context:
        """What the method and the tasks of a cell are handed."""
        request = self.request
        return Context(
            request.suite,
            cell.method,
            cell.seed,
            self.device,
            self.datasets,
            request.cache,
            reporter,
            tracking=Tracking(request.track, request.logs),
        )


def _in_turn(
    groups: Iterable[Sequence[Cell]], job: _Job, reporter: Reporter
) -> Iterator[tuple[Cell, Record]]:
    """Compute the cells of one encoder after another in this process."""
    for group in groups:
        yield from job.compute(group, reporter)


def _side_by_side(
    groups: Iterable[Sequence[Cell]], job: _Job, reporter: Reporter
) -> Iterator[tuple[Cell, Record]]:
    """Compute the cells of several encoders at a time, each in a worker process."""
    begun: list[Sequence[Cell]] = []
    finished = set[Cell]()

    def begin() -> Iterator[Sequence[Cell]]:
        for group in groups:
            begun.append(group)
            yield group

    for index, outcome in processes.compute(begin(), job.start, job.workers, reporter):
        if not isinstance(outcome, processes.Ended):
            finished.add(outcome[0])
            yield outcome
            continue
        error = UserError(str(outcome))
        for cell in begun[index]:
            if cell not in finished:
                context = job.context(cell, reporter)
                about = _about_method(context, job.request)
                yield cell, _save_failure(cell, context, about, job.request, error)


def _print_score(cell: Cell, record: Record, reporter: Reporter) -> None:
    if record.value is not None:
        label = registry.get(record.metric).label
        reporter.say(f"{cell}: {label} {record.value:.2f}")


def _compute_encoder(
    cells: Sequence[Cell], context: Context, request: Request
) -> Iterator[tuple[Cell, Record]]:
    """Obtain one encoder and give a copy of it to each task; yield each cell once recorded."""
    context.reporter.start_cell(str(cells[0]))
    method = _about_method(context, request)  # before hours in which its file may be edited
    try:
        encoder = load_or_pretrain(context)
    except distributed.FAILURES as error:  # whatever a method raises, the other methods go on
        distributed.fail_together(error)
        for cell in cells:
            yield cell, _save_failure(cell, context, method, request, error)
        return
    for cell in cells:
        record = _compute_cell(encoder, cell, context, method, request)
        if cell == cells[-1]:  # before its record is shown: a run may be killed there
            distributed.barrier()  # every process has opened what it needs
            if distributed.is_main():
                _discard(encoder, context)
        yield cell, record


def _discard(encoder: Encoder, context: Context) -> None:
    """Remove the features of an encoder; what is in the way costs space, and no cell."""
    try:
        discard(encoder, context.cache)
    except Exception as error:  # of the file system, or of somebody's encoder
        context.reporter.say(
            f"the features of {context.method} stay in the cache: {errors.message(error)}"
        )


def _compute_cell(
    encoder: Encoder, cell: Cell, context: Context, method: dict[str, Any], request: Request
) -> Record:
    """Score an encoder at one task, and record what came of it."""
    context.reporter.start_cell(str(cell))
    context.reporter.cell = f"{cell}: "
    path = cell.path(request)
    if distributed.is_main():
        path.unlink(missing_ok=True)  # an outdated record must not outlive its predictions
    try:
        record, result = evaluate(encoder, cell, context, method, request)
        distributed.from_main(partial(_save, record, result, encoder, path))
    except distributed.FAILURES as error:  # whatever a task raises, the other tasks go on
        distributed.fail_together(error)
        return _save_failure(cell, context, method, request, error)
    return record


def _save(record: Record, result: TaskResult, encoder: Encoder, path: Path) -> None:
    """Write a record, its predictions, and beside that of the first seed what to look at."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = None if encoder.samples is None else encoder.samples.movedim(0, -1).numpy()
    images = {"samples": samples, "predictions_image": result.image}
    files = {"samples": "samples.png", "predictions_image": "predictions.png"}
    for kind, pixels in images.items():
        if pixels is not None and record.seed == 0:
            record = record.model_copy(update={kind: files[kind]})
            encoded = io.BytesIO()
            Image.fromarray(pixels).save(encoded, "PNG")
            atomic_write(path.with_name(files[kind]), encoded.getvalue())
    storage.save(record, path, result.predictions)


def evaluate(
    encoder: Encoder, cell: Cell, context: Context, method: dict[str, Any], request: Request
) -> tuple[Record, TaskResult]:
    """Score a copy of an encoder; return the record and what the task predicted."""
    task: Task = plugins.load("tasks", cell.task)()
    context = dataclasses.replace(context, task=cell.task)
    identity = _identity(cell, context, method, request)
    own = copy.deepcopy(encoder)
    weights = own.weights_sha256()
    started = time.monotonic()
    with switches.owned():  # those that the file of a plug-in set too
        seed_everything(context.seed)
        result = task.evaluate(own, context)
    timings = result.timings | {"evaluate": time.monotonic() - started}
    metric = registry.get(identity["metric"])
    _check_predictions(cell.task, metric, result)
    per_class = registry.per_class(metric, result.predictions)
    nothing_to_score = [n for n in metric.classes(result.predictions) if n not in per_class]
    trained = [PRETRAINING] if method["recipe"] else []
    splits = {
        name: split
        for dataset in {*trained, context.settings.dataset}
        for name, split in context.datasets[dataset].splits.items()
    }
    record = Record(
        **identity,
        status="ok",
        value=registry.value(metric, result.predictions),
        per_class=per_class,
        excluded_classes=result.excluded_classes + nothing_to_score,
        per_stage=result.per_stage,
        selected_stage=result.selected_stage,
        diagnostics=result.diagnostics,
        hyperparameters=HyperparameterFacts(**dataclasses.asdict(result.hyperparameters)),
        warnings=[
            *result.warnings,
            *_skipped(context, encoder),
            *_data_warnings(context, trained),
            *weights_warnings(encoder),
        ],
        encoder=EncoderFacts(
            backbone=encoder.backbone,
            inputs=list(encoder.inputs),
            weights_sha256=weights,
            parameters=sum(p.numel() for p in encoder.parameters()),
        ),
        weights=encoder.origin,
        pretraining=encoder.pretraining,
        training=result.trace,
        timings=timings,
        peak_memory_mb=peak_memory_mb(context.device),
        data={name: split.fingerprint for name, split in sorted(splits.items())},
        num_images={name: len(split.ids) for name, split in sorted(splits.items())},
        files=dict(context.files),
    )
    return record, result


def _check_predictions(task: str, metric: registry.Metric, result: TaskResult) -> None:
    """Refuse a result without the arrays that its metric needs."""
    absent = {"ids", *metric.arrays} - result.predictions.keys()
    if absent:
        arrays = ", ".join(sorted(absent))
        raise UserError(f"{task}: its predictions lack {arrays}, which {metric.name} needs")


def _skipped(context: Context, encoder: Encoder) -> list[str]:
    """A warning of the pretraining images that were left out at the start or skipped later."""
    pretraining = context.datasets.get(PRETRAINING)
    count = len(pretraining.train.images.skipped) if pretraining else 0
    count += int(encoder.pretraining.logged.get(DAMAGED, 0))
    return [f"{count} damaged pretraining images skipped"] if count else []


def _data_warnings(context: Context, trained: Sequence[str]) -> list[str]:
    """The warnings of the data sets that a cell is trained and tested on."""
    names = sorted({*trained, context.settings.dataset})
    return [text for name in names for text in context.datasets[name].warnings]


def _save_failure(
    cell: Cell,
    context: Context,
    method: dict[str, Any],
    request: Request,
    error: BaseException,
) -> Record:
    message = errors.message(error)
    context = dataclasses.replace(context, task=cell.task)
    record = Record(
        **_identity(cell, context, method, request),
        status="failed",
        error=message,
        error_lines=errors.all_lines(error),
    )
    if distributed.is_main():
        storage.save(record, cell.path(request))
    context.reporter.say(f"{cell}: FAILED: {message}")
    if request.verbose:
        context.reporter.say("".join(traceback.format_exception(error)))
    return record


def _about_method(context: Context, request: Request) -> dict[str, Any]:
    """What a record says of its method, as its code is now."""
    method = plugins.describe("methods", context.method)
    return {
        "method": context.method,
        "method_version": method.version,
        "method_digest": context.method_digest,
        "role": method.role,
        "recipe": settings.resolved_recipe(request.suite, context.method, request.cache),
        "provenance": Provenance(
            method_code=plugins.code("methods", context.method),
            command=list(request.command),
        ),
    }


def _identity(
    cell: Cell, context: Context, method: dict[str, Any], request: Request
) -> dict[str, Any]:
    """What a record says of its cell, whether it failed or not, as the task's code is now."""
    task = plugins.describe("tasks", cell.task)
    suite = request.suite
    code = {"task_code": plugins.code("tasks", cell.task)}
    return {
        **method,
        "provenance": method["provenance"].model_copy(update=code),
        "suite": suite.name,
        "suite_sha256": suite.sha256,
        "suite_settings": suite.shared(context.settings.dataset),
        "task": cell.task,
        "task_version": task.version,
        "task_digest": plugins.own_digest("tasks", cell.task),
        "task_settings": settings.resolved_task_settings(suite, cell.task, request.cache),
        "metric": getattr(context.settings, "metric", task.constants["metric"]),
        "seed": cell.seed,
        "environment": describe(context.device) | {"processes": distributed.world_size()},
        "created": storage.now(),
    }
