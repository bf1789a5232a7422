"""What a user, a disk or the machine causes is one line that names the file and what to do."""

import errno
import os
import pickle
import subprocess
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import pytest
from support import values
from worker_jobs import fill_disk

from bench import errors, plugins
from bench.commands import execute
from bench.commands.request import Cell, Request
from bench.reporting import leaderboard, publish
from bench.results import storage
from bench.runtime import distributed, streams
from bench.runtime.progress import Reporter
from bench.runtime.workers import compute
from bench.training import loading

CUDA = """CUDA error: device-side assert triggered
CUDA kernel errors might be asynchronously reported at some other API call.
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions."""


def raised(error, cause=None):
    """An exception as it is caught."""
    try:
        raise error from cause
    except BaseException as caught:
        return caught


def of_a_loader(error):
    """As torch hands the exception of a loader's worker on."""
    text = "".join(traceback.format_exception(raised(error)))
    return f"Caught {type(error).__name__} in DataLoader worker process 0.\nOriginal {text}"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RuntimeError(CUDA), "RuntimeError: CUDA error: device-side assert triggered"),
        (RuntimeError(of_a_loader(RuntimeError(CUDA))), f"RuntimeError: {CUDA.splitlines()[0]}"),
        (RuntimeError(of_a_loader(KeyError("x"))), "KeyError: 'x'"),
        (
            errors.UserError(of_a_loader(errors.UserError("a.jpg: is truncated"))),
            "a.jpg: is truncated",
        ),
        (RuntimeError("\n\n  late\nmore"), "RuntimeError: late"),
        (
            RuntimeError('Error(s) in loading state_dict for Net:\n\tMissing key(s): "a".'),
            'RuntimeError: Error(s) in loading state_dict for Net: Missing key(s): "a".',
        ),
        (KeyError("x"), "KeyError: 'x'"),
        (AssertionError(), "AssertionError: no message"),
        (OSError(errno.EACCES, "Permission denied", "a/b.txt"), "a/b.txt: Permission denied"),
        (
            OSError(errno.EISDIR, "Is a directory", "a.lock"),
            "a.lock: Is a directory; a folder is where a file should be: move it away",
        ),
        (
            OSError(errno.ENOTDIR, "Not a directory", "a/b"),
            "a/b: Not a directory; a file is where a folder should be: move it away",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "a"),
            "a: Read-only file system; use a folder that can be written",
        ),
        (OSError(errno.EACCES, "Permission denied", b"a\xff"), "a\\udcff: Permission denied"),
        (OSError("cannot identify image file 'a.jpg'"), "OSError: cannot identify image file"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a.npz"),
            "a.npz: the disk is full (No space left on device); free some space and run again",
        ),
        (MemoryError(), "MemoryError: no message; too little memory ends processes"),
    ],
)
def test_the_first_line_of_the_exception_itself(error, line):
    message = errors.message(raised(error))
    assert message.startswith(line)
    assert "\n" not in message


KILLED = "DataLoader worker (pid 7) is killed by signal: "


@pytest.mark.parametrize(
    "text",
    [
        "unable to open shared memory object </torch_1_2_3> in read-write mode: No space left on "
        "device (28)",
        "unable to mmap 4096 bytes from file </torch_1_2_3>: Cannot allocate memory (12)",
        "unable to write to file </torch_1_2_3>: No space left on device (28)",
        f"{KILLED}Bus error. It is possible that dataloader's workers are out of shared memory.",
    ],
)
def test_full_shared_memory_is_called_so(text):
    error = raised(RuntimeError("DataLoader worker (pid(s) 7) exited"), raised(RuntimeError(text)))
    assert errors.message(error) == errors.FULL_SHARED_MEMORY
    assert errors.message(raised(RuntimeError(of_a_loader(RuntimeError(text))))).startswith(
        "shared memory (/dev/shm) is full; give it more: docker run --shm-size=8g"
    )


@pytest.mark.parametrize(
    "text",
    [
        "unable to open shared memory object </torch_1_2_3>: Too many open files (24)",
        "out of resource: shared memory, Required: 180224, Hardware limit: 101376",
    ],
)
def test_other_errors_are_not_called_full_shared_memory(text):
    assert errors.message(raised(RuntimeError(text))) == f"RuntimeError: {text}"


