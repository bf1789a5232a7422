"""Differences of two records of one cell that rounding cannot explain. Imports no torch.

Versions, data, inputs and numbers of settings must be equal; so must the traces of training: order
and pixels of the first batches, the learning rate of every step, the views counted, the settings of
the optimizers. The losses of the first ten steps, and what these steps descend, may differ by
rounding (`LOSSES`, `DESCENTS`), and more from step to step, as training amplifies it (`GROWTH`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.encoders.pretraining import LearningRates, TrainingTrace
from bench.results.record import Record

LOSSES = 1e-3  # relative, of the first step
DESCENTS = 1e-2  # relative, of the first step
# Of either limit from one step to the next. With kernels restricted to AVX2, the cells of
# results/check stay below half of what it allows; docs/checks.md has the figures.
GROWTH = 2.0
UPDATES = 0.05  # of the steps may change weights or not by rounding, where the rate is near 0
NO_LOSS = 1e-4  # absolute: a loss near 0 has no relative difference
PIXELS = 1e-3  # relative, of means and standard deviations

# What to do about changes that no plug-in's version covers.
NEW_REFERENCE = "bench run ... --out ... makes one"
HINTS = {
    "version": NEW_REFERENCE,
    "test images": NEW_REFERENCE,
    "data": "restore the images, or make a new reference",
    "number of images": "restore the images, or make a new reference",
    "metric": "undo the change, or make a new reference",
    "failure": "bench run --verbose of this cell shows the traceback",
}


@dataclass(frozen=True)
class Change:
    """One thing that is not as in the reference.

    Attributes:
        plugin: the method or task that it concerns, as `methods/rotation.py`.
        what: the kind of thing, `losses`; equal for equal kinds.
        text: what it was and what it is.
    """

    plugin: str
    what: str
    text: str

    @property
    def hint(self) -> str:
        """Hint: what to do about the change."""
        if self.what in HINTS:
            return HINTS[self.what]
        return f"raise `version` in {self.plugin}, or undo the change"


def version_changes(before: Record, after: Record, method: str, task: str) -> Iterator[Change]:
    """Versions that were raised since the reference: it holds for them no more.

    Args:
        before: the reference.
        after: the record now.
        method: the method's file, to name in changes.
        task: the task's file, likewise.
    """
    versions = {
        method: (before.method_version, after.method_version),
        task: (before.task_version, after.task_version),
    }
    for plugin, (old, new) in versions.items():
        if old != new:
            yield Change(plugin, "version", f"version {old} to {new}: make a new reference")


def method_changes(before: Record, after: Record, method: str) -> Iterator[Change]:
    """Differences in how the encoder was trained, from the reference.

    Args:
        before: the reference.
        after: the record now, finished.
        method: the method's file, to name in changes.
    """
    old = before.encoder
    new = after.encoder
    assert old is not None and new is not None
    yield from _unequal(method, "inputs", old.inputs, new.inputs)
    yield from _unequal(method, "parameters", old.parameters, new.parameters)
    seen = before.pretraining.views_seen, after.pretraining.views_seen
    yield from _unequal(method, "views seen", *seen)
    if before.role == "reference" and not before.pretraining.trace:  # weights from a file
        yield from _unequal(method, "weights", old.weights_sha256, new.weights_sha256)
    yield from _traces(method, before.pretraining.trace, after.pretraining.trace)


def task_changes(before: Record, after: Record, task: str) -> Iterator[Change]:
    """Differences in how the score was computed, from the reference.

    Args:
        before: the reference.
        after: the record now, finished.
        task: the task's file, to name in changes.
    """
    tried = before.hyperparameters.num_settings, after.hyperparameters.num_settings
    yield from _unequal(task, "data", before.data, after.data)
    yield from _unequal(task, "number of images", before.num_images, after.num_images)
    yield from _unequal(task, "settings tried", *tried)
    yield from _unequal(task, "classes", sorted(before.per_class), sorted(after.per_class))
    yield from _traces(task, before.training, after.training)


def _unequal(plugin: str, what: str, old: Any, new: Any) -> Iterator[Change]:
    if old != new:
        yield Change(plugin, what, f"changed from {_short(old)} to {_short(new)}")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _traces(
    plugin: str, before: TrainingTrace | None, after: TrainingTrace | None
) -> Iterator[Change]:
    """Differences of two training runs that rounding cannot explain."""
    if before is None or after is None:
        if before != after:
            state = "is no longer trained" if after is None else "is trained now"
            yield Change(plugin, "training", state)
        return
    if before.order != after.order:
        text = "the first batches have other images, or others first"
        yield Change(plugin, "order of the images", text)
    for index, (old, new) in enumerate(zip(before.pixels, after.pixels, strict=False)):
        if len(old) != len(new) or not np.allclose(old, new, rtol=PIXELS, atol=PIXELS):
            text = f"mean and standard deviation of batch {index} changed from {old} to {new}"
            yield Change(plugin, "pixels", text)
            break
    if before.learning_rates.sha256 != after.learning_rates.sha256:
        text = _rates_text(before.learning_rates, after.learning_rates)
        yield Change(plugin, "learning rates", text)
    if before.views != after.views:
        yield Change(plugin, "views", f"changed from {before.views:,} to {after.views:,}")
    for name, kind in before.optimizers.items():
        other = after.optimizers.get(name, "none")
        if kind != other:
            text = f"that of {name} changed from {kind} to {other}"
            yield Change(plugin, "optimizer", text)
    if before.losses.keys() != after.losses.keys():
        text = f"changed from {', '.join(before.losses)} to {', '.join(after.losses)}"
        yield Change(plugin, "names of the losses", text)
        return
    for name, count in before.updates.items():
        now = after.updates.get(name, 0)
        if abs(now - count) > max(1, UPDATES * count):
            text = f"{now} steps of {name} changed the weights, not {count}"
            yield Change(plugin, "updates", text)
    yield from _steps(plugin, "losses", LOSSES, before.losses, after.losses)
    yield from _steps(plugin, "descents", DESCENTS, before.descents, after.descents)


def _rates_text(before: LearningRates, after: LearningRates) -> str:
    """Differences of the learning rates of two runs."""
    old, new = (f"{rates.first:g}, {rates.maximum:g}, {rates.last:g}" for rates in (before, after))
    if old == new:
        return "the rate of some step changed, not the first, the largest or the last"
    return f"first, largest and last changed from {old} to {new}"


def _steps(
    plugin: str,
    what: str,
    tolerance: float,
    before: Mapping[str, list[float]],
    after: Mapping[str, list[float]],
) -> Iterator[Change]:
    """The first step of each loss at which a value is not what it was.

    A reference without values of this kind allows any.
    """
    for name, values in before.items():
        if len(values) != len(after.get(name, [])):
            text = f"{name} has {len(after.get(name, []))} steps, not {len(values)}"
            yield Change(plugin, what, text)
            continue
        for step, (old, new) in enumerate(zip(values, after[name], strict=True)):
            limit = tolerance * GROWTH**step
            if not math.isclose(old, new, rel_tol=limit, abs_tol=NO_LOSS):
                text = f"{name} of step {step} changed from {old:.6g} to {new:.6g}"
                yield Change(plugin, what, text)
                break
