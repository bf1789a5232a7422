"""The cache: listed by kind, pruned by age and size, and what is in use stays."""

import os
import time

import pytest

from bench.commands import cache as command
from bench.errors import UserError

DAY = 86_400


@pytest.fixture
def folder(tmp_path):
    """Entries of 1,000, 2,000 ... bytes that were last used 1, 2 ... hours, or days ago."""
    files = {
        "encoders/rotation-aa.safetensors": (900, 40),
        "encoders/rotation-aa.files.json": (100, 40),
        "encoders/rotation-aa.lock": (0, 0),
        "encoders/bigan-bb.safetensors": (2000, 10),
        "features/x/0.npy": (3000, 20),
        "features/x/1.npy": (1000, 3),
        "scenes/s/VOC2007/a.jpg": (5000, 0.1),
        "elsewhere/mine.txt": (7000, 400),
    }
    for name, (size, days) in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
        then = time.time() - days * DAY
        os.utime(path, (then, then))
    return tmp_path


def prune(folder, days=None, size=None, dry_run=False):
    lines = []
    command.prune(folder, days, size, dry_run, lines.append)
    return lines


def left(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_entries_are_files_of_use_together(folder):
    found = {(e.kind, len(e.paths)): e.size for e in command.entries(folder)}
    assert found == {
        ("encoders", 2): 1000,
        ("encoders", 1): 2000,
        ("features", 1): 4000,
        ("scenes", 1): 5000,
    }
    text = [*command.lines(folder)]
    assert text[0] == f"{folder}: 12 kB"
    assert any("encoders          2       3 kB  last used" in line for line in text), text


def test_what_was_not_used_for_long_is_removed(folder):
    before = left(folder)
    assert prune(folder, days=30, dry_run=True) == ["would remove 1 of 4 entries, 1 kB; 11 kB stay"]
    assert left(folder) == before
    assert prune(folder, days=30) == ["removed 1 of 4 entries, 1 kB; 11 kB stay"]
    gone = {*before} - {*left(folder)}
    assert gone == {"encoders/rotation-aa.safetensors", "encoders/rotation-aa.files.json"}
    assert prune(folder, days=30) == ["removed 0 of 3 entries, 0 B; 11 kB stay"]


def test_the_least_recently_used_go_first(folder):
    assert prune(folder, size="9.5kB") == ["removed 2 of 4 entries, 3 kB; 9 kB stay"]
    assert left(folder)[-1] == "scenes/s/VOC2007/a.jpg"


def test_what_was_used_within_a_day_stays(folder):
    lines = prune(folder, days=0, size="0")
    assert lines[0] == "removed 3 of 4 entries, 7 kB; 5 kB stay"
    assert "the rest was used within a day" in lines[1]
    assert "scenes/s/VOC2007/a.jpg" in left(folder)
    assert "elsewhere/mine.txt" in left(folder)


def test_an_empty_or_missing_cache(tmp_path):
    assert [*command.lines(tmp_path / "none")] == [f"{tmp_path / 'none'}: 0 B"]
    assert prune(tmp_path / "none", days=1) == ["removed 0 of 0 entries, 0 B; 0 B stay"]


def test_what_is_no_request_is_refused(folder, bench):
    with pytest.raises(UserError, match="say what to remove"):
        prune(folder)
    with pytest.raises(UserError, match="--to much: is no size"):
        prune(folder, size="much")
    done = bench("cache", "prune", "--cache", folder, "--to", "x")
    assert (done.status, done.error) == (2, "bench: --to x: is no size; write 500MB or 20GB")
    assert bench("cache", "--cache", folder).out.startswith(f"{folder}: 12 kB\n")


@pytest.mark.parametrize(
    ("text", "size"),
    [("1.5t", 1.5e12), ("20GB", 2e10), ("20 gb", 2e10), ("0", 0), ("500MB", 5e8)],
)
def test_sizes(text, size):
    assert command.parse_size(text) == size
