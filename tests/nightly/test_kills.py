"""Runs killed at random moments: the same board in the end, and nothing left behind.

A chain is one command that is run and killed, again and again, then left to end with status 0. Its
board is then compared with that of an undisturbed run. So is that of a run that ends before its
kill; its records are then removed, and the chain goes on. Environment variables:

- KILL_RUNS: how many killed runs in all, 200 by default.
- KILL_SEED: decides who is killed, how and when; 0 by default. When the machine's load differs, so
  does what a run has done by then.
- KILL_FOLDER: keeps `kills.jsonl`, one line for each chain. Chains that are in it are not run
  again, so a suite can be stopped, and run in parts. Folders of failed chains stay.
- KILL_CHAIN: the number of one chain to repeat, alone.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest
from support import CLOCK

from bench.reporting import leaderboard, publish

ROOT = Path(__file__).parents[2]
RUNS = int(os.environ.get("KILL_RUNS", "200"))
SEED = int(os.environ.get("KILL_SEED", "0"))
ONLY = os.environ.get("KILL_CHAIN")

MARK = "SSL_GAP_KILLED_RUN"  # a variable by which a run's processes are known, orphans too
MOST_RUNS = 12  # of a chain that are to be killed
CHANGES = 12  # up to which change of a folder a kill waits
SHARE = 0.6  # of the time of an undisturbed run, up to which a kill waits: later runs are shorter
PATIENCE = 15.0  # seconds until the last process of a killed run must be gone
LONGEST = 300.0  # seconds of one run
STATES = ("fresh", "scenes", "warm")  # what is in the cache when a chain begins
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
# Of a run whose worker was killed, whose parent was, or that was interrupted.
STATUSES = {0, 1, 2, 129, 130, 143, *(-number for number in SIGNALS)}
LEFTOVERS = ("partial-*", "*.partial", "*.tmp", "pymp-*")
# Lines about the state of the checkout, which may change while the suite runs.
PROVENANCE = ("- Code of the records", "- Each record names")
CHECKED = ("cache", "out", "temporary")

SETTINGS = [
    "pretraining.views=64",
    "recipes.rotation.views=320",
    "tasks.voc_cls_finetune.views=32",
    "synthetic.pretraining=24",
    "synthetic.validation=24",
    "synthetic.train=40",
    "synthetic.test=40",
    "datasets.voc.min_positives=1",
]


@dataclass
class Kill:
    """One killed run.

    Attributes:
        target: parent, group or worker.
        number: of the signal.
        moment: after so many seconds, or at so many changes of folders.
        status: of the run.
        gone: seconds from the signal, or from the end of a run that survived it, until no process
            was left.
        traceback: whether one was printed, other than by the interpreter before `main`.
    """

    target: str
    number: int
    moment: float | int
    status: int = 0
    gone: float = 0.0
    traceback: bool = False


@dataclass
class Chain:
    """What came of one chain.

    Attributes:
        index: of the chain.
        state: of the cache at the beginning.
        workers: processes side by side.
        kills: the killed runs.
        boards: how many were compared.
        problems: what is not as it must be; empty after a good chain.
    """

    index: int
    state: str
    workers: int
    kills: list[Kill] = field(default_factory=list)
    boards: int = 0
    problems: list[str] = field(default_factory=list)


class Place:
    """A folder with the cache, the records and the temporary files of one chain."""

    def __init__(self, folder, bytecode):
        self.folder = folder
        self.mark = uuid.uuid4().hex
        self.errors = folder / "stderr.txt"
        self._bytecode = bytecode
        for name in CHECKED:
            (folder / name).mkdir(parents=True, exist_ok=True)

    def start(self, workers):
        sets = [part for key in SETTINGS for part in ("--set", key)]
        what = ["--methods", "random_init,rotation", "--tasks", "voc_cls,voc_cls_finetune"]
        where = ["--suite", "smoke", "--out", "out", "--cache", "cache", "--device", "cpu"]
        variables = {
            MARK: self.mark,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(self._bytecode),
            "TMPDIR": str(self.folder / "temporary"),
        }
        command = [sys.executable, "-m", "bench", "run", *what, *where, *sets]
        with self.errors.open("wb") as errors:
            return subprocess.Popen(
                [*command, "--workers", str(workers)],
                cwd=self.folder,
                env=os.environ | variables,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
                preexec_fn=_heed_interrupts,
            )

    def run(self, workers):
        """Run undisturbed; the status and the seconds that it took."""
        started = time.monotonic()
        status = self.start(workers).wait(LONGEST)
        return status, time.monotonic() - started

    def processes(self):
        """Numbers of all processes of this place's runs that are alive."""
        mark = f"{MARK}={self.mark}".encode()
        numbers = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in path.read_bytes().split(b"\0"):
                    numbers.append(int(path.parent.name))
            except OSError:  # it has ended, or is another user's
                continue
        return numbers

    def changes(self):
        """A value that changes with every file that appears, disappears or is renamed."""
        folders = [*self.folder.glob("cache/*/"), *self.folder.glob("out/**/")]
        return [(str(f), f.stat().st_mtime_ns) for f in folders if f.exists()]

    def board(self):
        """The content of every file below `out` that a reader uses, less clock and machine."""
        out = self.folder / "out"
        files = {}
        for path in sorted(path for path in out.rglob("*") if path.is_file()):
            name = path.relative_to(out).as_posix()
            files[name] = _without_clock(path)
        return files

    def problems(self):
        """Files that are left, and a page that is not what the records say."""
        problems = []
        for name in CHECKED:
            for pattern in LEFTOVERS:
                left = (self.folder / name).rglob(pattern)
                problems += [f"left: {path.relative_to(self.folder)}" for path in left]
        temporary = (self.folder / "temporary").iterdir()
        problems += [f"left: {path.relative_to(self.folder)}" for path in temporary]
        checkpoints = self.folder.glob("cache/checkpoints/*.pt")
        problems += [f"left: {path.relative_to(self.folder)}" for path in checkpoints]
        suite = self.folder / "out/smoke"
        board = leaderboard.load(suite, self.folder / "cache")
        return problems + [f"stale: {name}" for name in publish.stale(board, suite)]