def test_a_process_that_was_killed_is_told_why():
    error = raised(RuntimeError("exited unexpectedly"), raised(RuntimeError(f"{KILLED}Killed. ")))
    assert errors.message(error).endswith("too little memory ends processes, see how much is free")


def test_a_fault_of_ours_is_no_users_mistake():
    assert errors.explanation(raised(KeyError("x"))) == ""


def test_a_failed_record_keeps_all_lines(context, smoke, cache, tmp_path):
    cell = Cell("rotation", "voc_cls", 0)
    request = Request(smoke, ("rotation",), ("voc_cls",), (0,), None, tmp_path, cache, "cpu")
    entry = execute._save_failure(
        cell,
        context(),
        execute._about_method(context(), request),
        request,
        raised(RuntimeError(CUDA)),
    )
    stored = storage.read(cell.path(request))
    assert entry == stored.model_copy(update={"checksum": ""})
    assert stored.error == "RuntimeError: CUDA error: device-side assert triggered"
    assert stored.error_lines == CUDA.splitlines()


def full(path):
    with path.open("wb") as stream, errors.naming(path):
        stream.write(b"x")
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_error_of_writing_names_the_file(tmp_path):
    with pytest.raises(OSError) as caught:
        full(tmp_path / "a")
    assert caught.value.filename == str(tmp_path / "a")


def test_a_worker_says_what_this_process_would(tmp_path):
    with pytest.raises(errors.UserError) as caught:
        list(compute([tmp_path / "a"], fill_disk, 1, Reporter()))
    assert str(caught.value).startswith(f"{tmp_path / 'a'}: the disk is full")


FULL = "bench: stdout: the disk is full (No space left on device); free some space"


