"""Averaged teachers: copies of networks whose weights follow those of the networks.

Parameters are averaged, buffers are not. A teacher normalizes its batches by their own statistics,
as its student does, and the running statistics of its batch norms are those of its own batches. So
do the released codes of MoCo, BYOL and DINO, which average parameters alone. (The statistics of the
student would not be those of the averaged weights.)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import torch
from torch import nn


def make_teacher(students: Iterable[nn.Module]) -> nn.ModuleList:
    """Copies of networks without gradients, in the same order."""
    return nn.ModuleList(copy.deepcopy(student) for student in students).requires_grad_(False)


@torch.no_grad()
def follow(teacher: nn.ModuleList, students: Iterable[nn.Module], momentum: float) -> None:
    """Move every parameter of a teacher to `momentum` x itself + (1 - `momentum`) x the student's.

    Args:
        teacher: by `make_teacher` of the same students.
        students: after their step.
        momentum: 0 to 1.
    """
    for copied, student in zip(teacher, students, strict=True):
        for own, new in zip(copied.parameters(), student.parameters(), strict=True):
            own.lerp_(new, 1 - momentum)


def rising_momentum(first: float, step: int, steps: int) -> float:
    """A momentum that rises from `first` to 1 by a cosine (Grill et al. 2020, section 3.2).

    Args:
        first: 0 to 1, at step 0.
        step: 0-based.
        steps: of the whole run.
    """
    return 1 - (1 - first) * (math.cos(math.pi * step / steps) + 1) / 2
