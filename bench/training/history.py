"""The history of a training run: trace, loss curve and logged metrics, kept as it trains."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from bench.encoders.pretraining import LearningRates, LossCurve, Pretraining, TrainingTrace
from bench.runtime import distributed

TRACED_BATCHES = 3  # whose order and pixels are kept
TRACED_STEPS = 10  # whose losses and descents are kept
CURVE_POINTS = 200  # of the loss curve, at most
FINAL_SHARE = 0.1  # the last part of the run, over which losses and metrics are averaged
DIGITS = 6  # of descents, and of the pixels' means and deviations


class History:
    """Losses, learning rates and pixels of one run, in plain values.

    Losses stay on the device until `flush` reads them all at once, so that a step waits for no
    transfer. Only the first ten steps read theirs at once.

    Args:
        steps: of the whole run.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._machines: list[str] = []
        self._pixels: list[list[float]] = []
        self._rates: list[float] = []  # first, last and maximum; empty before the first step
        self._rates_sha256 = ""
        self._first_losses: dict[str, list[float]] = {}
        self._descents: dict[str, list[float]] = {}
        self._updates: dict[str, int] = {}
        self._changed: dict[str, list[Tensor]] = {}
        self._pending: list[tuple[int, dict[str, Tensor], dict[str, Tensor]]] = []
        self._curve_steps: list[int] = []
        self._curve: dict[str, list[float]] = {}
        self._since_point: dict[str, float] = {}
        self._steps_since_point = 0
        self._final: dict[str, float] = {}
        self._final_steps = 0
        self._recent: dict[str, float] = {}
        self._recent_steps = 0

    def add_machine(self, machine: str) -> None:
        """Note where the steps that follow are computed, in words."""
        if self._machines[-1:] != [machine]:
            self._machines.append(machine)

    def add_batch(self, batch: Any) -> None:
        """Note the pixels of a batch; every process must call this at the same step."""
        if len(self._pixels) < TRACED_BATCHES:
            self._pixels.append(_pixel_statistics(batch))

    def add_descent(self, name: str, descent: float) -> None:
        """Note what the update of an objective descended, for the first steps alone.

        Args:
            name: of the objective.
            descent: inner product of gradient and weight change, per unit of learning rate.
        """
        self._descents.setdefault(name, []).append(float(f"{descent:.{DIGITS}g}"))

    def add_update(self, name: str, changed: Tensor) -> None:
        """Note whether a step changed the weights of an objective, a scalar on the device."""
        self._changed.setdefault(name, []).append(changed)

    def add_step(
        self, step: int, rate: float, losses: dict[str, Tensor], logged: dict[str, Tensor]
    ) -> None:
        """Note what a step computed.

        Args:
            step: 0-based.
            rate: its learning rate.
            losses: detached scalars by name, on the device.
            logged: the method's own metrics, likewise.
        """
        self._add_rate(rate)
        if step < TRACED_STEPS:
            for name, loss in losses.items():
                average = float(distributed.average(loss))
                self._first_losses.setdefault(name, []).append(average)
        self._pending.append((step, losses, dict(logged)))

    def flush(self) -> None:
        """Read the losses and metrics of the steps since the last call from the device."""
        for name, changed in self._changed.items():
            self._updates[name] = self._updates.get(name, 0) + int(torch.stack(changed).sum())
        self._changed.clear()
        if not self._pending:
            return
        scalars = [
            value for _, *named in self._pending for values in named for value in values.values()
        ]
        numbers = iter(torch.stack([scalar.float() for scalar in scalars]).tolist())
        for step, losses, logged in self._pending:
            loss_values = {name: next(numbers) for name in losses}
            logged_values = {name: next(numbers) for name in logged}
            self._add_to_curve(step, loss_values)
            self._add_to_final(step, loss_values | logged_values)
            self._add_to_recent(loss_values | logged_values)
        self._pending.clear()

    def take_recent(self) -> dict[str, float]:
        """Losses and metrics by name, means over the steps since the last call."""
        self.flush()
        means = {name: total / self._recent_steps for name, total in self._recent.items()}
        self._recent = {}
        self._recent_steps = 0
        return means

    def result(
        self, views: int, seconds: float, order: list[int], optimizers: dict[str, str]
    ) -> Pretraining:
        """The history as it is kept with the weights, once all steps are taken.

        Args:
            views: images that went through the encoder.
            seconds: wall time.
            order: indices of the images of the first batches.
            optimizers: their kinds and settings, by the names of the losses.
        """
        self.flush()
        first, last, maximum = self._rates
        trace = TrainingTrace(
            order=order,
            pixels=self._pixels,
            learning_rates=LearningRates(first, last, maximum, self._rates_sha256),
            views=views,
            losses=self._first_losses,
            descents=self._descents,
            updates=self._updates,
            optimizers=optimizers,
            machines=self._machines,
        )
        return Pretraining(
            views_seen=views,
            seconds=round(seconds, 3),
            logged={name: total / self._final_steps for name, total in self._final.items()},
            trace=trace,
            loss_curve=LossCurve(self._curve_steps, self._curve),
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything so far, for a checkpoint."""
        self.flush()
        skipped = {"steps", "_pending", "_changed"}
        return {name: value for name, value in vars(self).items() if name not in skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        vars(self).update(state)

    def _add_rate(self, rate: float) -> None:
        """Extend the digest: each step's covers the one before and its own rate."""
        text = f"{self._rates_sha256} {rate:.9g}"
        self._rates_sha256 = hashlib.sha256(text.encode()).hexdigest()
        first, _, maximum = self._rates or (rate, rate, rate)
        self._rates = [first, rate, max(maximum, rate)]

    def _add_to_curve(self, step: int, losses: dict[str, float]) -> None:
        for name, value in losses.items():
            self._since_point[name] = self._since_point.get(name, 0.0) + value
        self._steps_since_point += 1
        done = step + 1
        if done % math.ceil(self.steps / CURVE_POINTS) and done != self.steps:
            return
        self._curve_steps.append(done)
        for name, total in self._since_point.items():
            self._curve.setdefault(name, []).append(total / self._steps_since_point)
        self._since_point = {}
        self._steps_since_point = 0

    def _add_to_final(self, step: int, values: dict[str, float]) -> None:
        if step < int(self.steps * (1 - FINAL_SHARE)):
            return
        self._final_steps += 1
        for name, value in values.items():
            self._final[name] = self._final.get(name, 0.0) + value

    def _add_to_recent(self, values: dict[str, float]) -> None:
        self._recent_steps += 1
        for name, value in values.items():
            self._recent[name] = self._recent.get(name, 0.0) + value


def _pixel_statistics(batch: Any) -> list[float]:
    """Mean and standard deviation of every tensor of images of a batch, over all processes."""
    sums: list[float] = []
    for tensor in _image_tensors(batch):
        values = tensor.detach().cpu().double()
        sums += [values.numel(), float(values.sum()), float(values.square().sum())]
    totals = distributed.sum_over_processes(sums)
    statistics = []
    for count, total, squares in zip(totals[::3], totals[1::3], totals[2::3], strict=True):
        mean = total / count
        variance = max(0.0, squares / count - mean**2)
        statistics += [_rounded(mean), _rounded(math.sqrt(variance))]
    return statistics


def _image_tensors(batch: Any) -> Iterator[Tensor]:
    """The tensors (B, ..., 3, H, W) of a batch of any nesting, in order."""
    if isinstance(batch, Tensor):
        pixels = batch.dtype == torch.uint8 or batch.is_floating_point()
        if batch.ndim >= 4 and pixels:
            yield batch
    elif isinstance(batch, Mapping):
        for part in batch.values():
            yield from _image_tensors(part)
    elif isinstance(batch, Sequence) and not isinstance(batch, str):
        for part in batch:
            yield from _image_tensors(part)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
