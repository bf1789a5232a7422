"""Manifests: each file is read once, and whatever changed is seen."""

import hashlib
import os
import pickle
import time

import numpy as np
import pytest

from bench.data import manifest
from bench.data.manifest import FileNames, Inspection, inspections
from bench.runtime.fingerprint import digest

OLD = 1_000_000_000  # seconds since 1970: long before any start


class Folder:
    """A folder of files, and which of them are read at a start."""

    def __init__(self, root, cache):
        self.root = root
        self.cache = cache
        self.read = []
        self.advanced = 0
        root.mkdir()

    def write(self, name, content=None, at=OLD):
        path = self.root / name
        path.write_bytes((content or name).encode())
        os.utime(path, (at, at))

    def inspect(self, name):
        self.read.append(name)
        content = (self.root / name).read_bytes() if (self.root / name).exists() else b""
        if not content.strip():
            return Inspection(problem="is empty")
        return Inspection(hashlib.sha256(content).hexdigest(), (len(content), 3), 1)

    def start(self, names=None, manifests=True):
        """One start: what is known of the files, and the names of those that were read."""
        self.read = []
        self.advanced = 0
        listed = sorted(path.name for path in self.root.iterdir()) if names is None else names
        place = self.cache / "manifests" if manifests else None
        found = inspections(self.root, FileNames.of(listed), self.inspect, self.advance, place)
        assert self.advanced == len(listed)
        return found, sorted(self.read)

    def advance(self, count):
        self.advanced += count


@pytest.fixture(autouse=True)
def no_margin(monkeypatch):
    """The inode's time cannot be set, so that files of a test are younger than their manifest."""
    monkeypatch.setattr(manifest, "MARGIN", 0)


@pytest.fixture
def folder(tmp_path):
    folder = Folder(tmp_path / "images", tmp_path)
    for name in ("a", "b", "c"):
        folder.write(name)
    wait()
    return folder


def wait():
    """Until the clock of the file system, which is coarse, is past what was written."""
    time.sleep(0.02)


def same(a, b):
    arrays = ("contents", "sizes", "orientations")
    assert all(np.array_equal(getattr(a, key), getattr(b, key)) for key in arrays)
    assert (a.names, a.fingerprint, a.problems) == (b.names, b.fingerprint, b.problems)


def test_every_file_is_read_once(folder):
    first, read = folder.start()
    assert read == ["a", "b", "c"]
    again, read = folder.start()
    assert read == []
    same(first, again)
    without, read = folder.start(manifests=False)
    assert read == ["a", "b", "c"]
    same(first, without)
    contents = [hashlib.sha256(name.encode()).hexdigest() for name in "abc"]
    assert first.fingerprint == digest([["a", "b", "c"], contents])
    assert [row.tobytes().hex() for row in first.contents] == contents


def test_the_fingerprint_of_any_names_is_that_of_lists(folder):
    for name in ('qu"ote', "back\\slash", "日本", "tab\t"):
        folder.write(name)
    found, _ = folder.start()
    contents = [hashlib.sha256(name.encode()).hexdigest() for name in found.names]
    assert found.fingerprint == digest([[*found.names], contents])


@pytest.mark.parametrize(
    ("change", "read"),
    [
        (lambda f: f.write("b", "B"), ["b"]),  # the same size and time
        (lambda f: f.write("b", "longer"), ["b"]),
        (lambda f: os.utime(f.root / "b", (OLD + 1, OLD + 1)), ["b"]),
        (lambda f: f.write("d"), ["d"]),
        (lambda f: (f.root / "a").unlink(), []),
        (lambda f: (f.root / "a").rename(f.root / "z"), ["z"]),
        (lambda f: swap(f.root / "a", f.root / "b"), ["a", "b"]),
        (lambda f: (f.root / "a").replace(f.root / "b"), ["b"]),
    ],
)
def test_what_changed_is_read_and_seen(folder, change, read):
    before, _ = folder.start()
    change(folder)
    wait()
    after, seen = folder.start()
    assert seen == read
    same(after, folder.start(manifests=False)[0])
    content_changed = [row.tobytes() for row in after.contents] != [
        row.tobytes() for row in before.contents
    ]
    assert (after.fingerprint != before.fingerprint) == (
        content_changed or [*after.names] != [*before.names]
    )
    assert folder.start()[1] == []


def swap(a, b):
    """Exchange two files, keeping their times."""
    a.rename(a.with_name("t"))
    b.rename(a)
    a.with_name("t").rename(b)


def test_a_file_as_young_as_its_manifest_is_read_again(folder, monkeypatch):
    monkeypatch.setattr(manifest, "MARGIN", 60 * 10**9)
    folder.start()
    assert folder.start()[1] == ["a", "b", "c"]
    monkeypatch.setattr(manifest, "MARGIN", 0)
    assert folder.start()[1] == []


def test_a_file_from_the_future_is_read_at_every_start(folder):
    folder.write("b", at=time.time() + 3600)
    folder.start()
    assert folder.start()[1] == ["b"]
    assert folder.start()[1] == ["b"]


def test_a_file_with_a_problem_is_read_at_every_start(folder):
    folder.write("b", " ")
    wait()
    first, _ = folder.start()
    assert first.problems == {1: "is empty"}
    assert first.without_problems().tolist() == [0, 2]
    again, read = folder.start()
    assert read == ["b"]
    same(first, again)
    folder.write("b", "b")
    wait()
    mended, read = folder.start()
    assert read == ["b"]
    assert mended.problems == {}
    assert folder.start()[1] == []


def test_a_file_that_is_not_there_is_a_problem(folder):
    found, read = folder.start(["a", "nowhere"])
    assert (found.problems, read) == ({1: "is empty"}, ["a", "nowhere"])


def test_other_listings_of_a_folder_know_its_files(folder):
    folder.start(["a", "b"])
    assert folder.start(["c", "a"])[1] == ["c"]
    assert folder.start(["a", "b"])[1] == []


def test_the_least_recently_used_are_removed(folder, monkeypatch):
    monkeypatch.setattr(manifest, "KEPT", 2)
    for names in (["a"], ["b"], ["c"]):
        folder.start(names)
        wait()
    assert len([*folder.cache.glob("manifests/*/*.manifest")]) == 2


def test_a_damaged_manifest_is_computed_anew(folder, capsys):
    first, _ = folder.start()
    (path,) = folder.cache.glob("manifests/*/*.manifest")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    again, read = folder.start()
    assert read == ["a", "b", "c"]
    same(first, again)
    assert (
        f"{path}: is damaged or of an older format; it is computed anew" in capsys.readouterr().err
    )


def test_names_of_a_manifest_are_mapped_in_every_process(folder):
    folder.start()
    found, _ = folder.start()
    assert isinstance(found.names.block, np.memmap)
    pickled = pickle.dumps(found.names)
    assert len(pickled) < 500
    other = pickle.loads(pickled)
    assert isinstance(other.block, np.memmap)
    assert other == found.names


def test_an_error_leaves_no_manifest(folder):
    def broken(name):
        raise KeyError(name)

    with pytest.raises(KeyError):
        inspections(folder.root, FileNames.of(["a"]), broken, lambda _: None, folder.cache)
    assert folder.start()[1] == ["a", "b", "c"]
