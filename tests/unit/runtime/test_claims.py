"""Claims: one holder at a time, alive by its heartbeat, taken over when that is old."""

import fcntl
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.runtime import claims
from bench.runtime.claims import Claims, read
from bench.runtime.progress import Stage

NAME = "rotation-seed0"
OLD = 601  # seconds


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "claims"


def worker(folder, stale_after=600, progress=lambda name: None, lost=None):
    """A worker whose heartbeat has not begun."""
    return Claims(folder, stale_after, progress, lost or (lambda name: None))


def age(folder, seconds, generation=0):
    """Let the last heartbeat of a claim be some seconds ago."""
    date = time.time() - seconds
    os.utime(folder / f"{NAME}.{generation}", (date, date))


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "too late"
        time.sleep(0.02)


def test_one_worker_has_a_claim_until_it_releases_it(folder):
    first, second = worker(folder), worker(folder)
    assert first.take(NAME)
    assert not second.take(NAME)
    assert second.take("rotation-seed1")
    claim = read(folder)[NAME]
    assert (claim.holder.pid, claim.generation, claim.is_alive) == (os.getpid(), 0, True)
    assert abs(claim.age) < 10 and abs(claim.held) < 10
    first.release(NAME)
    assert list(read(folder)) == ["rotation-seed1"]
    assert second.take(NAME)


def test_what_is_held_is_released_at_the_end_however_it_comes(folder):
    with pytest.raises(KeyboardInterrupt), worker(folder) as first:
        first.take(NAME)
        raise KeyboardInterrupt
    assert list(folder.iterdir()) == []


def test_an_old_claim_is_taken_over_and_its_holder_told(folder):
    told = []
    first, second = worker(folder, lost=told.append), worker(folder)
    first.take(NAME)
    age(folder, 590)
    assert not second.take(NAME)
    age(folder, OLD)
    assert not read(folder)[NAME].is_alive
    assert second.take(NAME)
    assert read(folder)[NAME].generation == 1
    assert first._renew(NAME) is False
    assert second._renew(NAME) is True
    first.release(NAME)  # what it no longer has
    assert read(folder)[NAME].is_alive
    second.release(NAME)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("old", [False, True], ids=["free", "old"])
def test_of_workers_that_come_at_once_one_wins(folder, old):
    for _ in range(10):
        dead = worker(folder)
        if old:
            assert dead.take(NAME)
            age(folder, OLD)
        meeting = threading.Barrier(8)
        workers = [worker(folder) for _ in range(8)]

        def take(one, meeting=meeting):
            meeting.wait()
            return one.take(NAME)

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(take, workers))
        winners = [one for one, wins in zip(workers, won, strict=True) if wins]
        assert len(winners) == 1
        winners[0].release(NAME)
        assert list(folder.iterdir()) == []


def test_a_look_that_is_outdated_takes_nothing(folder, monkeypatch):
    """Another worker took an old claim over, finished and released it since this one looked."""
    worker(folder).take(NAME)
    age(folder, OLD)
    before = read(folder)
    fast, slow = worker(folder), worker(folder)
    fast.take(NAME)
    fast.release(NAME)
    fast.take(NAME)  # again, as a new one
    monkeypatch.setattr(claims, "read", lambda _: before)
    assert not slow.take(NAME)
    assert [path.name for path in folder.iterdir()] == [f"{NAME}.0"]


def test_a_look_before_a_takeover_takes_nothing(folder, monkeypatch):
    """A name was free; since then it was claimed, taken over, and its first claim removed."""
    monkeypatch.setattr(claims, "read", lambda _: {})
    other = worker(folder)
    folder.mkdir()
    (folder / f"{NAME}.1").touch()
    assert not other.take(NAME)
    assert [path.name for path in folder.iterdir()] == [f"{NAME}.1"]


def test_a_worker_that_ended_amid_a_takeover_leaves_a_claim_that_becomes_old(folder):
    worker(folder).take(NAME)
    (folder / f"{NAME}.1").touch()  # created, not written
    other = worker(folder)
    assert read(folder)[NAME].is_alive
    assert not other.take(NAME)
    assert str(read(folder)[NAME].holder) == "an unknown machine"
    age(folder, OLD, generation=1)
    assert other.take(NAME)
    other.release(NAME)
    assert list(folder.iterdir()) == []


