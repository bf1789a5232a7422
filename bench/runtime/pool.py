"""Fresh processes for work on all processors."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import wait
from types import ModuleType
from typing import Any, TypeVar, cast

from bench.errors import UserError

Batch = TypeVar("Batch")
END = object()  # after the last batch


@contextmanager
def fresh_processes(
    workers: int, initializer: Callable[..., Any] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that inherit nothing and import only the modules of what they are sent.

    They end with their parent.

    Args:
        workers: how many, at most.
        initializer: called first in each.
        arguments: of the initializer.

    Raises:
        UserError: this process may start none.
    """
    check_daemon()
    context = multiprocessing.get_context("spawn")
    with (
        hidden_main_module(),
        ProcessPoolExecutor(workers, context, _begin, (initializer, arguments)) as pool,
    ):
        yield pool


def batches(loader: Iterable[Batch]) -> Iterator[Batch]:
    """The batches of a loader whose workers import no main module.

    Args:
        loader: of a data set whose class and transform are of no main module.
    """
    with hidden_main_module():
        iterator = iter(loader)
        first = next(iterator, END)
    if first is not END:
        yield cast("Batch", first)
        yield from iterator


def check_daemon() -> None:
    """Refuse to start processes in a process that Python lets have none.

    Raises:
        UserError: this is one.
    """
    if multiprocessing.current_process().daemon:
        raise UserError(
            "cannot start workers in a daemonic process (multiprocessing.Pool); "
            "use concurrent.futures.ProcessPoolExecutor"
        )


def _begin(initializer: Callable[..., Any] | None, arguments: tuple[Any, ...]) -> None:
    end_with_parent()
    if initializer:
        initializer(*arguments)


def end_with_parent() -> None:
    """End this process, from now on, when the one that started it is gone, however that ended."""
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


@contextmanager
def hidden_main_module() -> Iterator[None]:
    """Let processes that are started here import no main module.

    A forked process would inherit locks and threads, torch's among them. A spawned one runs the
    main module again, which may be a user's script that calls this package: it would call it once
    more, and wait for a lock that is never released. So the main module is hidden from it.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