def _heed_interrupts():
    """Undo what a shell does to what it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _without_clock(path):
    if path.suffix == ".html":
        return None  # has seconds in many places; `publish.stale` compares it with the records
    content = path.read_bytes()
    if path.suffix == ".json" and path.name.startswith("seed"):
        record = json.loads(content)
        del record["pretraining"]["seconds"]
        return {key: value for key, value in record.items() if key not in CLOCK}
    if path.name == "LEADERBOARD.md":
        lines = content.decode().splitlines()
        return [line for line in lines if not line.startswith(PROVENANCE)]
    if path.name == "leaderboard.csv":
        lines = [line.split(",") for line in content.decode().splitlines()]
        column = lines[0].index("seconds")
        return [line[:column] + line[column + 1 :] for line in lines]
    return content


def differences(board, other):
    """Names of the files in which two boards differ."""
    return [name for name in sorted(board | other) if board.get(name) != other.get(name)]


def kill(place, chain, rng, seconds):
    """Start a run and kill it; None if it ended before its moment came."""
    target = rng.choice(("parent", "group", "worker"))
    number = rng.choice(SIGNALS)
    moment = rng.choice((rng.uniform(0, SHARE * seconds), rng.randint(1, CHANGES)))
    planned = Kill(target, number, moment)
    process = place.start(chain.workers)
    if not _moment_comes(process, place, planned):
        return None
    workers = []
    while planned.target == "worker" and not workers:
        if process.poll() is not None:
            return None
        workers = [pid for pid in place.processes() if pid != process.pid and not _is_tracker(pid)]
        time.sleep(0.02)
    try:
        if planned.target == "group":
            os.killpg(process.pid, number)
        elif planned.target == "parent":
            process.send_signal(number)
        else:
            os.kill(rng.choice(workers), number)
    except ProcessLookupError:
        pass
    planned.status = process.wait(LONGEST)
    ended = time.monotonic()
    while place.processes() and time.monotonic() - ended < PATIENCE:
        time.sleep(0.05)
    planned.gone = round(time.monotonic() - ended, 2)
    at_start = planned.status == -signal.SIGINT  # an interpreter that has run no `main` yet
    planned.traceback = b"Traceback" in place.errors.read_bytes() and not at_start
    left = place.processes()
    for pid in left:
        chain.problems.append(f"process left: {Path(f'/proc/{pid}/cmdline').read_bytes()!r}")
        os.kill(pid, signal.SIGKILL)
    if planned.status not in STATUSES:
        chain.problems.append(f"status {planned.status}")
    return planned


def _is_tracker(pid):
    """Whether it is Python's tracker of semaphores, whose successor prints tracebacks."""
    try:
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


