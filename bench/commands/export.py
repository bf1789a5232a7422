"""`bench export`: the encoder of a record as a plain timm state dict."""

from __future__ import annotations

from pathlib import Path

from bench.commands.execute import open_for
from bench.commands.request import Cell, Locations
from bench.encoders import weights
from bench.errors import UserError
from bench.results import storage
from bench.runtime.device import select_device
from bench.runtime.progress import Reporter
from bench.training.context import Context
from bench.training.method import load_or_pretrain


def export(record: Path, file: Path, locations: Locations, reporter: Reporter) -> str:
    """Write the encoder that a record scored, from the cache or trained again.

    Returns:
        What was written, in one line.

    Raises:
        UserError: the record or the data cannot be used; the encoder is no plain timm model; or
            training it again, on another machine, gave other weights than the record's.
    """
    storage.check_name(record)
    scored = storage.read(record)
    if scored.encoder is None:
        raise UserError(f"{record}: failed; it has no encoder")
    if scored.weights:
        files = ", ".join(scored.files) or "see the record"
        raise UserError(f"{record}: scored weights from elsewhere ({files}); export those")
    if file.exists():
        raise UserError(f"{file}: is there already; give another name")
    request = locations.request(scored)
    cell = Cell(scored.method, scored.task, scored.seed)
    device = select_device(request.device)
    datasets = open_for([cell], request, reporter)
    context = Context(
        request.suite, cell.method, cell.seed, device, datasets, request.cache, reporter
    )
    encoder = load_or_pretrain(context)
    if encoder.weights_sha256() != scored.encoder.weights_sha256:
        raise UserError(
            f"{record}: its encoder is not in the cache, and training it again gave other weights; "
            "export on the machine that has it, or run the row here and export that"
        )
    count = weights.export(encoder, file)
    arch = encoder.backbone
    return f"{file}: {count} tensors of {arch}; read it with file:{file}?arch={arch}"
