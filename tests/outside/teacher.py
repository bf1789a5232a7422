"""A student that matches an averaged teacher on several crops, with labels made anew each epoch.

Not a published method: it uses every hook that modern ones need.
"""

from __future__ import annotations

import copy
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as transforms

from bench.data.transforms import random_crop, to_unit_range
from bench.training.parts.heads import Classifier
from bench.training.pretext import PretextTask

CLUSTERS = 4
MOMENTUM = 0.9


class Teacher(PretextTask):
    """Two full crops and two small ones, an averaged teacher, clusters of every epoch."""

    reference: ClassVar[str] = "ours, https://example.org"
    version: ClassVar[int] = 1
    views_per_image: ClassVar[int] = 4
    uses_labels: ClassVar[bool] = True

    def build(self, context):
        """Add the teacher and a classifier of the clusters."""
        super().build(context)
        self.teacher = copy.deepcopy(self.encoder).requires_grad_(False)
        self.head = Classifier(self.encoder.channels[-1], CLUSTERS)

    def start_epoch(self, epoch, job):
        """Clusters drawn at random, other ones in each epoch."""
        return np.random.default_rng([job.seed, epoch]).integers(0, CLUSTERS, len(job.labels))

    def transform(self, image, label):
        """Two crops, two crops of half the size, and the image's cluster of this epoch."""
        crops = [random_crop(image, self.recipe) for _ in range(4)]
        side = self.recipe.crop // 2
        small = [transforms.resize(crop, [side, side], antialias=True) for crop in crops[2:]]
        return torch.stack(crops[:2]), torch.stack(small), label % CLUSTERS

    def loss(self, batch):
        """Distance of the student's crops from the teacher's first, and the clusters' loss."""
        full, small, clusters = batch
        first = self.encoder(to_unit_range(full[:, 0]))[-1]
        views = [self.encoder(to_unit_range(full[:, 1]))[-1]]
        views += [self.encoder(to_unit_range(small[:, k]))[-1] for k in range(2)]
        with torch.no_grad():
            target = self.teacher(to_unit_range(full[:, 0]))[-1].mean((2, 3))
        away = [1 - F.cosine_similarity(v.mean((2, 3)), target).mean() for v in views]
        return torch.stack(away).sum() + F.cross_entropy(self.head(first), clusters)

    def after_step(self, step, steps):
        """Move the teacher towards the student."""
        students = self.encoder.state_dict()
        for name, value in self.teacher.state_dict().items():
            if value.is_floating_point():
                value.lerp_(students[name], 1 - MOMENTUM)
