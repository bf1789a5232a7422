"""Ctrl-C and SIGTERM at any moment: one line, a status of their own, nothing left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.errors import Interrupted
from bench.runtime import signals

LINE = "bench: interrupted; run the same command again to resume\n"
# The interpreter itself takes that long to start; it has handlers of its own until then.
OWNED = "import bench.__main__ as m, sys; sys.stdout.write('>'); sys.stdout.flush(); m.main()"


def start(*arguments):
    """A command whose own code has begun."""
    command = [sys.executable, "-c", OWNED, *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout.read(1) == b">"
    return process


def test_signals_and_their_statuses():
    named = {signal.Signals(number).name: status for number, status in signals.STATUS.items()}
    assert named == {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


@pytest.mark.parametrize(("number", "status"), signals.STATUS.items())
@pytest.mark.parametrize("delay", [0.02, 0.1, 0.25])
def test_a_signal_during_imports_is_one_line(number, status, delay, tmp_path):
    process = start("run", "--methods", "all", "--tasks", "all", "--out", tmp_path / "out")
    time.sleep(delay)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    text = errors.decode()
    assert text.endswith(LINE), text
    assert "Traceback" not in text
    assert process.returncode == status
    assert not list(tmp_path.rglob("*.json"))


def test_sigterm_ends_every_command_in_order(bench, folder, monkeypatch):
    def terminated(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("bench.reporting.leaderboard.load", terminated)
    done = bench("leaderboard", "--out", folder)
    assert (done.status, done.err) == (143, LINE)
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_interrupt_that_a_library_turned_into_its_own_error(bench, folder, monkeypatch):
    def interrupted(*_):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        except KeyboardInterrupt:
            raise ImportError("numpy.core.multiarray failed to import") from None

    monkeypatch.setattr("bench.reporting.leaderboard.load", interrupted)
    done = bench("leaderboard", "--out", folder)
    assert (done.status, done.err) == (130, LINE)


class Swallows:
    """An object at whose end an interrupt cannot be raised."""

    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.001)


def test_an_interrupt_in_a_finalizer_is_sent_again(capfd):
    with pytest.raises(Interrupted), signals.raised((signal.SIGINT,)):
        thing = Swallows()
        del thing
        time.sleep(5)
    assert capfd.readouterr().err == ""


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals.raised((signal.SIGINT,)):
            os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert signals.received() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked on Unix alone")
def test_a_forked_process_leaves_interrupts_to_its_parent():
    with signals.raised((signal.SIGINT, signal.SIGTERM)):
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(1)
        _, state = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(state) == 143


def test_a_signal_amid_an_import_comes_after_it():
    order = []

    def handle(number, frame):
        order.append("signal")

    before = signal.signal(signal.SIGTERM, handle)
    try:
        with signals.deferred():
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
            order.append("import")
        assert order == ["import", "signal"]
        assert signal.getsignal(signal.SIGTERM) is handle
    finally:
        signal.signal(signal.SIGTERM, before)


LATE = """
import os, signal, sys, threading, time
import bench.__main__ as entry
from bench.runtime import partial
import bench.cli

def app():
    print(partial.multiprocessing.util.get_temp_dir(), flush=True)
    partial.claim_temporary_folder()
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)

def exit(status):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)

bench.cli.app = app
bench.cli.sys.exit = exit
entry.main()
"""


def test_a_second_interrupt_at_the_end_says_nothing_more_and_leaves_nothing():
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (130, LINE)
    assert not Path(done.stdout.strip()).exists()
