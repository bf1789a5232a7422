"""Pretext tasks: methods whose labels come from the images themselves."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.utils.data import default_collate
from torchvision.utils import make_grid

from bench.config.schema import Recipe
from bench.data.image_folder import LabeledImages
from bench.data.stream import Stream
from bench.data.transforms import random_crop
from bench.encoders.encoder import Encoder
from bench.encoders.pretraining import PretextScore
from bench.encoders.promises import check_promises
from bench.runtime import distributed
from bench.runtime.device import seed_everything
from bench.training.context import Context
from bench.training.pretext_score import BATCH, SEED, VIEWS, Measure, Scores, summarize
from bench.training.trainer import Objective, TrainableModule, Trainer, TrainingJob

COLUMNS = 10  # images in each row of a method's visualization


class PretextTask(TrainableModule):
    """A method that trains an encoder on labels made from the images themselves.

    A subclass adds its heads in `build`, turns an image into network input in `transform`, and
    computes what is minimized in `loss`. It inherits `pretrain`.

    Attributes:
        reference: paper, year, link.
        version: raise it when the weights may change.
        datasets: what it trains on.
        inputs: of the encoder's branches (`Encoder`).
        backbones: the kind that it can train, of `encoders.kinds`; empty for any.
        measure: what `score` returns; None for a method that has no score.
        recipe: how it is trained; `build` sets it.
    """

    reference: ClassVar[str]
    version: ClassVar[int] = 1
    datasets: ClassVar[tuple[str, ...]] = ("pretraining",)
    inputs: ClassVar[tuple[str, ...]] = ("rgb",)
    backbones: ClassVar[str] = ""

    measure: ClassVar[Measure | None] = None

    recipe: Recipe

    def build(self, context: Context) -> None:
        """Make the networks. Called once, after seeding; extend it to add heads."""
        self.encoder = Encoder(context.backbone.name, self.inputs)
        self.recipe = context.recipe

    def transform(self, image: Tensor, label: int) -> Any:
        """Turn one image into what the loader collates; runs in a worker, on the CPU.

        Args:
            image: uint8 (3, H, W).
            label: the image's class, for `supervised` alone, or its label from `start_epoch`.

        Returns:
            By default a random crop, uint8 (3, crop, crop).
        """
        return random_crop(image, self.recipe)

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """The loss of a collated batch, a scalar; runs on the device."""

    def objectives(self) -> dict[str, Objective]:
        """One loss for all parameters that need gradients."""
        return {"loss": Objective(self.loss, _trained(self))}

    def visualize(self, batch: Any) -> Tensor | None:
        """Rows of RGB images in [0, 1] that show what was learned, (rows, columns, 3, h, w).

        Called once at the end of training, in evaluation mode, on the first images of the stream.
        """
        return None

    def score(self, batch: Any) -> Scores:
        """The measure on validation images: of the network, and of an answer without training.

        Called once after training for each of some batches that `transform` made, in evaluation
        mode, without gradients. It needs a `measure`.

        Returns:
            Two values for each image, (B,) each.
        """
        raise NotImplementedError

    def pretrain(self, context: Context) -> Encoder:
        """Train by the suite's recipe, resuming from the last checkpoint.

        Raises:
            NonFiniteLossError: the loss diverged.
        """
        self.build(context)
        check_promises(self.encoder, context.method)
        folder = context.cache / "checkpoints"
        job = TrainingJob(
            name=context.method,
            recipe=self.recipe,
            images=context.images.images,
            labels=context.images.labels,
            seed=context.seed,
            device=context.device,
            checkpoint=folder / f"{context.method}-{context.key[:24]}.pt",
            key=context.key,
            remedy="lower pretraining.learning_rate",
            tracking=context.run_tracking(),
        )
        trainer = Trainer(self, job)
        with context.reporter.stage("pretraining", self.recipe.views) as bar:
            pretraining = trainer.run(bar)
        self.encoder.pretraining = replace(pretraining, pretext=self.score_on(context.validation))
        self.encoder.samples = self._grid(job)
        job.checkpoint.unlink(missing_ok=True)
        trainer.damaged.clear()
        return self.encoder

    def score_on(self, images: LabeledImages | None) -> PretextScore | None:
        """The score on validation images, 512 views of them, the same ones for every run.

        It leaves the state of random draws as it is.
        """
        if images is None or self.measure is None:
            return None
        count = min(VIEWS // self.views_per_image, len(images.labels))
        stream = Stream(images.images, images.labels, SEED, self.transform, count)
        parts = np.array_split(np.arange(count), math.ceil(count / BATCH))
        device = next(self.parameters()).device
        self.eval()
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            scores = distributed.in_shares(parts, lambda p: self._score_part(stream, p, device))
        values, trivial = (torch.cat(column) for column in zip(*scores, strict=True))
        return summarize(self.measure, values, trivial)

    def _score_part(self, stream: Stream, part: np.ndarray, device: torch.device) -> Scores:
        """`score` of the images at some positions of a stream."""
        batch = default_collate([stream[position] for position in part.tolist()])
        seed_everything(SEED)
        values, trivial = self.score(send_to_device(batch, device))
        return values.cpu(), trivial.cpu()

    def _grid(self, job: TrainingJob) -> Tensor | None:
        """`visualize` of the stream's first images as one image, uint8 (3, H, W)."""
        seed_everything(job.seed)
        stream = Stream(job.images, job.labels, job.seed, self.transform, COLUMNS)
        device = next(self.parameters()).device
        batch = default_collate([stream[i] for i in range(COLUMNS)])
        self.eval()
        with torch.no_grad():
            rows = self.visualize(send_to_device(batch, device))
        if rows is None:
            return None
        tiles = rows.float().clamp(0, 1).flatten(0, 1).cpu()
        grid: Tensor = make_grid(tiles, nrow=rows.shape[1], pad_value=1.0)
        return (grid * 255).round().byte()


class AdversarialPretextTask(PretextTask):
    """A pretext task with a discriminator, trained in turn with everything else.

    Each step first minimizes `generator_loss` by the generator's parameters, then
    `discriminator_loss` by the discriminator's.

    Attributes:
        discriminator: set by `build`. All other parameters are the generator's.
    """

    discriminator: nn.Module

    @abstractmethod
    def generator_loss(self, batch: Any) -> Tensor:
        """The generator's loss; it leaves what it generated on `self`, detached."""

    @abstractmethod
    def discriminator_loss(self, batch: Any) -> Tensor:
        """The discriminator's loss on the same batch and on what was generated from it."""

    def loss(self, batch: Any) -> Tensor:
        """The generator's loss, which is what trains the encoder."""
        return self.generator_loss(batch)

    def objectives(self) -> dict[str, Objective]:
        """The generator's loss, then the discriminator's."""
        discriminator = _trained(self.discriminator)
        opponents = {id(parameter) for parameter in discriminator}
        generator = [p for p in _trained(self) if id(p) not in opponents]
        return {
            "loss_generator": Objective(self.generator_loss, generator),
            "loss_discriminator": Objective(self.discriminator_loss, discriminator),
        }


def _trained(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that need gradients."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]