def _moment_comes(process, place, planned):
    """Wait for the moment of a kill; whether it came before the run ended."""
    started = time.monotonic()
    before = place.changes()
    count = 0
    while process.poll() is None:
        if isinstance(planned.moment, float):
            if time.monotonic() - started >= planned.moment:
                return True
        else:
            after = place.changes()
            count += after != before
            before = after
            if count >= planned.moment:
                return True
        assert time.monotonic() - started < LONGEST
        time.sleep(0.004)
    return False


def run_chain(index, folder, undisturbed, seconds, bytecode):
    """Kill a command until it ends by itself, then compare what it made."""
    rng = random.Random(f"{SEED}/{index}")
    chain = Chain(index, rng.choice(STATES), rng.choice((1, 1, 2)))
    shutil.rmtree(folder, ignore_errors=True)
    place = Place(folder, bytecode)
    kept = {"fresh": [], "scenes": ["scenes"], "warm": ["."]}[chain.state]
    for name in kept:
        source = undisturbed.folder / "cache" / name
        shutil.copytree(source, folder / "cache" / name, dirs_exist_ok=True)
    for number in range(MOST_RUNS):
        killed = kill(place, chain, rng, seconds[chain.state])
        if killed is None:
            check(place, chain, undisturbed)
            shutil.rmtree(folder / "out")
            continue
        if killed.traceback:
            shutil.copy(place.errors, folder / f"traceback{number}.txt")
            chain.problems.append(f"traceback after {killed}")
        chain.kills.append(killed)
    status, _ = place.run(chain.workers)
    if status == 0:
        check(place, chain, undisturbed)
    else:
        text = place.errors.read_text(errors="replace")
        chain.problems.append(f"status {status} of the last run: {text[-1000:]}")
    return chain


def check(place, chain, undisturbed):
    """Compare a board with the undisturbed one, and look for what was left."""
    differing = differences(place.board(), undisturbed.board())
    chain.problems += [f"differs: {name}" for name in differing]
    chain.problems += place.problems()
    chain.boards += 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    given = os.environ.get("KILL_FOLDER")
    path = Path(given).resolve() if given else tmp_path_factory.mktemp("kills")
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="module")
def undisturbed(folder):
    """The place of a run that nobody kills, and its seconds for every state of the cache."""
    shutil.rmtree(folder / "undisturbed", ignore_errors=True)
    place = Place(folder / "undisturbed", folder / "bytecode")
    seconds = {}
    board = None
    for state in STATES:
        if state == "scenes":
            for path in (place.folder / "cache").iterdir():
                if path.name != "scenes":
                    shutil.rmtree(path)
        shutil.rmtree(place.folder / "out")
        status, seconds[state] = place.run(1)
        assert status == 0, place.errors.read_text()
        board = board or place.board()
        assert not differences(place.board(), board), "two undisturbed runs differ"
        assert not place.problems()
    return place, seconds


def read_log(path):
    """The chains that are finished, by index."""
    lines = path.read_text().splitlines() if path.exists() else []
    chains = [json.loads(line) for line in lines]
    return {chain["index"]: chain for chain in chains}


@pytest.mark.nightly
@pytest.mark.timeout(12 * 3600)
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_killed_runs_end_in_the_same_board_and_leave_nothing(folder, undisturbed):
    place, seconds = undisturbed
    log = folder / "kills.jsonl"
    chains = read_log(log)
    index = -1
    while ONLY is None and sum(len(chain["kills"]) for chain in chains.values()) < RUNS:
        index += 1
        if index in chains:
            continue
        where = folder / f"chain{index}"
        chains[index] = asdict(run_chain(index, where, place, seconds, folder / "bytecode"))
        with log.open("a") as stream:
            stream.write(json.dumps(chains[index]) + "\n")
        if not chains[index]["problems"]:
            shutil.rmtree(where)
    if ONLY is not None:
        where = folder / f"chain{ONLY}"
        chains = {ONLY: asdict(run_chain(int(ONLY), where, place, seconds, folder / "bytecode"))}
    problems = {i: chain["problems"] for i, chain in chains.items() if chain["problems"]}
    assert not problems, json.dumps(problems, indent=1)