def test_a_heartbeat_keeps_a_claim_and_says_how_far_it_is(folder):
    stage = Stage("pretrain", 30, 120, 45.0)
    with worker(folder, 1, lambda name: (f"{name}: cell", stage)) as first:
        first.take(NAME)
        written = (folder / f"{NAME}.0").stat().st_mtime
        until(lambda: (folder / f"{NAME}.0").stat().st_mtime > written + 1.5)
        claim = read(folder)[NAME]
        assert claim.is_alive
        assert (claim.holder.cell, claim.holder.stage) == (f"{NAME}: cell", stage)
        assert claim.holder.started == pytest.approx(written, abs=0.5)
        assert not worker(folder).take(NAME)


@pytest.mark.parametrize("name", ["x" * 5000, "\udcff", None], ids=["long", "no text", "error"])
def test_whatever_a_stage_says_the_worker_lives(folder, name):
    def progress(_):
        return ("cell", Stage(name)) if name else 1 / 0

    first = worker(folder, progress=progress)
    first.take(NAME)
    age(folder, OLD)
    assert first._renew(NAME)
    claim = read(folder)[NAME]
    assert (claim.is_alive, claim.holder.pid, claim.holder.cell) == (True, os.getpid(), "")
    assert (folder / f"{NAME}.0").stat().st_size == claims.SIZE


def test_a_worker_that_wakes_up_is_told_and_brings_nothing_back(folder):
    told = []
    with worker(folder, 1, lost=told.append) as first:
        first.take(NAME)
        (folder / f"{NAME}.0").unlink()  # another one took it over, finished and released
        until(lambda: told)
    assert told == [NAME]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("offset", [-600, 600])
def test_the_clock_of_a_machine_decides_nothing(folder, monkeypatch, offset):
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + offset)
    first, second = worker(folder, 60), worker(folder, 60)
    assert first.take(NAME)
    assert not second.take(NAME)
    assert abs(read(folder)[NAME].held) < 10
    date = true() - 61
    os.utime(folder / f"{NAME}.0", (date, date))
    assert second.take(NAME)


def test_a_date_in_the_future_is_no_sign_of_life(folder):
    worker(folder).take(NAME)
    age(folder, -OLD)
    assert worker(folder).take(NAME)


def test_no_lock_is_needed(folder, monkeypatch):
    def unavailable(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", unavailable)
    monkeypatch.setattr(fcntl, "lockf", unavailable)
    first, second = worker(folder), worker(folder)
    assert first.take(NAME) and not second.take(NAME)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff" * 100,
        b'{"host": 3}',
        b'{"host": "a", "stale_after": 1e9}',
        b'{"host": "a", "started": NaN}',
        b"x" * 10_000,
        json.dumps({"host": "a", "stage": {"name": 4}}).encode(),
    ],
)
def test_a_file_of_any_content_is_a_claim_of_somebody(folder, content):
    folder.mkdir()
    (folder / f"{NAME}.0").write_bytes(content)
    claim = read(folder)[NAME]
    assert (str(claim.holder), claim.is_alive) == ("an unknown machine", True)
    age(folder, OLD)
    assert worker(folder).take(NAME)


def test_control_characters_of_a_claim_are_not_printed(folder):
    folder.mkdir()
    content = {"host": "a\x1b[31m", "pid": 4, "cell": "b\nc"}
    (folder / f"{NAME}.0").write_text(json.dumps(content))
    holder = read(folder)[NAME].holder
    assert (str(holder), holder.cell) == ("a\\x1b[31m pid 4", "b c")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_what_is_no_file_is_not_opened(folder, make):
    folder.mkdir()
    make(folder / f"{NAME}.0")
    assert str(read(folder)[NAME].holder) == "an unknown machine"


def test_without_claims_nothing_is_made(folder):
    assert read(folder) == {}
    assert not folder.exists()


def test_other_files_in_the_folder_are_no_claims(folder):
    folder.mkdir()
    for name in (".clock-1", "README.md", "rotation-seed0", ".0"):
        (folder / name).touch()
    assert read(folder) == {}
