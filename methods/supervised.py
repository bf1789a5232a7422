"""Supervised: labels of the pretraining images, with the budget of the self-supervised methods.

It shows what labels are worth there.
"""

from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from bench.data.transforms import random_crop, to_unit_range
from bench.training.context import Context
from bench.training.parts.heads import Classifier
from bench.training.pretext import PretextTask
from bench.training.pretext_score import ACCURACY, Scores, accuracies


class Supervised(PretextTask):
    """Classification of the pretraining images, by the same loop, recipe and budget."""

    reference: ClassVar[str] = "Krizhevsky et al. 2012, https://doi.org/10.1145/3065386"
    uses_labels: ClassVar[bool] = True
    version: ClassVar[int] = 1
    measure = ACCURACY

    def build(self, context: Context) -> None:
        """Add a classifier of the images' classes on the last stage."""
        super().build(context)
        self.head = Classifier(self.encoder.channels[-1], len(context.images.classes))

    def transform(self, image: Tensor, label: int) -> tuple[Tensor, int]:
        """A random crop, uint8 (3, crop, crop), and its label."""
        return random_crop(image, self.recipe), label

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross-entropy of the label; `batch` contains crops and labels (B,)."""
        crops, labels = batch
        logits = self._classify(crops)
        self.log("accuracy", (logits.argmax(1) == labels).float().mean())
        return F.cross_entropy(logits, labels)

    def score(self, batch: tuple[Tensor, Tensor]) -> Scores:
        """Accuracy of the label; chance is 1 in the number of classes."""
        crops, labels = batch
        return accuracies(self._classify(crops)[:, None], labels[:, None])

    def _classify(self, crops: Tensor) -> Tensor:
        """Logits (B, classes) of crops, uint8 (B, 3, H, H)."""
        logits: Tensor = self.head(self.encoder(to_unit_range(crops))[-1])
        return logits
