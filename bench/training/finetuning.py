"""Fine-tuning: a task's network, trained by the loop of pretraining, its rate chosen beforehand.

A fine-tuned network is to that loop what a pretext task is: it says what an image becomes and what
is minimized. Its images are a task's training list, and the label of each is its place there, by
which it finds its boxes, mask or classes.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from bench.config.schema import Recipe, Tuning
from bench.data.image_files import ImageFiles
from bench.data.image_folder import LabeledImages
from bench.encoders.encoder import Encoder
from bench.errors import UserError
from bench.runtime import distributed
from bench.runtime.device import fast_bfloat16, seed_everything
from bench.runtime.environment import library_versions
from bench.runtime.files import atomic_write
from bench.runtime.fingerprint import digest
from bench.training.context import Context
from bench.training.trainer import NonFiniteLossError, TrainableModule, Trainer


@dataclasses.dataclass(frozen=True)
class Job(Context):
    """A context for one training: its own recipe, images and name.

    Attributes:
        own: the recipe.
        images: the training images; the label of each is its place in the task's list.
        about: everything else that decides the weights, JSON-compatible.
    """

    own: Recipe
    images: LabeledImages
    about: dict[str, Any]

    @property
    def recipe(self) -> Recipe:
        """How the network is trained."""
        return self.own

    @property
    def corpus(self) -> LabeledImages:
        """What it is trained on."""
        return self.images

    @cached_property
    def key(self) -> str:
        """Digest of everything that decides the weights."""
        return digest(
            {
                **self.about,
                "recipe": self.own.model_dump(mode="json"),
                "images": [self.images.fingerprint, self.images.labels.tolist()],
                "seed": self.seed,
                "versions": library_versions(),
                "device": [self.device.type, fast_bfloat16(self.device)],
            }
        )


class FineTunedNetwork(TrainableModule):
    """A task's network on an encoder; a subclass adds its head, `example` and `loss`.

    Args:
        encoder: trained with the head, unless `frozen`.
        frozen: whether it keeps its weights and statistics.
    """

    def __init__(self, encoder: Encoder, frozen: bool) -> None:
        super().__init__()
        self.encoder, self.frozen = encoder, frozen
        self.logged = {}
        encoder.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> FineTunedNetwork:
        """Switch to training; a frozen encoder stays as it is."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self


def finite(outputs: Tensor) -> Tensor:
    """The outputs of a network that did not diverge.

    Raises:
        NonFiniteLossError: it did.
    """
    if not bool(outputs.isfinite().all()):
        raise NonFiniteLossError("the network's outputs are not finite")
    return outputs


Network = TypeVar("Network", bound=FineTunedNetwork)


def tune(
    make: Callable[[], Network],
    score: Callable[[Network, Sequence[int]], float],
    images: ImageFiles,
    settings: Tuning,
    context: Context,
    about: dict[str, Any],
) -> tuple[Network, dict[str, Any]]:
    """Choose the rate on a held-out part of the training list, then train on the whole of it.

    What is finished is kept in the cache: a run that was killed goes on from there.

    Args:
        make: a fresh network on a copy of the encoder that is scored.
        score: the headline of a network on some images of the list, higher is better.
        images: the training list.
        settings: of the task.
        context: the cell.
        about: what else decides weights and scores: digests of the task's code, of the encoder
            and of the training list with its truth; which classes there are, and which count.

    Returns:
        The trained network in evaluation mode, and the record's `selection`.

    Raises:
        NonFiniteLossError: every candidate diverged, or the chosen one did on the whole list.
        UserError: the held-out images show nothing that counts.
    """
    order = np.random.default_rng(0).permutation(len(images.files))
    held, kept = np.split(order, [max(1, round(len(order) * settings.held_out))])
    scores = []
    for rate in settings.learning_rates:
        recipe = settings.recipe(rate, settings.trial)
        job = _job(images, np.sort(kept), recipe, settings, context, about)
        scores.append(_trial(make, score, np.sort(held).tolist(), job, f"trying rate {rate:g}"))
    if not any(map(math.isfinite, scores)):
        raise NonFiniteLossError(f"diverged at every rate of {list(settings.learning_rates)}")
    best = settings.learning_rates[int(np.nanargmax(scores))]
    recipe = settings.recipe(best, 1.0)
    job = _job(images, np.arange(len(order)), recipe, settings, context, about)
    network = _trained(make, job, f"fine-tuning, rate {best:g}")
    selection = {
        "learning_rate": best,
        "learning_rates": list(settings.learning_rates),
        "held_out_scores": [s if math.isfinite(s) else None for s in scores],
        "candidates": len(scores),
        "held_out": settings.held_out,
        "trial": settings.trial,
        "frozen": settings.frozen,
    }
    return network.eval(), selection


def _job(
    images: ImageFiles,
    places: np.ndarray,
    recipe: Recipe,
    settings: Tuning,
    context: Context,
    about: dict[str, Any],
) -> Job:
    """One training on some places of the list; all of the settings but the choice decide it."""
    choice = {"learning_rates", "trial", "held_out"}
    decided = settings.model_dump(mode="json", exclude=choice)
    files = tuple(images.files[k] for k in places)
    chosen = dataclasses.replace(images, files=files)
    fields = {f.name: getattr(context, f.name) for f in dataclasses.fields(Context)}
    about = {**about, "settings": decided}
    return Job(**fields, own=recipe, images=LabeledImages(chosen, places, ()), about=about)


def _trial(
    make: Callable[[], Network],
    score: Callable[[Network, Sequence[int]], float],
    held: list[int],
    job: Job,
    name: str,
) -> float:
    """What a candidate scores on the images held out; nan if it diverged."""
    path = job.cache / "finetuned" / f"{job.key[:32]}.json"
    if distributed.all_processes(path.exists()):
        return float(json.loads(path.read_text(encoding="utf-8")))
    try:
        value = score(_train(make, job, name).eval(), held)
        if math.isnan(value):
            raise UserError(
                f"the {len(held)} held-out images show nothing that counts; raise held_out"
            )
    except NonFiniteLossError:
        value = math.nan
    value = distributed.broadcast(value)
    _write(path, json.dumps(value).encode())
    return value


def _trained(make: Callable[[], Network], job: Job, name: str) -> Network:
    """The network trained on the whole list, from the cache or trained now."""
    path = job.cache / "finetuned" / f"{job.key[:32]}.pt"
    if distributed.all_processes(path.exists()):
        network = make().to(job.device)
        network.load_state_dict(torch.load(path, map_location=job.device, weights_only=True))
        return network
    network = _train(make, job, name)
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    _write(path, buffer.getvalue())
    return network


def _train(make: Callable[[], Network], job: Job, name: str) -> Network:
    seed_everything(job.seed)
    network = make()
    network.recipe = job.recipe
    training = Trainer(network, job)
    with job.reporter.stage(name, job.own.views) as bar:
        training.run(bar)
    training.checkpoint.unlink(missing_ok=True)
    if not all(bool(t.isfinite().all()) for t in network.state_dict().values()):
        raise NonFiniteLossError("the network's weights are not finite")
    return network


def _write(path: Path, content: bytes) -> None:
    if distributed.is_main():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)
    distributed.barrier()
