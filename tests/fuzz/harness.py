"""The rule for every input: a result or one line, in bounded time and memory, in own folders."""

import contextlib
import io
import os
import resource
import signal
import sys
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings

from bench import cli
from bench.errors import UserError

SECONDS = 10  # of the processor for one input; more is a hang
WAITING = 30  # seconds of one input on any clock, however busy the machine is
MEMORY = 2**30  # bytes that one input may add to the process
INPUTS = 2_000  # of the whole suite, at least
NIGHTLY = "nightly"  # the profile of hypothesis with many times the inputs
USUAL = 100  # examples of a test in the usual profile

executed = Counter()  # inputs of each kind
REFUSED = object()  # what is returned for an input that was refused in one line


class HangError(BaseException):
    """An input took too long; nothing that catches exceptions swallows it."""


def examples(count):
    """Settings of a test of so many inputs; the same ones each time, but for the nightly profile.

    `pytest -m nightly` takes as many times more as the profile has examples.
    """
    more = settings.default.max_examples // USUAL
    return settings(
        max_examples=count * max(1, more),
        derandomize=more <= 1,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


_writable = []  # the folders that may be written to while an input is tried
_outside = []  # what was written elsewhere
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGING = {
    **dict.fromkeys(("os.mkdir", "os.remove", "os.rmdir", "os.chmod", "os.truncate"), 1),
    **dict.fromkeys(("os.rename", "os.link", "os.symlink"), 2),
    **dict.fromkeys(("shutil.rmtree", "os.utime", "os.chown"), 1),
}

BELOW = ("os.remove", "os.rmdir")  # of a folder that is open, in `shutil.rmtree`


def _watch(event, arguments):
    """Note what an input writes outside of its folders."""
    if not _writable:
        return
    if event == "open":
        path, _, flags = arguments
        paths = [path] if isinstance(flags, int) and flags & WRITING else []
    elif event in CHANGING:
        below = [a for a in arguments[CHANGING[event] :] if isinstance(a, int) and a >= 0]
        paths = [] if event in BELOW and below else arguments[: CHANGING[event]]
    elif event in ("subprocess.Popen", "os.system", "os.exec", "socket.connect"):
        _outside.append(f"{event} {arguments[0]}")
        return
    else:
        return
    for path in paths:
        if isinstance(path, str | bytes | os.PathLike):
            where = str(Path.cwd() / os.fsdecode(path))
            if where != os.devnull and not where.startswith(tuple(_writable)):
                _outside.append(f"{event} {where}")


sys.addaudithook(_watch)


def _peak():
    """The process's largest resident memory since `_forget_peak`, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def _forget_peak():
    """Begin anew with what the process has now, where the system can."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _reserve(more):
    """Bound the address space to what is used and some bytes more, lest the machine suffers."""
    old = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, old[1]))
    return old


def _hang(number, frame):
    raise HangError


@contextlib.contextmanager
def limits(*writable):
    """Bound time, memory and writing of what is inside.

    Args:
        writable: the folders that it may write to.
    """
    linux = sys.platform == "linux"
    before = _forget_peak() if linux else 0
    old = _reserve(4 * MEMORY) if linux else None
    handlers = {number: signal.signal(number, _hang) for number in (signal.SIGALRM, signal.SIGPROF)}
    _outside.clear()
    _writable[:] = [str(path) for path in writable] or ["/nowhere"]
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WAITING)
    try:
        yield
    except HangError:
        raise AssertionError(f"took more than {SECONDS} s, or {WAITING} s of waiting") from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _writable.clear()
        if old:
            resource.setrlimit(resource.RLIMIT_AS, old)
    assert not _outside, f"written outside of its folders: {_outside}"
    assert not linux or _peak() - before < MEMORY, "took more than 1 GB"


def one_line(text):
    """Whether a message is one line that a terminal shows."""
    return bool(text) and len(text) < 20_000 and "\n" not in text and text.isprintable()


def attempt(kind, call, *writable, refusals=(UserError,)):
    """The result of a call, or `REFUSED`; any other exception is a fault.

    Args:
        kind: of input, under which it is counted.
        call: a function without arguments.
        writable: folders that it may write to.
        refusals: the exceptions that refuse, in one line each.
    """
    executed[kind] += 1
    with limits(*writable):
        try:
            return call()
        except refusals as error:
            assert one_line(str(error)), repr(str(error))
            return REFUSED


def check(label, result, expected, same=lambda a, b: a == b):
    """Compare the outcome of an input with its label: `harmless` or `harmful`.

    Args:
        label: of the input, known beforehand.
        result: of `attempt`.
        expected: of the input without its change.
        same: whether two results have the same numbers.
    """
    if label == "harmful":
        assert result is REFUSED, "a harmful input was taken"
    else:
        assert result is not REFUSED, "a harmless input was refused"
        assert same(result, expected), "a harmless input changed a number"


class Ended:
    """How a command ended: its status, and what it printed."""

    def __init__(self, status, out, err):
        self.status = status
        self.out = out
        self.err = err


def bench(kind, arguments, *writable):
    """Call the command line in this process; its end must be a result or one line."""
    executed[kind] += 1
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["bench", *map(str, arguments)]
    try:
        with (
            limits(*writable),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                cli.main()
                status = 0
            except SystemExit as end:
                status = end.code or 0
    finally:
        sys.argv = before
    ended = Ended(status, out.getvalue(), err.getvalue())
    assert status in (0, 1, 2), f"status {status}"
    assert "Traceback" not in ended.err
    if status == 2:
        assert ended.err.strip(), "no message"
    return ended


def write(path, content):
    """Write a file of any content, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clear(path)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def clear(path):
    """Remove a file, pipe, link or folder, whatever is there."""
    import shutil

    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()


def a_pipe(path):
    """Put a pipe, which nobody writes to, in a file's place."""
    clear(path)
    os.mkfifo(path)


def a_folder(path):
    """Put a folder in a file's place."""
    clear(path)
    path.mkdir()


def a_loop(path):
    """Put a link to itself in a file's place."""
    clear(path)
    path.symlink_to(path.name)


def a_device(path):
    """Put a link to what has no end in a file's place."""
    clear(path)
    path.symlink_to("/dev/zero")


def a_huge_file(path):
    """Put a sparse file of a terabyte in a file's place."""
    clear(path)
    with path.open("wb") as stream:
        stream.truncate(2**40)


def nothing(path):
    """Remove a file."""
    clear(path)


NO_FILES = (a_pipe, a_folder, a_loop, a_device, a_huge_file)
FOLDER = Path(__file__).parent
