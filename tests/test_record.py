"""Records on disk: whole or not there, and no change to one goes unnoticed."""

import json

import numpy as np
import pytest

from bench.errors import UserError
from bench.reporting import leaderboard
from bench.results import record
from bench.runtime.files import atomic_write


def test_a_record_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    atomic_write(path, b"old")

    def crash(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(record.os, "fsync", crash)
    with pytest.raises(OSError, match="No space"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_change_to_any_field_of_a_record_is_noticed(folder):
    path = folder / "made/voc_cls/rotation/seed0.json"
    content = path.read_text()
    entry = json.loads(content)
    changed = 0
    for key, value in entry.items():
        other = {str: "x", int: 7, float: 7.5, list: ["x"], dict: {}}.get(type(value), "x")
        path.write_text(json.dumps(entry | {key: other}))
        if entry[key] != other:
            changed += 1
            with pytest.raises(UserError, match=r"seed0\.json|differ in"):
                leaderboard.load(folder / "made")
    assert changed > 20
    entry["suite_settings"]["pretraining"]["crop"] += 1
    path.write_text(json.dumps(entry))
    with pytest.raises(UserError, match=r"rotation/seed0\.json: has no seal, or was changed"):
        leaderboard.load(folder / "made")


def test_any_byte_of_a_record_or_its_predictions_is_noticed(folder):
    rng = np.random.default_rng(0)
    for name in ("seed0.json", "seed0.npz"):
        path = folder / "made/voc_cls/rotation" / name
        content = path.read_bytes()
        for place in rng.integers(len(content), size=60):
            spoilt = bytearray(content)
            spoilt[place] ^= 1 << rng.integers(7)
            path.write_bytes(spoilt)
            try:
                leaderboard.load(folder / "made")
            except UserError:
                continue
            # Not noticed, so it says the same: white space, or another way to write it.
            assert name == "seed0.json"
            assert json.loads(spoilt) == json.loads(content)
        path.write_bytes(content)
    leaderboard.load(folder / "made")


def test_a_record_whose_seal_was_taken_off_is_refused(folder):
    path = folder / "made/voc_cls/rotation/seed0.json"
    entry = json.loads(path.read_text())
    del entry["seal"]
    path.write_text(json.dumps(entry))
    with pytest.raises(UserError, match=r"seed0\.json: has no seal, or was changed"):
        leaderboard.load(folder / "made")


@pytest.mark.parametrize("change", [{"value": None}, {"encoder": None}, {"suite_settings": {}}])
def test_an_incomplete_record_is_named(folder, change):
    path = folder / "made/voc_cls/rotation/seed0.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"seed0\.json: not a record .*without"):
        leaderboard.load(folder / "made")


def test_changed_predictions_are_refused(folder):
    path = folder / "made/voc_cls/rotation/seed0.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"seed0\.npz: is not the file"):
        leaderboard.load(folder / "made")


def test_a_file_that_is_no_record_is_named(folder):
    path = folder / "made/voc_cls/rotation/seed0.json"
    entry = json.loads(path.read_text())
    path.write_text(json.dumps(entry | {"color": "red"}))
    with pytest.raises(UserError, match=r"rotation/seed0\.json: not a record \(key 'color'"):
        leaderboard.load(folder / "made")
