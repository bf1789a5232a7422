"""A training run and bare loops in turn, step by step, so that all have the same machine."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch
from accelerate.utils import send_to_device
from torch.utils.data import DataLoader

from bench.data.stream import Stream
from bench.runtime.device import loader_workers, select_device, share_cores
from bench.runtime.progress import Bar, Reporter
from bench.runtime.workers import cores
from bench.training import trainer as training
from bench.training.optimizer import make_optimizer
from bench.training.trainer import TrainableModule, Trainer


class Turns(Bar):
    """The progress of a run, after each step of which every bare loop takes one, too.

    Args:
        loops: take one step, by name.
        device: of all.
    """

    def __init__(self, loops: Mapping[str, Callable[[], None]], device: torch.device) -> None:
        reporter = Reporter()
        reporter.console.quiet = True
        super().__init__("", 1, "img", reporter)
        self.loops = loops
        self.device = device
        self.seconds = dict.fromkeys(loops, 0.0)

    def advance(self, count: int) -> None:
        """Let every loop take a step, if the run took one."""
        for name in self.loops if count else ():
            started = clock(self.device)
            self.loops[name]()
            self.seconds[name] += clock(self.device) - started


def select() -> torch.device:
    """The device; on a processor one thread that loads its own images, as a worker of `bench run`.

    So processor time is all the time that a loop takes, whatever else the machine does.
    """
    device = select_device("auto")
    if device.type == "cpu":
        share_cores(cores(), 1)
    return device


def clock(device: torch.device) -> float:
    """Seconds: of this process on a processor, of the wall when a GPU has done its work."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize()
    return time.perf_counter()


def seconds_a_step(trainer: Trainer, loops: Mapping[str, Callable[[], None]]) -> dict[str, float]:
    """Seconds a step of each bare loop, and of the run as `ours`, all of whose work counts."""
    device = trainer.accelerator.device
    turns = Turns(loops, device)
    share = training.CHECKPOINT_SHARE
    training.CHECKPOINT_SHARE = share / (1 + len(loops))  # of the run's part of the time
    started = clock(device)
    trainer.run(turns)
    total = clock(device) - started
    training.CHECKPOINT_SHARE = share
    seconds = {"ours": total - sum(turns.seconds.values())} | turns.seconds
    return {name: value / trainer.steps for name, value in seconds.items()}


def report(rounds: Sequence[Mapping[str, float]], claims: Mapping[str, float]) -> int:
    """Print medians of all runs; 1 if a claim fails.

    Args:
        rounds: seconds a step, by name, of each run.
        claims: least ratio to `ours`, by the name of the loop.
    """
    for name in rounds[0]:
        print(f"{name:24} {1e3 * statistics.median(s[name] for s in rounds):6.1f} ms a step")
    ratios = {name: statistics.median(s[name] / s["ours"] for s in rounds) for name in claims}
    for name, least in claims.items():
        print(f"{name} / ours: {ratios[name]:.3f} (claim: at least {least})")
    return int(any(ratios[name] < least for name, least in claims.items()))


def bare_steps(
    network: TrainableModule,
    trainer: Trainer,
    batch: Callable[[], object],
    loss: Callable[[object], torch.Tensor],
) -> Callable[[], None]:
    """One step of a loop without a harness.

    Args:
        network: a copy of the one that the trainer has.
        trainer: its recipe, device and precision are the loop's.
        batch: gives the next batch, on the device.
        loss: of a batch.
    """
    device = trainer.accelerator.device
    network.to(device, memory_format=torch.channels_last).train()
    optimizer = make_optimizer(list(network.parameters()), trainer.job.recipe)
    mixed = trainer.accelerator.mixed_precision == "bf16"

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
            value = loss(batch())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return step


def loaded(network: TrainableModule, trainer: Trainer) -> Callable[[], object]:
    """Batches of the run's files from torch's own loader, one a call."""
    job, device = trainer.job, trainer.accelerator.device
    count = job.recipe.batch // network.views_per_image
    stream = Stream(job.images, job.labels, job.seed, network.transform, trainer.steps * count)
    pinned = device.type == "cuda"
    loader = DataLoader(stream, count, num_workers=loader_workers(), pin_memory=pinned)
    batches = iter(loader)
    return lambda: send_to_device(next(batches), device, non_blocking=True)
