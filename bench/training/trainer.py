"""The training loop: optimizers, mixed precision, checkpoints, divergence guard."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bench.config.schema import Recipe
from bench.data.image_files import ImageFiles
from bench.data.stream import DamagedImages, Stream
from bench.encoders.encoder import Encoder
from bench.encoders.pretraining import DAMAGED, Pretraining
from bench.encoders.transformer import transformer_of
from bench.errors import UserError
from bench.runtime import distributed
from bench.runtime.device import loader_workers, mixed_precision, seed_everything, yield_cores
from bench.runtime.environment import machine
from bench.runtime.pool import batches
from bench.runtime.progress import Bar
from bench.training.batchnorm import population_statistics, synchronize
from bench.training.checkpoint import read_checkpoint, save_checkpoint
from bench.training.history import TRACED_BATCHES, TRACED_STEPS, History
from bench.training.loading import LoaderTransform
from bench.training.optimizer import (
    RATE_SHARE,
    description,
    first_weight,
    make_optimizer,
    rate_factor,
    step_and_measure,
)
from bench.training.tracking import Tracking, TrainingReport

FIRST_CHECKPOINT = 1.0  # seconds into a run
CHECKPOINT_SHARE = 0.01  # of the time may go into checkpoints: 50 ms of writing every 5 s
# Between two checks that the loss is finite, each of which also reports the losses. A check waits
# for the GPU.
GUARD_STEPS = 20


class NonFiniteLossError(RuntimeError):
    """The loss became infinite or not a number; the cell fails."""


@dataclass(frozen=True)
class TrainingJob:
    """Everything that one training run depends on, besides the module that it trains.

    Attributes:
        name: of the run, in messages.
        recipe: budget, batch, optimizer and schedule.
        images: the training images.
        labels: one for each image, int64 (N,), as `TrainableModule.transform` takes it.
        seed: of every random draw.
        device: where to compute.
        checkpoint: the file from which a stopped run resumes. The log of the losses is beside it,
            of the same name with the suffix `.jsonl`, and stays after training.
        key: digest of everything that decides the weights.
        remedy: what to change if the loss diverges.
        tracking: the trackers that follow the run.
    """

    name: str
    recipe: Recipe
    images: ImageFiles
    labels: np.ndarray
    seed: int
    device: torch.device
    checkpoint: Path
    key: str
    remedy: str
    tracking: Tracking = field(default_factory=Tracking)


@dataclass(frozen=True)
class Objective:
    """A loss and the parameters that minimize it.

    Attributes:
        loss: from a collated batch on the device to a scalar.
        parameters: trained by this loss alone.
        rates: shares of the learning rate, in (0, 1], of parameters that have less than all of it.
        undecayed: parameters without weight decay, besides biases and norms.
        decayed: biases with weight decay.
    """

    loss: Callable[[Any], Tensor]
    parameters: list[nn.Parameter]
    rates: Mapping[nn.Parameter, float] = field(default_factory=dict)
    undecayed: Set[nn.Parameter] = frozenset()
    decayed: Set[nn.Parameter] = frozenset()


class TrainableModule(nn.Module, ABC):
    """A network on an encoder that can be trained: its transform, its losses and its hooks.

    Attributes:
        views_per_image: images through the encoder for each image drawn; crops count one by one.
        statistics_batches: further batches, after the last step, by which batch norms get their
            statistics; 0 keeps the running ones.
        encoder: the network that remains after training.
        logged: the metrics of the last step, detached scalars by name.
    """

    views_per_image: ClassVar[int] = 1
    statistics_batches: int = 0
    encoder: Encoder

    def __init__(self) -> None:
        super().__init__()
        self.logged: dict[str, Tensor] = {}

    @abstractmethod
    def transform(self, image: Tensor, label: int) -> Any:
        """Turn one image into what the loader collates; runs in a worker, on the CPU.

        Args:
            image: uint8 (3, H, W).
            label: of the image, from the job or from `start_epoch`.

        Returns:
            A tensor, or tensors in any nesting of lists, tuples and dicts.
        """

    @abstractmethod
    def objectives(self) -> dict[str, Objective]:
        """The losses to minimize in turn at every step, by the name that they are logged under."""

    def log(self, name: str, value: Tensor) -> None:
        """Report a scalar of this step; the record gets its mean over the last tenth of the run."""
        self.logged[name] = value.detach()

    def start_epoch(self, epoch: int, job: TrainingJob) -> np.ndarray | None:
        """Make new labels before the first batch of a pass over the images.

        A batch belongs to the pass of its first image. A resumed run takes the labels of the pass
        from its checkpoint.

        Args:
            epoch: number of the pass, 0-based.
            job: gives the images and their first labels.

        Returns:
            Labels of all images, int64 (N,), the same in every process. None keeps those of the
            pass before.
        """
        return None

    def after_step(self, step: int, steps: int) -> None:
        """Update what no optimizer updates, such as a teacher that averages the encoder's weights.

        Called without gradients after every step.

        Args:
            step: the step that was taken, 0-based.
            steps: of the whole run.
        """
        return

    def forward(self, batch: Any, loss: Callable[[Any], Tensor]) -> Tensor:
        """Compute a loss, under the name that distributed training calls."""
        return loss(batch)


class Trainer:
    """One training run: networks, optimizers, position. It resumes from its last checkpoint.

    Args:
        module: on any device; it is moved to the job's.
        job: the images, the recipe and the seed.
    """

    def __init__(self, module: TrainableModule, job: TrainingJob) -> None:
        recipe = job.recipe
        if recipe.batch % module.views_per_image:
            raise UserError(
                f"{job.name} shows the encoder {module.views_per_image} views of each image: "
                f"its batch ({recipe.batch}) must be a multiple of that"
            )
        self.module = module
        self.job = job
        self.steps = max(1, recipe.views // recipe.batch)
        self.step = 0
        self.seconds = 0.0
        self.labels = job.labels
        self.damaged = DamagedImages(job.checkpoint.with_suffix(".damaged"), job.images)
        self.history = History(self.steps)
        synchronize(module)
        objectives = module.objectives()
        # A transformer's last normalization comes after its last map.
        partial = len(objectives) > 1 or transformer_of(module) is not None
        self.accelerator = _accelerator(module, job, partial)
        # Torch's stubs do not know a device and a memory format in one call.
        module.to(self.accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizers = [
            make_optimizer(o.parameters, recipe, o.rates, o.undecayed, o.decayed)
            for o in objectives.values()
        ]
        self.model, *prepared = self.accelerator.prepare(module, *optimizers)
        self.losses = {name: objective.loss for name, objective in objectives.items()}
        self.optimizers: dict[str, Any] = dict(zip(objectives, prepared, strict=True))
        self._resume()

    def run(self, bar: Bar) -> Pretraining:
        """Train from the current step to the last one.

        Raises:
            NonFiniteLossError: the loss diverged.
        """
        self.module.train()
        self.history.add_machine(machine(self.accelerator.device))
        bar.skip(self.step * self.job.recipe.batch)
        log = self.job.checkpoint.with_suffix(".jsonl")
        report = TrainingReport(log, self.job.tracking, self.accelerator, self.step)
        try:
            self._train(bar, report)
        finally:
            report.close()
        if self.module.statistics_batches:
            self._measure_statistics()
        result = self.history.result(
            views=self.steps * self.job.recipe.batch,
            seconds=self.seconds,
            order=self._first_images(),
            optimizers={name: description(o.optimizer) for name, o in self.optimizers.items()},
        )
        damaged = set[int]().union(*distributed.gather(self.damaged.indices()))
        self.damaged.check(damaged)
        counted = {DAMAGED: float(len(damaged))} if damaged else {}
        return replace(result, logged=result.logged | counted)

    def _train(self, bar: Bar, report: TrainingReport) -> None:
        """Take the remaining steps."""
        batch_size = self.job.recipe.batch
        started = saved = time.monotonic()
        due = FIRST_CHECKPOINT
        finite = torch.ones((), dtype=torch.bool, device=self.accelerator.device)
        for batch in self._batches():
            losses = self._take_step(batch)
            finite &= torch.stack(list(losses.values())).isfinite().all()
            bar.advance(batch_size)
            if self.step % GUARD_STEPS == 0 or self.step == self.steps:
                self._guard(finite)
                self.damaged.say_new(self.job.tracking.say)
                bar.note(_note(losses))
                seconds = self.seconds + time.monotonic() - started
                report.add(self.step, seconds, self._rate(), self.history.take_recent())
            now = time.monotonic()
            if now - saved > due and bool(finite):  # the next guard reports what is not finite
                self.seconds += now - started
                self._save()
                started = now
                saved = time.monotonic()
                due = (saved - now) / CHECKPOINT_SHARE
        self.seconds += time.monotonic() - started

    def _take_step(self, batch: Any) -> dict[str, Tensor]:
        """Update every objective's parameters in turn; their losses by name."""
        # Every step is a function of weights, optimizer and position: resuming needs no more.
        self._seed(self.step)
        self.history.add_batch(batch)
        rate = self.job.recipe.learning_rate * rate_factor(self.step, self.steps, self.job.recipe)
        losses = {name: self._update(batch, name, rate) for name in self.losses}
        with torch.no_grad():
            self.module.after_step(self.step, self.steps)
        self.history.add_step(self.step, self._rate(), losses, self.module.logged)
        self.step += 1
        return losses

    def _seed(self, step: int) -> None:
        seed_everything(hash((self.job.seed, step)) & 0x7FFFFFFF)

    @torch.no_grad()
    def _measure_statistics(self) -> None:
        """Give the batch norms statistics of the batches that would come next, in training mode."""
        started = time.monotonic()
        losses = list(self.losses.values())
        end = self.steps + self.module.statistics_batches
        with population_statistics(self.module), self.accelerator.autocast():
            for step, batch in enumerate(self._load(end), self.steps):
                self._seed(step)
                for loss in losses:
                    self.module(batch, loss)
        self.seconds += time.monotonic() - started

    def _update(self, batch: Any, name: str, rate: float) -> Tensor:
        optimizer = self.optimizers[name]
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get(RATE_SHARE, 1.0)
        with self.accelerator.autocast():
            loss: Tensor = self.model(batch, self.losses[name])
        optimizer.zero_grad()
        self.accelerator.backward(loss)
        weight = first_weight(optimizer)
        before = weight.detach().clone()
        if self.step < TRACED_STEPS:
            descent = step_and_measure(optimizer)
            self.history.add_descent(name, descent / rate if rate else 0.0)
        else:
            optimizer.step()
        self.history.add_update(name, (weight.detach() != before).any())
        return loss.detach()

    def _rate(self) -> float:
        """The learning rate that the optimizers have."""
        optimizer = next(iter(self.optimizers.values()))
        return float(optimizer.param_groups[0]["lr"])

    def _guard(self, finite: Tensor) -> None:
        if not distributed.all_processes(bool(finite)):
            raise NonFiniteLossError(
                f"{self.job.name}: the loss is not finite by step {self.step} of {self.steps}; "
                f"{self.job.remedy}"
            )

    def _batches(self) -> Iterator[Any]:
        """The batches from the current step to the last one."""
        if type(self.module).start_epoch is TrainableModule.start_epoch:
            yield from self._load(self.steps)
            return
        while self.step < self.steps:
            epoch = self.step * self._images_per_batch // len(self.labels)
            if self.step == self._first_step(epoch):
                self._start_epoch(epoch)
            yield from self._load(min(self._first_step(epoch + 1), self.steps))

    def _first_step(self, epoch: int) -> int:
        """The first step whose batch starts in a pass over the images."""
        return math.ceil(epoch * len(self.labels) / self._images_per_batch)

    def _start_epoch(self, epoch: int) -> None:
        self._seed(self.step)
        labels = self.module.start_epoch(epoch, self.job)
        self.module.train()
        if labels is not None:
            self.labels = labels

    def _load(self, end: int) -> Iterator[Any]:
        """The batches from the current step to step `end`, exclusive."""
        batch = self._images_per_batch
        workers = loader_workers()
        loader: DataLoader[Any] = DataLoader(
            self._stream(),
            batch_size=batch,
            sampler=range(self.step * batch, end * batch),
            num_workers=workers,
            worker_init_fn=yield_cores,
            pin_memory=self.accelerator.device.type == "cuda",
            prefetch_factor=4 if workers else None,
        )
        prepared = self.accelerator.prepare(loader)
        of_main = type(self.module).__module__ == "__main__"  # its workers need that module
        yield from prepared if of_main else batches(prepared)

    @property
    def _images_per_batch(self) -> int:
        """Images drawn for one batch, over all processes."""
        return self.job.recipe.batch // self.module.views_per_image

    def _stream(self) -> Stream:
        length = (self.steps + self.module.statistics_batches) * self._images_per_batch
        transform = LoaderTransform(self.module)
        job = self.job
        return Stream(job.images, self.labels, job.seed, transform, length, self.damaged)

    def _first_images(self) -> list[int]:
        """Indices of the images of the first batches, over all processes."""
        stream = self._stream()
        traced = min(TRACED_BATCHES, self.steps) * self._images_per_batch
        return [stream.index(position) for position in range(traced)]

    def _save(self) -> None:
        if not distributed.is_main():
            return
        scaler = self.accelerator.scaler
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "labels": None if self.labels is self.job.labels else torch.from_numpy(self.labels),
            "history": self.history.state_dict(),
            "model": self.module.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "scaler": scaler.state_dict() if scaler else None,
        }
        save_checkpoint(self.job.checkpoint, self.job.key, state)

    def _resume(self) -> None:
        job = self.job
        say = job.tracking.say
        state = read_checkpoint(job.checkpoint, job.key, self.accelerator.device, say)
        if state is None:
            return
        self.module.load_state_dict(state["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if self.accelerator.scaler:  # of float16 losses
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]
        self.seconds = state["seconds"]
        if state["labels"] is not None:
            self.labels = state["labels"].cpu().numpy()
        self.history.load_state_dict(state["history"])


def _note(losses: dict[str, Tensor]) -> str:
    """Losses by name as text: `loss 1.234`, or `generator 1.234 discriminator 0.567`."""
    return " ".join(f"{name.removeprefix('loss_')} {float(v):.3f}" for name, v in losses.items())


def _accelerator(module: TrainableModule, job: TrainingJob, partial: bool) -> Accelerator:
    """The accelerator of a job.

    Args:
        module: decides the precision with the device.
        job: the recipe and the device.
        partial: whether a loss reaches only a part of the parameters.
    """
    precision: str = job.recipe.precision
    if precision == "auto":
        precision = mixed_precision(job.device, module)
    AcceleratorState._reset_state()  # it would keep the precision of an earlier run
    return Accelerator(
        cpu=job.device.type == "cpu",
        mixed_precision=precision,
        dataloader_config=DataLoaderConfiguration(split_batches=True),
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=partial)],
    )
