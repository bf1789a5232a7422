"""`bench doctor`: is this checkpoint read right, before hours are spent?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import timm
from PIL import Image
from rich import box
from rich.table import Table
from torch import Tensor

from bench import plugins
from bench.commands import plan
from bench.commands.request import Request
from bench.config.schema import PRETRAINING
from bench.data.datasets import open_datasets
from bench.data.image_files import read, resize_exact
from bench.data.image_folder import LabeledImages
from bench.encoders.encoder import Encoder
from bench.encoders.promises import check_promises
from bench.encoders.weights import how_read
from bench.errors import UserError, explanation, one_line
from bench.evaluation import diagnostics, visualize
from bench.evaluation.diagnostics import Stage
from bench.runtime.device import seed_everything, select_device
from bench.runtime.progress import Reporter
from bench.training.context import Context

IMAGES = 256  # that the features are looked at on
QUERIES = 6  # of the image of nearest neighbors: its rows
NEIGHBORS = 7
COLLAPSED = 2.0  # directions; fewer of the last features are none to speak of
MOSTLY = 0.5  # share of channels
SURE = 3.0  # standard errors by which neighbors must be worse than an untrained network's


@dataclass(frozen=True)
class Diagnosis:
    """What was seen of one encoder.

    Attributes:
        facts: a word and what there is to say, in order.
        stages: fine to coarse.
        suspicions: what speaks for weights that were read wrong; empty if nothing does.
        image: of nearest neighbors.
    """

    facts: tuple[tuple[str, str], ...]
    stages: tuple[Stage, ...]
    suspicions: tuple[str, ...]
    image: Path

    def render(self) -> Iterator[Table | str]:
        """What the terminal shows."""
        grid = Table(box=None, show_header=False)
        grid.add_column(style="bold", no_wrap=True)
        grid.add_column(overflow="fold")
        for fact in self.facts:
            grid.add_row(*fact)
        yield grid
        table = Table(box=box.SIMPLE)
        for heading in ("stage", "channels", "norm", "effective rank", "dead channels"):
            table.add_column(heading, justify="right")
        for stage in self.stages:
            values = (f"{stage.norm:.3g}", f"{stage.effective_rank:.1f}", f"{stage.dead:.0%}")
            table.add_row(stage.name, str(stage.channels), *values)
        yield table
        for suspicion in self.suspicions:
            yield f"SUSPICIOUS: {suspicion}"
        if not self.suspicions:
            yield "nothing suspicious; look at the image of nearest neighbors too"


def diagnose(request: Request, reporter: Reporter) -> Diagnosis:
    """Read the weights of one method and look at its features on pretraining images.

    Args:
        request: its one method is looked at; the suite says which images.
        reporter: for progress.

    Raises:
        UserError: the weights cannot be read, or the encoder breaks a promise.
    """
    (name,) = request.methods
    if plugins.describe("methods", name).trains_on_suite:
        raise UserError(
            f"{name}: is trained by the harness; doctor looks at weights from elsewhere"
        )
    device = select_device(request.device)
    plan.check_cache(request.cache)
    context = Context(request.suite, name, 0, device, {}, request.cache, reporter)
    encoder: Encoder = plugins.load("methods", name)().pretrain(context).to(device).eval()
    check_promises(encoder, name)
    datasets = open_datasets(
        request.suite, {PRETRAINING}, request.data_root, request.cache, reporter
    )
    context = replace(context, datasets=datasets)
    seed_everything(0)
    untrained = untrained_network(encoder.backbone)
    images = some_images(context.images)
    if len(images.labels) < 2:
        raise UserError(f"suite {request.suite.name}: doctor compares images, and it has one")
    size = request.suite.pretraining.crop
    values = _features(encoder, name, images, size)
    stages = tuple(diagnostics.stage(key, value) for key, value in values.items())
    last = list(values.values())[-1]
    nearest = diagnostics.neighbors(last, NEIGHBORS)
    path = request.out / "doctor" / f"{name}.png"
    draw_neighbors(images, nearest, path)
    facts = [("weights", plugins.describe("methods", name).constants["reference"])]
    facts += how_read(encoder)
    suspicions = list(suspicions_of(encoder, stages))
    count, fresh = diagnostics.batch_norms(encoder)
    if count:
        facts.append(("batch norms", f"{count}, {fresh} of them with the statistics of the start"))
    if images.classes:
        own = agreement(images.labels, nearest)
        text = f"{own:.0%} of nearest neighbors have the image's class"
        if untrained is None:
            beside = f"no untrained network to compare: {encoder.backbone} is no plain timm model"
        else:
            averages = diagnostics.averages(untrained.to(device).eval(), images.images, size)
            base = list(averages.values())[-1]
            theirs = agreement(images.labels, diagnostics.neighbors(base, 1))
            beside = f"{theirs:.0%} of those of an untrained {encoder.backbone}"
            suspicions += worse_than_untrained(own, theirs, len(images.labels))
        facts.append(("neighbors", f"{text}; {beside}"))
    facts.append(("image", str(path)))
    return Diagnosis(tuple(facts), stages, tuple(suspicions), path)


def _features(encoder: Encoder, name: str, images: LabeledImages, size: int) -> dict[str, Tensor]:
    """The averages of every stage.

    Raises:
        UserError: the network cannot compute images of the suite's size.
    """
    try:
        return diagnostics.averages(encoder, images.images, size)
    except (RuntimeError, ValueError) as error:
        if explanation(error):
            raise
        raise UserError(
            f"{name}: cannot compute images of {size} x {size} pixels, as this suite has: "
            f"{one_line(str(error))}"
        ) from None


def untrained_network(backbone: str) -> Encoder | None:
    """An untrained network of a timm model with stages; None of any other backbone."""
    if not timm.is_model(backbone):
        return None
    try:
        return Encoder(backbone)
    except UserError:
        return None


def suspicions_of(encoder: Encoder, stages: tuple[Stage, ...]) -> Iterator[str]:
    """What speaks for weights that were read wrong, from the features alone."""
    count, fresh = diagnostics.batch_norms(encoder)
    if fresh:
        yield f"{fresh} of {count} batch norms have the statistics of the start: were they saved?"
    for stage in stages:
        if stage.dead > MOSTLY:
            yield f"{stage.dead:.0%} of the channels of stage {stage.name} are the same everywhere"
    if stages[-1].effective_rank < COLLAPSED:
        rank = stages[-1].effective_rank
        yield f"the last features spread over {rank:.1f} directions: they are collapsed"


def some_images(split: LabeledImages) -> LabeledImages:
    """At most `IMAGES` of a split, evenly spread over it."""
    total = len(split.images.files)
    rows = np.unique(np.linspace(0, total - 1, min(IMAGES, total)).round().astype(int))
    files = tuple(split.images.files[row] for row in rows)
    return replace(split, images=replace(split.images, files=files), labels=split.labels[rows])


def agreement(labels: np.ndarray, nearest: np.ndarray) -> float:
    """Share of images whose nearest neighbor has their class."""
    return float(np.mean(labels[nearest[:, 0]] == labels))


def worse_than_untrained(own: float, untrained: float, count: int) -> Iterator[str]:
    """Whether neighbors are worse than an untrained network's, beyond chance."""
    error = float(np.sqrt((own * (1 - own) + untrained * (1 - untrained)) / count))
    if untrained - own > SURE * error:
        yield (
            "nearest neighbors are worse than an untrained network's: is the layout, the key or "
            "the input another?"
        )


def draw_neighbors(images: LabeledImages, nearest: np.ndarray, path: Path) -> None:
    """Write an image: in each row a query and its nearest neighbors."""
    queries = np.linspace(0, len(nearest) - 1, min(QUERIES, len(nearest))).round().astype(int)
    rows = [index for query in queries for index in (query, *nearest[query])]
    files = [images.images.root / images.images.files[index] for index in rows]
    panels = [resize_exact(read(file), visualize.SIDE) for file in files]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(visualize.grid(panels)).save(path)
