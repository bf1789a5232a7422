"""A command on cores of its own, that ends when the process that asked for it does. On Linux.

`python -m bench.execution.guard COUNT COMMAND...`: its parent may be killed at any moment, and so
may this process. The command then gets SIGTERM, at which a worker releases its claim.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1  # of prctl(2)
CORE = "\0ssl-gap-core-{}"  # names of sockets that are no files, so none is left behind
KILLED = 128  # and the number of the signal, as in a shell


def run(count: int, command: Sequence[str]) -> int:
    """Run a command; its exit status.

    Args:
        count: of cores. Where as many are not free, the command shares all cores.
        command: program and arguments.
    """
    end_with_parent()
    held = take_cores(count)
    process = subprocess.Popen(command, preexec_fn=end_with_parent)
    status = process.wait()
    for core in held:
        core.close()
    return status if status >= 0 else KILLED - status


def take_cores(count: int) -> list[socket.socket]:
    """Bind this process to cores that no other guard of this machine has.

    Returns:
        What reserves the cores until it is closed, or this process ends; empty if too few are free.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []
    taken: dict[int, socket.socket] = {}
    for core in sorted(os.sched_getaffinity(0)):
        name = socket.socket(socket.AF_UNIX)
        try:
            name.bind(CORE.format(core))
        except OSError:  # another guard has it
            name.close()
            continue
        taken[core] = name
        if len(taken) == count:
            os.sched_setaffinity(0, taken)
            return list(taken.values())
    for name in taken.values():
        name.close()
    return []


def end_with_parent() -> None:
    """Let this process get SIGTERM when its parent ends, however that ends."""
    library = ctypes.CDLL(None)
    if hasattr(library, "prctl"):
        library.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))
