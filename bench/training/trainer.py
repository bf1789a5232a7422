"""The one training loop: one player or more, by a recipe, going on from checkpoints."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.utils.data import DataLoader

from bench.config.schema import Recipe
from bench.data.stream import Stream
from bench.encoders.encoder import Encoder, Pretraining
from bench.errors import UserError
from bench.runtime import distributed
from bench.runtime.device import loader_workers, mixed_precision, seed_everything, yield_cores
from bench.runtime.progress import Bar
from bench.training.batchnorm import synchronize
from bench.training.checkpoint import read_checkpoint
from bench.training.context import Context
from bench.training.optimizer import make_optimizer, rate_factor

FIRST_CHECKPOINT = 1.0  # seconds into a run
CHECKPOINT_SHARE = 0.01  # of the time may go into checkpoints: 50 ms of writing every 5 s
GUARD_STEPS = 20  # between two looks at whether the loss is finite; each look waits for the GPU
MONITOR_SHARE = 0.1  # the last part of the run, over which logged are averaged


class NonFiniteLossError(RuntimeError):
    """The loss became infinite or not a number; the cell fails."""


class TrainableModule(nn.Module, ABC):
    """A network on an encoder that can be trained: what it is shown, and what it minimizes.

    Attributes:
        views_per_image: images the encoder sees for each image drawn.
        encoder: the network that is kept.
        recipe: how it is trained.
        logged: figures that `loss` leaves for the record, detached scalars by name.
    """

    views_per_image: ClassVar[int] = 1

    encoder: Encoder
    recipe: Recipe
    logged: dict[str, Tensor]

    @abstractmethod
    def example(self, image: Tensor, label: int) -> Any:
        """Turn one image into what the loader collates; runs in a worker.

        Args:
            image: uint8 (3, H, W).
            label: what the images' list says of it.
        """

    def players(self) -> dict[str, Iterable[nn.Parameter]]:
        """The parameters that minimize each loss: one player, or two for an adversarial game."""
        return {"encoder": self.parameters()}

    @abstractmethod
    def loss(self, batch: Any, player: str) -> Tensor:
        """What `player` minimizes on a collated batch, a scalar; runs on the device."""

    def forward(self, batch: Any, player: str) -> Tensor:
        """`loss`, under the name that distributed training calls."""
        return self.loss(batch, player)


class Trainer:
    """One training run: networks, optimizers, position. It goes on from its last checkpoint.

    Args:
        trainee: on any device; it is moved to the context's.
        context: says on which images, from which seed, and under which key.
    """

    def __init__(self, trainee: TrainableModule, context: Context) -> None:
        self.recipe, self.seed = trainee.recipe, context.seed
        self.trainee, self.context = trainee, context
        self.checkpoint = context.cache / "checkpoints" / f"{context.method}-{context.key[:24]}.pt"
        if self.recipe.batch % trainee.views_per_image:
            raise UserError(
                f"{context.method} shows the encoder {trainee.views_per_image} views of each image: "
                f"its batch ({self.recipe.batch}) must be a multiple of that"
            )
        synchronize(trainee)
        self.steps = max(1, self.recipe.views // self.recipe.batch)
        self.step, self.seconds = 0, 0.0
        precision: str = self.recipe.precision
        if precision == "auto":
            precision = mixed_precision(context.device, trainee)
        players = {name: list(group) for name, group in trainee.players().items()}
        AcceleratorState._reset_state()  # it would hold on to the precision of an earlier run
        self.accelerator = Accelerator(
            cpu=context.device.type == "cpu",
            mixed_precision=precision,
            dataloader_config=DataLoaderConfiguration(split_batches=True),
            kwargs_handlers=[
                DistributedDataParallelKwargs(find_unused_parameters=len(players) > 1)
            ],
        )
        # Torch's stubs do not know a device and a memory format in one call.
        trainee.to(self.accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizers = [make_optimizer(group, self.recipe) for group in players.values()]
        self.model, *prepared = self.accelerator.prepare(trainee, *optimizers)
        self.optimizers: dict[str, Any] = dict(zip(players, prepared, strict=True))
        self.sums: dict[str, float] = {}
        self.counted = 0
        self._resume()

    def run(self, bar: Bar) -> None:
        """Train from the current step to the last one.

        Raises:
            NonFiniteLossError: the loss diverged.
        """
        self.trainee.train()
        bar.skip(self.step * self.recipe.batch)
        started = saved = time.monotonic()
        due = FIRST_CHECKPOINT
        finite = torch.ones((), dtype=torch.bool, device=self.accelerator.device)
        for batch in self._batches():
            # Every step is a function of weights, optimizer and position: resuming needs no more.
            seed_everything(hash((self.seed, self.step)) & 0x7FFFFFFF)
            losses = [self._update(batch, player) for player in self.optimizers]
            finite &= torch.stack(losses).isfinite().all()
            self.step += 1
            bar.advance(self.recipe.batch)
            last = self.step == self.steps
            if self.step % GUARD_STEPS == 0 or last:
                self._guard(finite, losses, bar)
            now = time.monotonic()
            if now - saved > due and bool(finite):  # what is not, the next guard reports
                self.seconds += now - started
                self._save()
                started, saved = now, time.monotonic()
                due = (saved - now) / CHECKPOINT_SHARE
        self.seconds += time.monotonic() - started
        self.trainee.encoder.pretraining = Pretraining(
            views_seen=self.steps * self.recipe.batch,
            seconds=round(self.seconds, 3),
            logged={name: total / self.counted for name, total in self.sums.items()},
        )

    def _update(self, batch: Any, player: str) -> Tensor:
        optimizer = self.optimizers[player]
        rate = self.recipe.learning_rate * rate_factor(self.step, self.steps, self.recipe)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with self.accelerator.autocast():
            loss: Tensor = self.model(batch, player)
        optimizer.zero_grad()
        self.accelerator.backward(loss)
        optimizer.step()
        if self.step >= int(self.steps * (1 - MONITOR_SHARE)):
            self._monitor(player, loss)
        return loss.detach()

    def _monitor(self, player: str, loss: Tensor) -> None:
        name = "loss" if len(self.optimizers) == 1 else f"loss_{player}"
        first = player == next(iter(self.optimizers))
        self.counted += first
        for key, value in {name: loss, **(self.trainee.logged if first else {})}.items():
            self.sums[key] = self.sums.get(key, 0.0) + float(value.detach())

    def _guard(self, finite: Tensor, losses: list[Tensor], bar: Bar) -> None:
        if not distributed.all_processes(bool(finite)):
            raise NonFiniteLossError(
                f"{self.context.method}: the loss is not finite by step {self.step} of "
                f"{self.steps}; lower pretraining.learning_rate"
            )
        bar.note("loss " + " ".join(f"{float(loss):.3f}" for loss in losses))

    def _batches(self) -> Iterator[Any]:
        batch = self.recipe.batch // self.trainee.views_per_image
        stream = Stream(
            self.context.corpus, self.seed, self.trainee.example, length=self.steps * batch
        )
        loader: DataLoader[Any] = DataLoader(
            stream,
            batch_size=batch,
            sampler=range(self.step * batch, self.steps * batch),
            num_workers=loader_workers(),
            worker_init_fn=yield_cores,
            pin_memory=self.accelerator.device.type == "cuda",
            prefetch_factor=4,
        )
        yield from self.accelerator.prepare(loader)

    def _save(self) -> None:
        if not distributed.is_main():
            return
        state = {
            "key": self.context.key,
            "step": self.step,
            "seconds": self.seconds,
            "sums": self.sums,
            "counted": self.counted,
            "model": self.trainee.state_dict(),
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
            "scaler": self.accelerator.scaler and self.accelerator.scaler.state_dict(),
        }
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        state = read_checkpoint(self.checkpoint, self.context.key, self.accelerator.device)
        self.trainee.load_state_dict(state["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        if self.accelerator.scaler:  # of float16 losses
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.step, self.seconds = state["step"], state["seconds"]
        self.sums, self.counted = state["sums"], state["counted"]






