"""One run in several processes (torchrun): who writes, what all must agree on."""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from bench.errors import UserError
from bench.runtime import signals
from bench.runtime.files import locked

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

PATIENCE = timedelta(hours=24)  # the longest that one process waits for another
MEETING = timedelta(minutes=10)  # the same before they have met, on clusters that start slowly
NOTICE_SECONDS = 5.0  # after which a process says that it waits


def world_size() -> int:
    """Number of processes of the run, which torchrun puts into the environment."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the process that writes and speaks."""
    return os.environ.get("RANK", "0") == "0"


def init() -> None:
    """Meet the other processes, each on its own GPU where there are any."""
    import torch
    from torch import distributed

    if world_size() > 1 and not distributed.is_initialized():
        on_gpu = torch.cuda.is_available()
        if on_gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        store, rank, size = _meet()
        store.set_timeout(PATIENCE)
        backend = "nccl" if on_gpu else "gloo"
        distributed.init_process_group(
            backend, store=store, rank=rank, world_size=size, timeout=PATIENCE
        )
        atexit.register(_leave)


def _meet() -> tuple[Any, int, int]:
    """The store that all processes share, the rank of this one, and how many there are.

    Raises:
        UserError: the others did not come: torchrun's variables may be left from another command.
    """
    from torch.distributed.rendezvous import rendezvous

    place = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
    waiting = f"waiting for the other processes of this run at {place}"
    notice = threading.Timer(NOTICE_SECONDS, lambda: print(waiting, file=sys.stderr, flush=True))
    notice.daemon = True
    notice.start()
    try:
        with signals.left_to_the_system():  # while torch waits, no handler of Python's runs
            store, rank, size = next(iter(rendezvous("env://", timeout=MEETING)))
    except (RuntimeError, ValueError, OSError) as error:
        minutes = MEETING.total_seconds() / 60
        raise UserError(
            f"the other processes were not met at {place} within {minutes:.0f} minutes; start all "
            "of them with torchrun, or unset RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and "
            f"MASTER_PORT, which another command may have left ({type(error).__name__})"
        ) from None
    finally:
        notice.cancel()
    return store, rank, size


def _leave() -> None:
    """End the group's threads before the interpreter, whose end they would turn into an abort.

    They end with the last reference to the group, and modules in cycles keep such.
    """
    from torch import distributed

    gc.collect()
    distributed.destroy_process_group()


def gather(value: T) -> list[T]:
    """Every process's value, in every process; it must be picklable."""
    if world_size() == 1:
        return [value]
    from torch import distributed

    values = [value] * world_size()
    distributed.all_gather_object(values, value)
    return values


def all_processes(condition: bool) -> bool:
    """Whether a condition is true in every process; none goes on before all have come here."""
    return all(gather(condition))


def broadcast(value: T) -> T:
    """The main process's value, in every process; it must be picklable."""
    if world_size() == 1:
        return value
    from torch import distributed

    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def from_main(make: Callable[[], T]) -> T:
    """What the main process makes, in every process.

    Args:
        make: called in the main process alone; its result must be picklable.

    Raises:
        UserError: the main process raised it; every process does.
    """
    if world_size() == 1:
        return make()
    outcome: T | UserError | None = None
    if is_main():
        try:
            outcome = make()
        except UserError as error:
            outcome = error
    outcome = broadcast(outcome)
    if isinstance(outcome, UserError):
        raise outcome
    return cast("T", outcome)


def average(value: Tensor) -> Tensor:
    """The mean of a value over all processes, without gradient."""
    if world_size() == 1:
        return value
    from torch import distributed

    total = value.detach().clone().float()
    distributed.all_reduce(total)
    return total / world_size()


def sum_over_processes(values: list[float]) -> list[float]:
    """The sum of each value over all processes, in every process."""
    if world_size() == 1:
        return values
    return [sum(column) for column in zip(*gather(values), strict=True)]


def barrier() -> None:
    """Go on when every process has come here."""
    all_processes(True)


@contextmanager
def main_process_lock(path: Path) -> Iterator[None]:
    """Keep other runs, though not the other processes of this one, from what a lock file guards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_main():
        with locked(path):
            barrier()  # the others go on now
            yield
            barrier()
    else:
        barrier()
        yield
        barrier()
