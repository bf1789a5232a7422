"""The guard of a command: its end with its parent, and the cores that it reserves."""

import os
import signal
import subprocess
import sys
import time

import pytest

from bench.execution import guard

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="only Linux binds a process to cores"
)
GUARD = (sys.executable, "-m", "bench.execution.guard")
CORES = "import os; print(*sorted(os.sched_getaffinity(0)))"
# Says that it is there, and says so again when it is told to end.
WORKER = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print("released", flush=True)))
print("at work", flush=True)
time.sleep(60)
"""


@pytest.fixture
def names(monkeypatch):
    """Names of cores that no running guard has."""
    monkeypatch.setattr(guard, "CORE", f"\0ssl-gap-test-{os.getpid()}-{{}}")
    before = os.sched_getaffinity(0)
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.parametrize(("code", "status"), [("exit(3)", 3), ("import os; os.abort()", 134)])
def test_the_status_is_that_of_the_command(code, status):
    assert subprocess.run([*GUARD, "1", sys.executable, "-c", code]).returncode == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_command_is_told_when_the_guard_ends(number):
    command = [*GUARD, "1", sys.executable, "-c", WORKER]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "at work\n"
    process.send_signal(number)
    assert process.communicate(timeout=30)[0] == "released\n"


def test_the_command_is_told_when_the_parent_of_the_guard_ends():
    call = f"subprocess.run([*{GUARD}, '1', sys.executable, '-c', {WORKER!r}])"
    command = [sys.executable, "-c", f"import subprocess, sys; {call}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "at work\n"
    process.kill()
    assert process.communicate(timeout=30)[0] == "released\n"


def test_cores_are_reserved_until_the_guard_ends(names):
    everything = os.sched_getaffinity(0)
    if len(everything) < 2:
        pytest.skip("this machine has one core")
    held = guard.take_cores(1)
    first = os.sched_getaffinity(0)
    os.sched_setaffinity(0, everything)
    rest = guard.take_cores(len(everything) - 1)
    assert len(first) == len(held) == 1
    assert os.sched_getaffinity(0) == everything - first
    os.sched_setaffinity(0, everything)
    assert guard.take_cores(1) == [], "no core is free"
    assert os.sched_getaffinity(0) == everything, "so all are shared"
    for core in (*held, *rest):
        core.close()
    assert guard.take_cores(1)


def test_what_was_taken_in_vain_is_free_again(names):
    everything = os.sched_getaffinity(0)
    assert guard.take_cores(len(everything) + 1) == []
    assert len(guard.take_cores(len(everything))) == len(everything)


def test_the_command_has_the_cores():
    done = subprocess.run([*GUARD, "1", sys.executable, "-c", CORES], capture_output=True)
    time.sleep(0)
    assert len(done.stdout.split()) == 1
