"""PretextTask tasks: methods whose labels come from the images themselves."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from accelerate.utils import send_to_device
from torch import Tensor
from torch.utils.data import default_collate
from torchvision.utils import make_grid

from bench.data.stream import Stream
from bench.data.transforms import random_crop
from bench.encoders.encoder import Encoder
from bench.runtime.device import seed_everything
from bench.training.context import Context
from bench.training.trainer import TrainableModule, Trainer

SAMPLES = 10  # images in each row of a method's samples


class PretextTask(TrainableModule):
    """A method that trains an encoder on labels made from the images themselves.

    A subclass builds its heads in `build`, says in `example` what an image becomes and in
    `loss` what is minimized; `pretrain` is inherited.

    Attributes:
        reference: paper, year, link.
        sees: what of an image each part of the encoder sees (`Encoder`).
    """

    reference: ClassVar[str]
    reads: ClassVar[tuple[str, ...]] = ("corpus",)
    sees: ClassVar[tuple[str, ...]] = ("rgb",)

    def build(self, context: Context) -> None:
        """Make the networks. Called once, after seeding; extend it to add heads."""
        self.encoder = Encoder(context.suite.backbone.name, self.sees)
        self.recipe = context.recipe
        self.logged = {}

    def example(self, image: Tensor, label: int) -> Any:
        """Turn one image into what the loader collates; runs in a worker.

        Args:
            image: uint8 (3, H, W).
            label: the corpus's class; only `supervised` may use it.

        Returns:
            By default a random crop, uint8 (3, crop, crop).
        """
        return random_crop(image, self.recipe)

    def samples(self, batch: Any) -> Tensor | None:
        """What was learned, to look at: rows of RGB images in [0, 1], (rows, columns, 3, h, w).

        Called once at the end of training, in evaluation mode, on the first images of the stream.
        """
        return None

    def pretrain(self, context: Context) -> Encoder:
        """Train by the suite's recipe, resuming from the last checkpoint.

        Raises:
            NonFiniteLossError: the loss diverged.
        """
        self.build(context)
        training = Trainer(self, context)
        with context.reporter.stage("pretraining", self.recipe.views) as bar:
            training.run(bar)
        self.encoder.samples = self._grid(context)
        training.checkpoint.unlink(missing_ok=True)
        return self.encoder

    def _grid(self, context: Context) -> Tensor | None:
        """`samples` of the stream's first images as one image, uint8 (3, H, W)."""
        seed_everything(context.seed)
        stream = Stream(context.corpus, context.seed, self.example, SAMPLES)
        device = next(self.parameters()).device
        batch = default_collate([stream[i] for i in range(SAMPLES)])
        self.eval()
        with torch.no_grad():
            rows = self.samples(send_to_device(batch, device))
        if rows is None:
            return None
        tiles = rows.float().clamp(0, 1).flatten(0, 1).cpu()
        grid: Tensor = make_grid(tiles, nrow=rows.shape[1], pad_value=1.0)
        return (grid * 255).round().byte()
