"""Files of the cache: whole or made again; partial ones are swept when nobody writes them."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from bench.runtime import files, partial


@pytest.mark.parametrize("content", [b"", b"x", bytes(100_000)])
def test_a_cached_file_is_what_was_written(tmp_path, content, capfd):
    path = tmp_path / "sub/file"
    assert files.read_cached(path) is None
    files.write_cached(path, content)
    assert files.read_cached(path) == content
    assert not capfd.readouterr().err
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_any_change_of_a_cached_file_is_named(tmp_path, capfd):
    path = tmp_path / "file"
    files.write_cached(path, b"some content")
    whole = path.read_bytes()
    changed = [whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1 :] for k in range(len(whole))]
    for content in (*changed, *(whole[:k] for k in range(len(whole))), whole + b"0"):
        path.write_bytes(content)
        assert files.read_cached(path) is None
        assert capfd.readouterr().err == f"{files.damaged(path)}\n"


def test_a_file_is_flushed_before_it_is_renamed(tmp_path, monkeypatch):
    events = []
    fsync = os.fsync
    replace = files.Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("fsync"), fsync(fd)))
    monkeypatch.setattr(
        files.Path, "replace", lambda path, to: (events.append("rename"), replace(path, to))
    )
    files.write_cached(tmp_path / "file", b"content")
    assert events == ["fsync", "rename"]


def make_leftovers(folder):
    """A partial file and a partial folder as a killed process leaves them."""
    code = "\n".join(
        [
            "import os, signal, sys",
            "from pathlib import Path",
            "from bench.runtime import partial",
            "folder = Path(sys.argv[1])",
            "partial.claim_temporary_folder()",
            "stream = partial.open_partial(folder / 'file')",
            "with partial.partial_folder(folder / 'target') as inside:",
            "    (inside / 'half').touch()",
            "    print('ready', flush=True)",
            "    sys.stdin.read()",
        ]
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such locks")
def test_leftovers_are_swept_when_no_process_holds_them(tmp_path, monkeypatch, request):
    temporary = Path(tempfile.mkdtemp())  # a path short enough for sockets
    request.addfinalizer(lambda: shutil.rmtree(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    foreign = temporary / "pymp-foreign"
    foreign.mkdir()
    folder = tmp_path / "cache/features"
    folder.mkdir(parents=True)
    process = make_leftovers(folder)
    assert process.stdout.readline() == b"ready\n"
    partial.sweep_cache(tmp_path / "cache")
    assert len(list(folder.glob("partial-target-*/half"))) == 1
    assert len(list(folder.glob(".file.*.partial"))) == 1
    assert len(list(temporary.glob("pymp-*"))) == 2
    process.kill()
    process.communicate()
    partial.sweep_cache(tmp_path / "cache")
    assert not list(folder.iterdir())
    assert list(temporary.iterdir()) == [foreign], "another program's"


def test_writers_of_two_machines_that_have_one_number_write_two_files(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: 7)
    names = set()
    for content in (b"one", b"other"):  # in turn: on one name, the second would wait here
        with partial.open_partial(tmp_path / "file") as stream:
            stream.write(content)
        names.add(stream.name)
    assert {Path(name).read_bytes() for name in names} == {b"one", b"other"}


def test_a_partial_folder_becomes_the_target_or_is_gone(tmp_path):
    with partial.partial_folder(tmp_path / "whole") as folder:
        (folder / "file").touch()
    with pytest.raises(OSError, match="no space"), partial.partial_folder(tmp_path / "half"):
        raise OSError("no space")
    assert [p.name for p in tmp_path.iterdir()] == ["whole"]
    assert (tmp_path / "whole/file").exists()


def test_a_cached_file_under_the_name_of_another_is_damaged(tmp_path, capfd):
    for name in ("a.json", "b.json"):
        files.write_cached(tmp_path / name, name.encode())
    (tmp_path / "a.json").rename(tmp_path / "t")
    (tmp_path / "b.json").rename(tmp_path / "a.json")
    assert files.read_cached(tmp_path / "a.json") is None
    assert "a.json: is damaged" in capfd.readouterr().err
    (tmp_path / "a.json").rename(tmp_path / "b.json")
    assert files.read_cached(tmp_path / "b.json") == b"b.json"


def test_a_run_that_waits_for_another_says_so(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(files, "NOTICE_SECONDS", 0.05)
    with files.locked(tmp_path / "lock"):
        pass
    assert not capfd.readouterr().err
    script = (
        "import filelock, sys\n"
        "with filelock.FileLock(sys.argv[1]):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    held = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "lock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert held.stdout.readline() == b"held\n"
    threading.Timer(0.5, held.stdin.close).start()
    with files.locked(tmp_path / "lock"):
        assert "lock: another run holds it; waiting" in capfd.readouterr().err
    held.wait(10)


def test_a_temporary_folder_is_one_that_is_swept():
    with partial.temporary_folder() as folder:
        (folder / "file").touch()
        assert folder.parent.name.startswith("pymp-")
        assert (folder.parent / partial.OWN).exists()
    assert not folder.exists()


SWEPT_AT_EVERY_STEP = """
import tempfile
from pathlib import Path
from bench.runtime import partial
def swept(step):
    def call(*args, **options):
        if options.get("wait") is False:  # the sweep's own
            return step(*args, **options)
        partial.sweep_cache(Path("no cache"))
        result = step(*args, **options)
        partial.sweep_cache(Path("no cache"))
        return result
    return call
partial._open_and_lock, Path.touch = swept(partial._open_and_lock), swept(Path.touch)
partial.claim_temporary_folder()
(folder,) = Path(tempfile.gettempdir()).glob("pymp-*")
assert (folder / partial.OWN).exists()
print("kept")
"""


def test_another_run_never_sweeps_the_folder_of_one_that_starts(request):
    temporary = Path(tempfile.mkdtemp())  # a path short enough for sockets
    request.addfinalizer(lambda: shutil.rmtree(temporary))
    done = subprocess.run(
        [sys.executable, "-c", SWEPT_AT_EVERY_STEP],
        env=os.environ | {"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "kept\n", done.stderr


def test_a_temporary_folder_with_a_long_name_is_one_line(tmp_path):
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    script = "from bench.runtime import partial; partial.claim_temporary_folder()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"TMPDIR": str(folder)},
        capture_output=True,
        text=True,
    )
    assert done.stderr.splitlines()[-1].endswith("set TMPDIR=/tmp")
    assert not [*folder.iterdir()]


STDIN = """
import torch
from torch.utils.data import DataLoader, TensorDataset
from bench.runtime.pool import batches
data = TensorDataset(torch.arange(6))
loader = DataLoader(data, batch_size=2, num_workers=1, multiprocessing_context="spawn")
assert [batch[0].tolist() for batch in batches(loader)] == [[0, 1], [2, 3], [4, 5]]
assert list(batches([])) == []
print("all")
"""


@pytest.mark.slow
def test_workers_of_a_program_from_stdin_import_no_main_module():
    done = subprocess.run([sys.executable, "-"], input=STDIN, capture_output=True, text=True)
    assert (done.stdout, "Traceback" in done.stderr) == ("all\n", False), done.stderr
