"""The cells of a run, computed: one encoder at a time, one task after another, each recorded."""

from __future__ import annotations

import copy
import io
import itertools
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from bench import plugins
from bench.commands import plan
from bench.commands.request import Cell, Request
from bench.data.datasets import Data, open_data
from bench.encoders.encoder import Encoder
from bench.errors import UserError
from bench.evaluation.task import Task, TaskResult
from bench.results import storage
from bench.results.record import EncoderFacts, PretrainingFacts, Record
from bench.runtime import distributed
from bench.runtime.device import peak_memory_mb, seed_everything, select_device
from bench.runtime.environment import describe
from bench.runtime.files import atomic_write
from bench.runtime.progress import Reporter
from bench.training.context import Context
from bench.training.method import load_or_pretrain


def opened(cells: Sequence[Cell], request: Request, reporter: Reporter) -> Data:
    """The data that some cells read, opened and checked.

    Raises:
        UserError: they cannot be used.
    """
    reads = set[str]()
    for cell in cells:
        if "pretraining" in plugins.load("methods", cell.method).datasets:
            reads.add("corpus")
        reads |= {*plugins.load("tasks", cell.task).reads}
    return open_data(request.suite, request.data_root, reads, request.cache, reporter)


def compute(
    cells: Sequence[Cell], request: Request, reporter: Reporter, data: Data | None = None
) -> None:
    """Compute and record every cell; one that fails is recorded as failed, and the rest go on.

    Args:
        cells: those of one encoder follow one another.
        request: how, and where to.
        reporter: where progress is shown.
        data: what `opened` gave, if it was called before.

    Raises:
        UserError: the data or the output folder cannot be used at all.
    """
    distributed.init()
    device = select_device(request.device)
    data = data or opened(cells, request, reporter)
    plan.check_data(cells, request, data.fingerprints())
    for (method, seed), group in itertools.groupby(cells, key=lambda c: (c.method, c.seed)):
        reporter.cell = f"{method} seed {seed}: "
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)  # what earlier encoders took
        context = Context(request.suite, method, seed, device, data, request.cache, reporter)
        _compute_encoder(list(group), context, request)
    reporter.cell = ""
    distributed.barrier()


def _compute_encoder(cells: Sequence[Cell], context: Context, request: Request) -> None:
    """Obtain one encoder and give a copy of it to each task."""
    try:
        encoder = load_or_pretrain(context)
    except Exception as error:  # whatever a method raises, the other methods go on
        for cell in cells:
            _save_failure(cell, context, request, error)
        return
    for cell in cells:
        context.reporter.cell = f"{cell}: "
        path = cell.path(request)
        if distributed.is_main():
            path.unlink(missing_ok=True)  # an outdated record must not outlive its predictions
        try:
            result, scores = evaluate(encoder, cell, context)
        except Exception as error:  # the same for tasks
            _save_failure(cell, context, request, error)
            continue
        if distributed.is_main():
            _save(result, scores, encoder, path)
        context.reporter.say(f"{cell}: {result.metric} {result.value:.2f}")


def _save(result: Record, scores: TaskResult, encoder: Encoder, path: Path) -> None:
    """Write a record, its predictions, and beside that of the first seed what to look at."""
    path.parent.mkdir(parents=True, exist_ok=True)
    learned = None if encoder.samples is None else encoder.samples.movedim(0, -1).numpy()
    images = {"samples": learned, "shown": scores.image}
    files = {"samples": "samples.png", "shown": "predictions.png"}
    for kind, pixels in images.items():
        if pixels is not None and result.seed == 0:
            result = result.model_copy(update={kind: files[kind]})
            encoded = io.BytesIO()
            Image.fromarray(pixels).save(encoded, "PNG")
            atomic_write(path.with_name(files[kind]), encoded.getvalue())
    storage.save(result, path, scores.predictions)


def evaluate(encoder: Encoder, cell: Cell, context: Context) -> tuple[Record, TaskResult]:
    """Score a copy of an encoder; return the record and what the task found."""
    task: Task = plugins.load("tasks", cell.task)()
    own = copy.deepcopy(encoder)
    weights = own.weights_sha256()
    seed_everything(context.seed)
    started = time.monotonic()
    scores = task.evaluate(own, context)
    history = encoder.pretraining
    speed = history.views_seen / history.seconds if history.seconds else None
    data = dict(scores.data)
    if "pretraining" in plugins.load("methods", cell.method).datasets:
        data["corpus"] = context.images.fingerprint
    sizes = context.data.sizes()
    result = Record(
        **_identity(cell, context),
        status="ok",
        value=scores.value,
        scores=scores.scores,
        selection=scores.selection,
        flags=scores.flags + _skipped(context.data),
        encoder=EncoderFacts(
            backbone=encoder.backbone,
            sees=list(encoder.inputs),
            weights_sha256=weights,
            parameters=sum(p.numel() for p in encoder.parameters()),
        ),
        pretraining=PretrainingFacts(
            views_seen=history.views_seen,
            seconds=history.seconds,
            images_per_second=speed,
            logged=history.logged,
        ),
        timings=scores.timings | {"evaluate": time.monotonic() - started},
        peak_memory_mb=peak_memory_mb(context.device),
        data=data,
        images={name: sizes[name] for name in data},
    )
    return result, scores


def _skipped(data: Data) -> list[str]:
    count = len(data.corpus.images.skipped) if data.corpus else 0
    return [f"{count} damaged corpus images skipped"] if count else []


def _save_failure(cell: Cell, context: Context, request: Request, error: Exception) -> None:
    # A loader's worker hands its error on with the traceback in front of the message.
    last = (str(error).strip() or "no message").splitlines()[-1].strip()
    kind = "" if isinstance(error, UserError) or "Error: " in last else f"{type(error).__name__}: "
    message = kind + last
    failed = Record(**_identity(cell, context), status="failed", error=message)
    if distributed.is_main():
        storage.save(failed, cell.path(request))
    context.reporter.say(f"{cell}: FAILED: {message}")
    if request.verbose:
        context.reporter.say("".join(traceback.format_exception(error)))


def _identity(cell: Cell, context: Context) -> dict[str, Any]:
    task = plugins.load("tasks", cell.task)
    return {
        "suite": context.suite.name,
        "suite_sha256": context.suite.sha256,
        "suite_settings": context.suite.model_dump(mode="json"),
        "method": cell.method,
        "method_code": plugins.code("methods", cell.method),
        "task": cell.task,
        "task_version": task.version,
        "task_code": plugins.code("tasks", cell.task),
        "metric": task.metric,
        "seed": cell.seed,
        "environment": describe(context.device),
        "created": storage.now(),
    }
