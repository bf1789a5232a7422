"""MoCo v2: which of many keys is the other view of this image?

What was kept of the papers and their released code: the encoder and a head of one hidden layer
make a query of one view. Their averaged copies make the key of the other view. The loss is the
cross-entropy of that key among the last keys of other images, which wait in a queue (He et al.
2020, section 3.2; Chen et al. 2020, table 1: the head, blur, the temperature).

What changed: the suite's backbone takes ResNet-50's place. Images are not shuffled over processes
before keys are made: there, each process had batch statistics of its own, by which a key could tell
its query. Here the statistics are those of the whole batch. The averaged copies come on top of the
budget, as other methods' decoders do.
"""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.schema import Fraction, Positive
from bench.training.context import Context
from bench.training.parts.heads import perceptron
from bench.training.parts.teacher import follow, make_teacher
from bench.training.parts.two_views import (
    Distortion,
    ViewRecipe,
    Views,
    crop_views,
    distorted_views,
)
from bench.training.pretext import PretextTask
from bench.training.pretext_score import RETRIEVAL, Scores, retrievals
from bench.training.whole_batch import rows_of_all

# Released main_moco.py, --aug-plus.
DISTORTION = Distortion(jitter=(0.4, 0.4, 0.4, 0.1), blurred=0.5)


class MoCo(PretextTask):
    """Momentum contrast on the suite's backbone."""

    reference: ClassVar[str] = "Chen et al. 2020, https://arxiv.org/abs/2003.04297"
    version: ClassVar[int] = 1
    measure = RETRIEVAL

    class Settings(ViewRecipe):
        """The recipe, and the keys of the released main_moco.py."""

        temperature: Annotated[float, Field(gt=0)] = 0.2
        """Divides similarities (moco-t of v2)."""
        queue: Positive = 65_536
        """Keys that a query is compared with, beside its own (moco-k)."""
        teacher_momentum: Fraction = 0.999
        """Share that the copies keep of their weights in each step (moco-m)."""
        hidden: Positive = 2048
        """Width of the head's hidden layer (builder.py: that of its input)."""
        dimensions: Positive = 128
        """Of queries and keys (moco-dim)."""

    recipe: Settings

    def build(self, context: Context) -> None:
        """Add the head, the averaged copies, and a queue of random keys."""
        super().build(context)
        widths = [self.encoder.channels[-1], self.recipe.hidden, self.recipe.dimensions]
        self.projection = perceptron(widths, norm=False)
        self.teacher = make_teacher([self.encoder, self.projection])
        self.queue: Tensor
        keys = torch.randn(self.recipe.queue, self.recipe.dimensions)
        self.register_buffer("queue", F.normalize(keys, dim=1))

    def transform(self, image: Tensor, label: int) -> Views:
        """Two random crops and their distortions."""
        return crop_views(image, self.recipe, [DISTORTION] * 2)

    def loss(self, batch: Views) -> Tensor:
        """Cross-entropy of the key; `batch` contains crops and their distortions."""
        queries, keys = self._embed(*distorted_views(batch))
        logits = contrast(queries, keys, self.queue) / self.recipe.temperature
        own = torch.zeros(len(logits), dtype=torch.int64, device=logits.device)
        self.keys = rows_of_all(keys)
        self.log("accuracy", (logits.argmax(1) == own).float().mean())
        return F.cross_entropy(logits, own)

    def after_step(self, step: int, steps: int) -> None:
        """Let the copies follow, and the batch's keys replace the oldest ones."""
        follow(self.teacher, [self.encoder, self.projection], self.recipe.teacher_momentum)
        self.queue.copy_(torch.cat([self.keys, self.queue])[: len(self.queue)])

    def score(self, batch: Views) -> Scores:
        """Whether queries and keys find each other in the batch."""
        queries, keys = self._embed(*distorted_views(batch))
        return retrievals(queries @ keys.T)

    def _embed(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Queries of the first views and keys of the second, (B, dimensions) of length 1."""
        queries = _project([self.encoder, self.projection], first)
        with torch.no_grad():
            keys = _project(self.teacher, second)
        return queries, keys


def contrast(queries: Tensor, keys: Tensor, queue: Tensor) -> Tensor:
    """Similarity of each query to its key, then to every key of the queue, (B, 1 + K).

    Args:
        queries: (B, D) of length 1.
        keys: the same of the other views.
        queue: (K, D) of length 1.
    """
    own = (queries * keys).sum(1, keepdim=True)
    with torch.autocast(queries.device.type, enabled=False):
        return torch.cat([own, queries @ queue.T], 1)


def _project(networks: nn.ModuleList | list[nn.Module], views: Tensor) -> Tensor:
    encoder, projection = networks
    return F.normalize(projection(encoder(views)[-1].mean((2, 3))).float(), dim=1)
