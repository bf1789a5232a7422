"""Records on disk: whole or not there, and no change to one goes unnoticed."""

import json
import os
import shutil

import numpy as np
import pytest
from made_up import save
from support import forge

from bench.errors import UserError
from bench.reporting import leaderboard, publish
from bench.results import storage
from bench.results.record import Predictions
from bench.runtime.files import atomic_write

ROTATION = "made/voc_cls/rotation/seed0.json"


def test_a_record_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    atomic_write(path, b"old")

    def crash(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="No space"):
        atomic_write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def left_out(folder):
    """Why the one record was left out, which the leaderboard must not show."""
    found = leaderboard.load(folder / "made")
    (bad,) = found.problems
    assert bad.path == folder / ROTATION
    assert found.tables[0].row("rotation") is None
    return bad.reason


def test_a_change_to_any_field_of_a_record_is_noticed(folder):
    path = folder / ROTATION
    content = path.read_text()
    entry = json.loads(content)
    changed = 0
    for key, value in entry.items():
        other = {str: "x", int: 7, float: 7.5, list: ["x"], dict: {}}.get(type(value), "x")
        path.write_text(json.dumps(entry | {key: other}))
        if entry[key] != other:
            changed += 1
            assert left_out(folder)
    assert changed > 20
    entry["suite_settings"]["pretraining"]["crop"] += 1
    path.write_text(json.dumps(entry))
    assert left_out(folder).startswith("has no checksum, or was changed")


def test_any_byte_of_a_record_or_its_predictions_is_noticed(folder):
    rng = np.random.default_rng(0)
    for name in ("seed0.json", "seed0.npz"):
        path = folder / "made/voc_cls/rotation" / name
        content = path.read_bytes()
        for place in rng.integers(len(content), size=60):
            spoilt = bytearray(content)
            spoilt[place] ^= 1 << rng.integers(7)
            path.write_bytes(spoilt)
            if leaderboard.load(folder / "made").problems:
                continue
            # Not noticed, so it says the same: white space, or another way to write it.
            assert name == "seed0.json"
            assert json.loads(spoilt) == json.loads(content)
        path.write_bytes(content)
    assert leaderboard.load(folder / "made").problems == ()


def test_a_record_whose_checksum_was_taken_off_is_left_out(folder):
    path = folder / ROTATION
    entry = json.loads(path.read_text())
    del entry["checksum"]
    path.write_text(json.dumps(entry))
    assert left_out(folder).startswith("has no checksum, or was changed")


@pytest.mark.parametrize("change", [{"value": None}, {"encoder": None}])
def test_an_incomplete_record_is_named(folder, change):
    path = folder / ROTATION
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"seed0\.json: not a record: .*without"):
        storage.read(path)


def test_changed_predictions_are_left_out(folder):
    path = folder / "made/voc_cls/rotation/seed0.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert left_out(folder).startswith("voc_cls/rotation/seed0.npz: is not the file")


def test_a_file_that_is_no_record_is_named(folder):
    path = folder / ROTATION
    entry = json.loads(path.read_text())
    path.write_text(json.dumps(entry | {"color": "red"}))
    with pytest.raises(
        UserError, match=r"rotation/seed0\.json: not a record: key 'color' \('red'\)"
    ):
        storage.read(path)


def unreadable(path):
    path.write_bytes(b"\x00{")


def of_another_schema(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 1}))


def with_a_wrong_checksum(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"checksum": "0" * 64}))


def without_predictions(path):
    path.with_suffix(".npz").unlink()


def with_other_predictions(path):
    path.with_suffix(".npz").write_bytes(b"PK")


def with_predictions_elsewhere(path):
    elsewhere = Predictions.model_construct(file="../imagenet/seed0.npz", sha256="0" * 64)
    forge(path, predictions=elsewhere)


def with_predictions_that_are_no_archive(path):
    storage.save(storage.read(path), path, {"ids": np.arange(3)})


def with_another_value(path):
    forge(path, value=99.9)


def in_a_wrong_place(path):
    shutil.move(path.parent, path.parent.with_name("backup"))


def a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "spoil",
    [
        unreadable,
        of_another_schema,
        with_a_wrong_checksum,
        without_predictions,
        with_other_predictions,
        with_predictions_elsewhere,
        with_predictions_that_are_no_archive,
        with_another_value,
        in_a_wrong_place,
        a_folder,
    ],
)
def test_a_bad_record_is_named_and_leaves_the_other_rows_as_they_were(folder, spoil):
    before = publish.texts(leaderboard.load(folder / "made"))
    save(folder, "moco", 1.2)
    spoil(folder / "made/voc_cls/moco/seed0.json")
    found = leaderboard.load(folder / "made")
    (bad,) = found.problems
    assert "\n" not in str(bad)
    assert str(folder / "made/voc_cls") in str(bad)
    after = publish.texts(found)
    assert after["leaderboard.csv"] == before["leaderboard.csv"]
    text = after["LEADERBOARD.md"].decode()
    start = text.index("**1 record is left out of the tables:**")
    end = text.index("## voc_cls")
    assert str(folder) not in text, "equal wherever the folder is"
    assert (text[:start] + text[end:]).encode() == before["LEADERBOARD.md"]
    place = "backup" if spoil is in_a_wrong_place else "moco"
    assert f"- `voc_cls/{place}/seed0.json`: `" in text[start:end]


def test_a_bad_seed_leaves_the_row_its_others(folder):
    one = leaderboard.load(folder / "made").tables
    save(folder, "rotation", 0.8, seed=1)
    with_a_wrong_checksum(folder / "made/voc_cls/rotation/seed1.json")
    assert leaderboard.load(folder / "made").tables == one


def test_bad_records_alone_are_refused(tmp_path):
    save(tmp_path, "rotation", 0.8)
    unreadable(tmp_path / ROTATION)
    with pytest.raises(UserError, match=r"rotation/seed0\.json: left out: not a record"):
        leaderboard.load(tmp_path / "made")
    with pytest.raises(UserError, match="contains no records"):
        leaderboard.load(tmp_path / "nothing")


def test_a_name_that_is_no_utf8_does_not_make_a_record_unreadable(folder):
    """As of a folder on the command line: the run would have been for nothing."""
    path = folder / ROTATION
    forge(path, warnings=["caf\udce9"], files={"caf\udce9": "0"})
    record = storage.read(path)
    assert record.warnings == [r"caf\udce9"]
    assert [*record.files.values()] == ["0"]
