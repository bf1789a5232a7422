"""One run in several processes (torchrun): who writes, what all must agree on."""

from __future__ import annotations

import atexit
import gc
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bench.errors import UserError, message
from bench.runtime import signals
from bench.runtime.files import locked

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
Item = TypeVar("Item")

FAILURES = (Exception, SystemExit)  # of somebody's code, which may end the program
PATIENCE = timedelta(hours=24)  # the longest that one process waits for another
MEETING = timedelta(minutes=10)  # the same before they have met, on clusters that start slowly
FAILURE = timedelta(minutes=1)  # the longest from a failure of one process to that of the last
NOTICE_SECONDS = 5.0  # after which a process says that it waits


def world_size() -> int:
    """Number of processes of the run, which torchrun puts into the environment."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0"))


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
        _meeting.store = store
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


@dataclass
class _Meeting:
    """Where the processes met, and how many failures they had together."""

    store: Any = None
    failures: int = 0


_meeting = _Meeting()


def fail_together(error: BaseException) -> None:
    """Go on after a failure that every process has; end this process after one of its own.

    The others would wait for this one: torchrun ends them.

    Args:
        error: of this process, for the message.
    """
    if world_size() == 1:
        return
    _meeting.failures += 1
    keys = [f"failure{_meeting.failures}/{number}" for number in range(world_size())]
    _meeting.store.set(keys[rank()], "")
    try:
        _meeting.store.wait(keys, FAILURE)
    except RuntimeError:
        text = f"process {rank()} alone failed, so the run ends: {message(error)}"
        print(text, file=sys.stderr, flush=True)
        os._exit(1)


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
        Exception: the main process raised it; every process does.
    """
    if world_size() == 1:
        return make()
    made: list[T] = []
    with together():
        if is_main():
            made.append(make())
    return broadcast(made)[0]


def share(items: Sequence[Item]) -> Sequence[Item]:
    """The items that are this process's: every N-th of them, for N processes."""
    return items[rank() :: world_size()] if world_size() > 1 else items


def in_shares(
    items: Sequence[Item],
    compute: Callable[[Item], T],
    advance: Callable[[int], object] = lambda count: None,
) -> list[T]:
    """The result for each item, in order, in every process; one process computes each.

    Args:
        items: the same in every process.
        compute: the result for one of them; it must be picklable.
        advance: called with the number of items that were computed since the last call.

    Raises:
        Exception: what any process raised; every process does.
    """
    size = world_size()
    own: list[T] = []
    error: BaseException | None = None
    try:
        for number, item in enumerate(share(items)):
            own.append(compute(item))
            advance(min(size, len(items) - number * size))
    except FAILURES as raised:
        if size == 1:
            raise
        error = raised
    shares = _gather_or_raise(own, error)
    return [shares[number % size][number // size] for number in range(len(items))]


def in_rounds(own: Iterator[T], total: int, take: Callable[[T], None]) -> None:
    """Hand the results of all processes to the main process, in order, as they come.

    Nobody keeps more than one of each process.

    Args:
        own: the results for `share` of the items; they must be picklable.
        total: the number of items.
        take: called with each result, in the main process alone.

    Raises:
        Exception: what any process raised; every process does.
    """
    size = world_size()
    for start in range(0, total, size):
        results: list[T] = []
        error: BaseException | None = None
        try:
            if start + rank() < total:
                results.append(next(own))
        except FAILURES as raised:
            if size == 1:
                raise
            error = raised
        gathered = _gather_to_main(_Outcome(results, _portable(error)))
        try:
            for outcome in gathered:
                outcome.check()
            for outcome in gathered:
                for result in outcome.value:
                    take(result)
        except FAILURES as raised:
            if size == 1:
                raise
            error = raised
        broadcast(_Outcome(None, _portable(error))).check()


@contextmanager
def together() -> Iterator[None]:
    """A part of the work that every process ends before any goes on.

    Raises:
        Exception: what any process raised in it; every process does.
    """
    error: BaseException | None = None
    try:
        yield
    except FAILURES as raised:
        if world_size() == 1:
            raise
        error = raised
    _gather_or_raise(None, error)


@dataclass(frozen=True)
class _Outcome(Generic[T]):
    """What a process computed, or the error that it raised."""

    value: T
    error: BaseException | None

    def check(self) -> None:
        """Raise the error, if there is one."""
        if self.error is not None:
            raise self.error


def _gather_or_raise(value: T, error: BaseException | None) -> list[T]:
    """Every process's value, unless one of them raised."""
    outcomes = gather(_Outcome(value, _portable(error)))
    for outcome in outcomes:
        outcome.check()
    return [outcome.value for outcome in outcomes]


def _gather_to_main(value: T) -> list[T]:
    """Every process's value in the main process; none in the others."""
    if world_size() == 1:
        return [value]
    from torch import distributed

    gathered: list[Any] | None = [None] * world_size() if is_main() else None
    distributed.gather_object(value, gathered)
    return gathered or []


def _portable(error: BaseException | None) -> BaseException | None:
    """An error that other processes can read; one that cannot be pickled is its text alone."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever an exception's class does
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


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
    with ExitStack() as stack:
        with together():
            if is_main():
                stack.enter_context(locked(path))
        yield
        barrier()
