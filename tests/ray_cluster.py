"""A real Ray of two nodes on this machine, each with one processor core."""

import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}


@contextmanager
def cluster():
    """The nodes: `Nodes`."""
    with (
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder,  # short: it has sockets
    ):
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", folder)
        from ray.cluster_utils import Cluster

        started = Cluster()
        try:
            started.add_node(**NODE, include_dashboard=False)
            yield Nodes(started)
        finally:
            started.shutdown()


class Nodes:
    """The nodes of a cluster: the head and, until it is killed, a second one.

    Attributes:
        address: of the head.
    """

    def __init__(self, started):
        self._cluster = started
        self.address = started.address
        self.add_second()

    def add_second(self):
        """Start the second node unless it is there; it has two GPUs that nothing computes on."""
        if not self._cluster.worker_nodes:
            self._cluster.add_node(**NODE, num_gpus=2)
            self._cluster.wait_for_nodes()

    def kill_second(self):
        """Kill the raylet of the second node."""
        node = self._cluster.worker_nodes.pop()
        node.kill_raylet()

    def second_has(self, pid):
        """Whether a process descends from the second node's raylet."""
        (node,) = self._cluster.worker_nodes
        return node.all_processes["raylet"][0].process.pid in ancestors(pid)


def ancestors(pid):
    """A process, its parent, and so on."""
    while pid > 1:
        yield pid
        pid = parent(pid)


def parent(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return 0
    return int(status.rpartition(")")[2].split()[1])


def processes(word):
    """The command lines of all processes that have a word in theirs."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in text:
            found.append(text)
    return found
