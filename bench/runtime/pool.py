"""Fresh processes for work on all processors."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from typing import Any


@contextmanager
def fresh_processes(
    workers: int, initializer: Callable[..., Any] | None = None, arguments: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """A pool of processes that inherit nothing and import only the modules of what they are sent.

    Args:
        workers: how many, at most.
        initializer: called first in each.
        arguments: of the initializer.
    """
    context = multiprocessing.get_context("spawn")
    with (
        hidden_main_module(),
        ProcessPoolExecutor(workers, context, initializer, arguments) as pool,
    ):
        yield pool


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
