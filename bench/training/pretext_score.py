"""The score of a pretext task: its own measure on validation images, beside a trivial answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.encoders.pretraining import PretextScore

VIEWS = 512  # of validation images that the encoder is shown, at most
BATCH = 64  # validation images that are scored at a time, at most; those of a batch share a mean
SEED = 0  # of their order, crops and questions: the same for every run
NORMAL = 1.96  # standard errors on both sides of a 95% interval

Scores = tuple[Tensor, Tensor]  # of the network and of the trivial answer, (B,) each


@dataclass(frozen=True)
class Measure:
    """What a pretext task is scored by.

    Attributes:
        name: in words, such as "squared error".
        trivial_answer: what answers without training, such as "the mean image".
        higher_is_better: whether it is an accuracy, 0 to 1, and not an error.
    """

    name: str
    trivial_answer: str
    higher_is_better: bool = False


ACCURACY = Measure("accuracy", "chance", higher_is_better=True)
RETRIEVAL = Measure("retrieval of the other view", "chance", higher_is_better=True)


def accuracies(logits: Tensor, labels: Tensor) -> Scores:
    """Accuracy of each image, and chance.

    Args:
        logits: of the questions about each image, (B, questions, classes).
        labels: their answers, (B, questions).
    """
    values = (logits.argmax(-1) == labels).float().mean(1)
    return values, torch.full_like(values, 1 / logits.shape[-1])


def retrievals(similarity: Tensor) -> Scores:
    """Whether each of two views finds the other one among those of the batch, and chance.

    Args:
        similarity: of each image's first view (row) to each image's second view (column), (B, B).
    """
    own = torch.arange(len(similarity), device=similarity.device)
    found = [(similarity.argmax(dim) == own).float() for dim in (0, 1)]
    values = torch.stack(found).mean(0)
    return values, torch.full_like(values, 1 / len(similarity))


def squared_errors(predicted: Tensor, trivial: Tensor, truth: Tensor) -> Scores:
    """Mean squared error of each image: of what is predicted, and of the trivial answer.

    Args:
        predicted: (B, ...).
        trivial: (B, ...), or of a shape that is broadcast to it.
        truth: (B, ...).
    """
    answers = (predicted, trivial)
    values, constant = (((answer - truth) ** 2).flatten(1).mean(1) for answer in answers)
    return values, constant


def absolute_errors(predicted: Tensor, trivial: Tensor, truth: Tensor) -> Scores:
    """Mean absolute error of each image; arguments as `squared_errors`."""
    answers = (predicted, trivial)
    values, constant = ((answer - truth).abs().flatten(1).mean(1) for answer in answers)
    return values, constant


def swapped_errors(predicted: Tensor, truth: Tensor) -> Scores:
    """Mean absolute error of each image: of its own prediction, and of those for other images.

    Realistic predictions err more than a constant one. Only those that depend on their image err
    less for it than for others: on average over images, a constant has the same error for both.

    Args:
        predicted: (B, ...).
        truth: of the same shape.
    """
    distances = torch.cdist(predicted.flatten(1), truth.flatten(1), p=1) / truth[0].numel()
    own = distances.diagonal()
    return own, (distances.sum(0) - own) / max(1, len(truth) - 1)


def total(scores: Sequence[Scores]) -> Scores:
    """The sum of several scores of the same images."""
    values, trivial = (torch.stack(column).sum(0) for column in zip(*scores, strict=True))
    return values, trivial


def summarize(measure: Measure, values: Tensor, trivial: Tensor) -> PretextScore | None:
    """The score over images; None for fewer than two, which have no interval.

    Args:
        measure: what was measured.
        values: of the network, (N,).
        trivial: of the trivial answer on the same images, (N,).
    """
    count = len(values)
    if count < 2:
        return None
    values = values.double()
    trivial = trivial.double()
    gains = values - trivial if measure.higher_is_better else trivial - values
    margin = NORMAL * float(gains.std()) / count**0.5
    return PretextScore(
        measure=measure.name,
        higher_is_better=measure.higher_is_better,
        value=float(values.mean()),
        trivial_answer=measure.trivial_answer,
        trivial=float(trivial.mean()),
        low=float(gains.mean()) - margin,
        high=float(gains.mean()) + margin,
        num_images=count,
    )