def command(redirection, *arguments, cwd=None, **variables):
    """Run a command with a shell's redirection."""
    line = f'"{sys.executable}" -m bench "$@" {redirection}'
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"} | variables
    shell = ["bash", "-o", "pipefail", "-c", line, "bench", *map(str, arguments)]
    return subprocess.run(
        shell, env=environment, cwd=cwd, capture_output=True, text=True, timeout=60
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is of Linux")  # noqa: PTH110
@pytest.mark.parametrize(
    ("arguments", "redirection", "status", "error"),
    [
        ("list", "| true", 1, ""),
        ("list", ">&-", 0, ""),
        ("list", "2>&-", 0, ""),
        ("list nothing", "2>/dev/full", 2, ""),
        ("list", ">/dev/full", 2, FULL),
        ("--help", ">/dev/full", 2, FULL),
        ("compare rotation random_init", ">&- 2>&- <&-", 0, ""),
        ("compare rotation random_init", ">/dev/full", 2, FULL),
    ],
)
def test_streams_that_cannot_be_written(arguments, redirection, status, error, folder):
    out = ["--out", folder / "made"] if "compare" in arguments else []
    done = command(redirection, *arguments.split(), *out)
    assert done.returncode == status
    assert done.stderr.startswith(error)
    assert len(done.stderr.splitlines()) <= 1


@pytest.mark.parametrize(
    "variables",
    [
        {"COLUMNS": "1", "PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "HOME": "/dev/null"},
        {"PYTHONOPTIMIZE": "2", "PYTHONHASHSEED": "7", "TZ": "Asia/Kolkata"},
    ],
    ids=lambda v: "-".join(v),
)
def test_surroundings_change_nothing(variables, folder):
    done = command("", "compare", "rotation", "random_init", "--out", folder / "made", **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert "rotation" in done.stdout


def test_a_missing_current_folder(tmp_path, folder):
    gone = tmp_path / "gone"
    gone.mkdir()
    line = f'cd "{gone}" && rmdir "{gone}" && "{sys.executable}" -m bench "$@"'
    shell = ["bash", "-c", line, "bench", "leaderboard"]
    root = os.path.dirname(os.path.dirname(errors.__file__))  # noqa: PTH120
    environment = os.environ | {"PYTHONPATH": root}
    done = subprocess.run(shell, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("bench: the current folder was deleted; change")


def test_stdout_prints_names_that_are_no_text(capfd):
    with streams.guarded():
        print("a\udcff.jpg")
    assert capfd.readouterr().out == "a\\udcff.jpg\n"


USERS = """
import sys
import matplotlib as mpl
mpl.use("svg")
mpl.rcParams["font.size"] = 33
from matplotlib import pyplot
figure = pyplot.figure()
before = dict(mpl.rcParams)
from pathlib import Path
from bench.reporting import leaderboard, publish
publish.write(leaderboard.load(Path(sys.argv[1])), Path(sys.argv[1]))
assert dict(mpl.rcParams) == before and mpl.get_backend() == "svg"
assert pyplot.get_fignums() == [1] and pyplot.gcf() is figure
"""


def test_a_notebooks_matplotlib_is_as_before(folder):
    done = subprocess.run(
        [sys.executable, "-c", USERS, folder / "made"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_users_matplotlib_decides_nothing(bench, folder, tmp_path):
    assert bench("leaderboard", "--out", folder).status == 0
    plot = folder / "made/gap_voc_cls.svg"
    before = plot.read_bytes()
    plot.unlink()
    (tmp_path / "matplotlibrc").write_bytes(b"\xff\xfe")
    users = {"MATPLOTLIBRC": str(tmp_path / "matplotlibrc"), "MPLBACKEND": "nosuch"}
    users["PYTHONPATH"] = str(Path(errors.__file__).parents[1])
    for place in (None, tmp_path):  # matplotlib looks into the current folder first
        done = command("", "leaderboard", "--out", folder, cwd=place, **users)
        assert (done.returncode, "not drawn" in done.stderr) == (0, False)
        assert plot.read_bytes() == before
        plot.unlink()


def test_a_plot_of_the_literature_that_fails_leaves_the_tables(bench, tmp_path, monkeypatch):
    def fail(name, numbers):
        raise RuntimeError("no\nfont")

    monkeypatch.setattr("bench.reporting.literature.plot", fail)
    keys = "method,task,metric,value,backbone,pretraining,protocol,source,url,status,note\n"
    values = "x,VOC,mAP,1.0,r50,none,linear,a,https://a.org,verified,\n"
    (tmp_path / "a.csv").write_text(keys + values)
    done = bench("literature", "--out", tmp_path)
    assert (done.status, done.error) == (0, f"{tmp_path}: the plots were not drawn: no font")
    assert (tmp_path / "LITERATURE.md").is_file()


HARMLESS = {
    **{"PYTHONHASHSEED": "5", "PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error"},
    **{"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
    **{"TZ": "Asia/Kolkata", "SOURCE_DATE_EPOCH": "0", "LC_ALL": "C", "LANG": "xx_YY"},
    **{"NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "7", "PMI_SIZE": "1"},
    **{"GIT_DIR": "/nowhere", "GIT_WORK_TREE": "/", "GIT_INDEX_FILE": "/nowhere"},
    **{"SCIPY_ARRAY_API": "1", "TORCHDYNAMO_DISABLE": "1", "TIMM_FUSED_ATTN": "0"},
}
OWNED = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}


@pytest.mark.slow
def test_variables_of_the_environment_change_no_number(tmp_path):
    commits = []
    for name, variables in {"usual": {}, "other": HARMLESS | OWNED}.items():
        what = ["run", "--methods", "rotation", "--tasks", "voc_cls", "--suite", "smoke"]
        what += ["--workers", "1", "--out", tmp_path / name, "--cache", tmp_path / f"{name}-cache"]
        done = command("", *what, **variables)
        assert done.returncode == 0, done.stderr
        record = storage.read(tmp_path / name / "smoke/voc_cls/rotation/seed0.json")
        commits.append(record.environment["commit"])
    assert values(tmp_path / "usual") == values(tmp_path / "other")
    assert commits[0] == commits[1]


class UnspeakableError(Exception):
    """An exception whose text cannot be had."""

    def __str__(self):
        return str(1 / 0)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UnspeakableError(), "UnspeakableError: has no text (ZeroDivisionError)"),
        (SystemExit(0), "SystemExit: 0"),
    ],
)
def test_whatever_ends_a_method_is_a_failed_cell(
    own_plugins, smoke, smoke_data, cache, tmp_path, error, line
):
    base = plugins.load("methods", "random_init")

    def pretrain(self, context):
        raise error

    changed = type("Odd", (base,), {"__doc__": "Odd.", "pretrain": pretrain})
    plugins.add_object("methods", "odd", changed, "0")
    request = Request(smoke, ("odd",), ("voc_cls",), (0,), None, tmp_path, cache, "cpu")
    execute.compute([Cell("odd", "voc_cls", 0)], request, Reporter(), smoke_data)
    record = storage.read(tmp_path / "smoke/voc_cls/odd/seed0.json")
    assert (record.status, record.error) == ("failed", line)


def test_a_limit_of_file_sizes_is_not_called_full_shared_memory():
    text = "unable to write to file </torch_13069_1_0>: File too large (27)"
    assert errors.message(RuntimeError(text)) == errors.LIMITED


def test_names_cannot_write_to_the_terminal():
    name = "bird/\n\x1b[31m.jpg"
    assert str(errors.UserError(f"{name}: rename it")) == r"bird/\n\x1b[31m.jpg: rename it"
    start = "Caught UserError\nTraceback (most recent call last):\n  x\n"
    handed_on = f"{start}{errors.UserError.__module__}.UserError: a: b"
    assert str(errors.UserError(handed_on)) == "a: b"


def test_a_folder_in_the_place_of_a_file_is_named(folder):
    (folder / "made" / "LEADERBOARD.md").mkdir()
    loaded = leaderboard.load(folder / "made")
    with pytest.raises(errors.UserError, match=r"LEADERBOARD\.md: cannot be written \(Is a dir"):
        publish.write(loaded, folder / "made")


def test_variables_that_torchrun_left_behind_are_named(monkeypatch):
    left = {"RANK": 1, "LOCAL_RANK": 1, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1"}
    for name, value in {**left, "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(distributed, "MEETING", timedelta(seconds=1))
    with pytest.raises(errors.UserError, match=r"not met at 127\.0\.0\.1:1 .* unset RANK"):
        distributed.init()


def test_a_class_that_a_worker_cannot_import_is_named():
    content = pickle.dumps(leaderboard.Leaderboard).replace(b"Leaderboard", b"Xeaderboard")
    transform = loading._restore(plugins.AddedPaths((), (), ()), content)
    with pytest.raises(errors.UserError, match=r"cannot import the method .* put its class into"):
        transform(None, 0)


@pytest.mark.parametrize("value", ["", "abc", "1.5e9", "-1"])
def test_a_time_that_is_no_number_decides_nothing(value, folder):
    done = command("", "leaderboard", "--out", folder, SOURCE_DATE_EPOCH=value)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_run_reads_what_it_wrote_under_any_mask(tmp_path):
    places = ["--suite", "smoke", "--out", tmp_path / "out", "--cache", tmp_path / "cache"]
    arguments = ["run", "--methods", "random_init", "--tasks", "voc_cls", "--dry-run", *places]
    run = [sys.executable, "-m", "bench", *map(str, arguments)]
    done = subprocess.run(run, capture_output=True, text=True, umask=0o777)
    assert done.returncode == 0, done.stderr
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(path.stat().st_mode & 0o600 == 0o600 for path in made)
    script = "from bench import __main__; import os; os.umask(0o777); __main__.main()"
    asked = [sys.executable, "-c", f"{script}", "--version"]
    assert subprocess.run(asked, capture_output=True).returncode == 0


def test_the_mask_leaves_the_owner_what_a_run_writes(tmp_path):
    script = (
        "import os, sys; os.umask(0o777)\n"
        "from bench import cli; cli.main = lambda: open(sys.argv[1], 'w').close()\n"
        "from bench.__main__ import main; main()"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path / "file"], check=True)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_an_error_of_a_thread_is_one_line():
    script = (
        "import threading\n"
        "from bench import cli\n"
        "def fail():\n    raise BrokenPipeError(32, 'Broken pipe')\n"
        "def work():\n    t = threading.Thread(target=fail); t.start(); t.join()\n"
        "cli.main = work\n"
        "from bench.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.startswith("bench: a thread ended: ")
    assert "Broken pipe" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_folder_whose_name_is_not_utf8_costs_no_plot(bench, folder):
    assert bench("leaderboard", "--out", folder).status == 0
    plot = folder / "made/gap_voc_cls.svg"
    before = plot.read_bytes()
    plot.unlink()
    for name in ("caf\udce9", "a\nb"):
        odd = folder / "made/voc_cls" / name
        odd.mkdir()
        (odd / "seed0.json").write_bytes((folder / "made/voc_cls/rotation/seed0.json").read_bytes())
    done = command("", "leaderboard", "--out", folder)
    assert done.returncode == 0
    assert "not drawn" not in done.stderr
    assert plot.read_bytes() == before
    assert len(done.stderr.splitlines()) == 2, done.stderr
