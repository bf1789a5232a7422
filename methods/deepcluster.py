"""DeepCluster: in which cluster of its own features is an image?

What was kept of the paper and its released code: before each epoch k-means groups the features of
all images, which are reduced by PCA, whitened and normalized to length 1. The groups are the labels
of the epoch, for a linear classifier that begins anew. Features are those of the image's center,
at 7/8 of its shorter side; k-means takes 20 iterations from images drawn at random (clustering.py,
main.py). An image counts the less in the loss, the larger its cluster is, which the paper calls the
equal of sampling uniformly over clusters (section 3.3); the released code samples.

What changed: the suite's backbone takes AlexNet's place, and the average of its last stage that of
fully connected layers. Images are in color, not Sobel-filtered. Where a cluster becomes empty,
scikit-learn moves its center to the image farthest from its own; the paper splits another cluster.
The optimizer keeps its averages of the classifier's gradients when the classifier begins anew.

A budget of less than one epoch trains on clusters of the untrained network's features alone.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import normalized_mutual_info_score
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as transforms

from bench.config.schema import Positive, Recipe
from bench.data.stream import Stream
from bench.data.transforms import random_crop, to_unit_range
from bench.errors import UserError
from bench.runtime import distributed
from bench.runtime.device import loader_workers, yield_cores
from bench.runtime.pool import batches
from bench.training.context import Context
from bench.training.parts.heads import Classifier
from bench.training.pretext import PretextTask
from bench.training.pretext_score import Measure, Scores
from bench.training.trainer import TrainingJob

BATCH = 64  # images whose features are computed at a time
MARGIN = 8 / 7  # shorter side of the image of which the center is taken, in crops: 256 of 224
ITERATIONS = 20  # of k-means
DEVIATION = 0.01  # of a new classifier's weights
FLAT = 1e-6  # share of the largest variance below which one is rounding
TINY = 1e-30  # in place of 0, of features that are all the same


class DeepCluster(PretextTask):
    """Deep clustering on the suite's backbone."""

    reference: ClassVar[str] = "Caron et al. 2018, https://arxiv.org/abs/1807.05520"
    version: ClassVar[int] = 1
    measure = Measure("agreement of an image's parts", "other images", higher_is_better=True)

    class Settings(Recipe):
        """The recipe, and what k-means groups."""

        clusters: Positive = 10_000
        """Number of clusters, at most that of the images."""
        components: Positive = 256
        """Principal components of the features, at most as many as there are channels."""

    recipe: Settings

    def build(self, context: Context) -> None:
        """Add a classifier of the clusters, and what is known of them.

        Raises:
            UserError: there are more clusters than images.
        """
        super().build(context)
        images = len(context.images.labels)
        count = self.recipe.clusters
        if count > images:
            raise UserError(
                f"recipes.{context.method}.clusters = {count}: there are {images} images; "
                "set at most as many"
            )
        self.head = Classifier(self.encoder.channels[-1], count)
        self.clusters: Tensor
        self.weights: Tensor
        self.agreement: Tensor
        self.register_buffer("clusters", torch.zeros(images, dtype=torch.int64))
        self.register_buffer("weights", torch.ones(count))
        self.register_buffer("agreement", torch.zeros(()))

    def transform(self, image: Tensor, label: int) -> tuple[Tensor, int]:
        """A random crop, uint8 (3, crop, crop), and the image's cluster."""
        return random_crop(image, self.recipe), label

    def start_epoch(self, epoch: int, job: TrainingJob) -> np.ndarray:
        """Cluster all images by their features, and begin with a new classifier."""
        # First: a loader without workers, which decodes here, leaves another state of random draws.
        nn.init.normal_(self.head.linear.weight, std=DEVIATION)
        nn.init.zeros_(self.head.linear.bias)
        labels = self._cluster(epoch, job)
        before = self.clusters.cpu().numpy()
        self.agreement.fill_(normalized_mutual_info_score(before, labels) if epoch else 0.0)
        self.clusters.copy_(torch.from_numpy(labels))
        self.weights.copy_(torch.from_numpy(balance(labels, self.recipe.clusters)))
        return labels

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross-entropy of the cluster; `batch` contains crops and clusters (B,)."""
        crops, labels = batch
        logits = self._classify(to_unit_range(crops)).float()
        self.log("accuracy", (logits.argmax(1) == labels).float().mean())
        self.log("mutual_information", self.agreement)
        return (self.weights[labels] * F.cross_entropy(logits, labels, reduction="none")).mean()

    def score(self, batch: tuple[Tensor, Tensor]) -> Scores:
        """Whether a crop is put into the cluster of its own enlarged center, and of others'."""
        crops = to_unit_range(batch[0])
        side = crops.shape[-1]
        margin = max(1, side // 8)
        parts = F.interpolate(crops[:, :, margin:-margin, margin:-margin], side, mode="bilinear")
        first, second = (self._classify(views).argmax(1) for views in (crops, parts))
        same = (first[:, None] == second).float()
        own = same.diagonal()
        return own, (same.sum(1) - own) / max(1, len(own) - 1)

    def _classify(self, views: Tensor) -> Tensor:
        """Logits (B, clusters) of RGB in [0, 1], (B, 3, H, W)."""
        logits: Tensor = self.head(self.encoder(views)[-1])
        return logits

    def _cluster(self, epoch: int, job: TrainingJob) -> np.ndarray:
        """The cluster of every image, int64 (N,), the same in every process."""
        count = len(job.labels)
        transform = partial(center, side=self.recipe.crop)
        stream = Stream(job.images, job.labels, job.seed, transform, count)
        features: list[np.ndarray] = []
        distributed.in_rounds(self._features(stream), math.ceil(count / BATCH), features.append)
        seed = int(np.random.default_rng([job.seed, epoch]).integers(2**31))
        recipe = self.recipe

        def grouped() -> np.ndarray:
            vectors = whiten(np.concatenate(features), recipe.components)
            return cluster(vectors, recipe.clusters, seed)

        labels = np.empty(count, np.int64)
        labels[[stream.index(k) for k in range(count)]] = distributed.from_main(grouped)
        return labels

    def _features(self, stream: Stream) -> Iterator[np.ndarray]:
        """Averages of the last stage, float32 (B, C), of this process's batches of a stream."""
        positions = np.array_split(np.arange(len(stream)), math.ceil(len(stream) / BATCH))
        loader: DataLoader[Tensor] = DataLoader(
            stream,
            batch_sampler=distributed.share([part.tolist() for part in positions]),
            num_workers=loader_workers(),
            worker_init_fn=yield_cores,
        )
        self.eval()
        for images in batches(loader):
            with torch.no_grad():
                maps = self.encoder(to_unit_range(images.to(self.weights.device)))
            yield maps[-1].mean((2, 3)).float().cpu().numpy()


def center(image: Tensor, label: int, side: int) -> Tensor:
    """The center of an image, uint8 (3, side, side), whose shorter side is 8/7 of it."""
    small = transforms.resize(image, [round(MARGIN * side)], antialias=True)
    cropped: Tensor = transforms.center_crop(small, [side, side])
    return cropped


def whiten(features: np.ndarray, components: int) -> np.ndarray:
    """Principal components of features at equal variance, then each row at length 1.

    Args:
        features: float32 (N, C).
        components: how many to keep, at most C.

    Returns:
        float32 (N, min(components, C)).
    """
    centered = features - features.mean(0)
    variances, directions = np.linalg.eigh((centered.T @ centered).astype(np.float64))
    variances = np.maximum(variances[-components:], max(FLAT * variances[-1], TINY))
    vectors = centered @ (directions[:, -components:] / np.sqrt(variances)).astype(np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.maximum(lengths, TINY)
    return unit


def cluster(vectors: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The cluster of each row of (N, D), int64 (N,), by k-means."""
    kmeans = KMeans(
        count, init="random", n_init=1, max_iter=ITERATIONS, random_state=seed, algorithm="lloyd"
    )
    with threadpool_limits(torch.get_num_threads()), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer distinct rows than clusters
        return np.asarray(kmeans.fit_predict(vectors), np.int64)


def balance(labels: np.ndarray, count: int) -> np.ndarray:
    """The weight of an image of each cluster, float32 (count,): all clusters weigh the same.

    Over all images the mean is 1.
    """
    sizes = np.bincount(labels, minlength=count)
    return (len(labels) / np.count_nonzero(sizes) / np.maximum(sizes, 1)).astype(np.float32)
