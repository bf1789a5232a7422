"""Which cells of a request are up to date."""

import re
import shutil

import pytest
from made_up import SUITE, save

from bench.commands.plan import is_up_to_date
from bench.commands.request import Cell, Request
from bench.errors import UserError


def request(folder):
    tasks = {"methods": ("rotation",), "tasks": ("voc_cls",), "seeds": (0, 1)}
    return Request(SUITE, **tasks, data_root=None, out=folder, cache=folder / "cache")


@pytest.mark.parametrize(
    ("method", "seed", "removed"),
    [("rotation", 1, False), ("jigsaw", 0, False), ("rotation", 1, True)],
)
def test_a_copy_of_a_record_is_no_other_cell(tmp_path, method, seed, removed):
    save(tmp_path, "rotation", 0.8)
    original = Cell("rotation", "voc_cls", 0).path(request(tmp_path))
    copy = Cell(method, "voc_cls", seed).path(request(tmp_path))
    copy.parent.mkdir(exist_ok=True)
    for suffix in (".json", ".npz"):
        shutil.copy(original.with_suffix(suffix), copy.with_suffix(suffix))
    if removed:
        original.unlink()
    advice = "move it there" if removed else "remove it"
    message = f"{copy}: is a copy of the record that belongs at {original}; {advice}"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        is_up_to_date(Cell(method, "voc_cls", seed), request(tmp_path))
    assert not is_up_to_date(Cell("jigsaw", "voc_cls", 1), request(tmp_path))
