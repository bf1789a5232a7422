"""`bench reproduce`: one record again, what differs before, what changed after."""

import json
import shutil

import pytest
from support import forge

from bench.metrics import registry
from bench.results import storage


@pytest.fixture
def place(reference, tmp_path):
    """A record of random_init to be reproduced, with its predictions, in a folder of its own."""
    shutil.copytree(reference[0] / "small", tmp_path / "records" / "small")
    shutil.copytree(reference[1] / "scenes", tmp_path / "cache" / "scenes")
    return tmp_path / "records/small/voc_cls/random_init/seed0.json"


@pytest.fixture
def reproduce(bench, place, tmp_path):
    def call(*arguments):
        return bench(
            "reproduce", place, "--cache", tmp_path / "cache", "--device", "cpu", *arguments
        )

    return call


def test_a_record_is_reproduced_byte_for_byte_and_left_alone(reproduce, place, tmp_path):
    before = {path.name: path.read_bytes() for path in place.parent.iterdir()}
    done = reproduce("--out", tmp_path / "out")
    assert done.status == 0, done.err
    assert "code, data, packages and machine are those of the record" in done.out
    assert "every number came out the same" in done.out
    assert "same bytes" in done.out
    assert {path.name: path.read_bytes() for path in place.parent.iterdir()} == before
    again = tmp_path / "out/small/voc_cls/random_init/seed0.npz"
    assert again.read_bytes() == before["seed0.npz"]
    done = reproduce("--out", tmp_path / "out")
    assert (done.status, "seed0.json already; use another" in done.error) == (2, True)
    done = reproduce("--out", tmp_path / "records")
    assert (done.status, "seed0.json already; use another" in done.error) == (2, True)


def test_what_differs_is_said_and_a_changed_value_is_status_1(reproduce, place):
    entry = storage.read(place)
    arrays = storage.read_predictions(place, entry)
    arrays["scores"] = arrays["scores"] + 3 * arrays["truth"]
    value = registry.value(registry.get("mAP"), arrays)
    changes = {
        "value": value,
        "provenance": entry.provenance.model_copy(update={"method_code": "9" * 64}),
        "data": entry.data | {"voc_test": "8" * 64},
        "environment": entry.environment | {"torch": "1.0.0", "processor": "abacus"},
    }
    storage.save(entry.model_copy(update=changes), place, arrays)
    done = reproduce()
    assert done.status == 1
    lines = [line.split() for line in done.out.splitlines()]

    def row(name):
        return next(words for words in lines if words[:1] == [name])

    assert row("code.method_code")[1] == "9" * 12
    assert row("data.voc_test")[1:] == ["8" * 12, entry.data["voc_test"][:12]]
    assert row("environment.torch")[1:] == ["1.0.0", entry.environment["torch"]]
    assert row("environment.processor")[1] == "abacus"
    assert row("value")[1:] == [f"{value:.6f}", f"{entry.value:.6f}"]
    assert "CHANGED" in done.out
    assert done.out.index("code.method_code") < done.out.index("changed numbers")


def test_a_class_that_changed_is_named_with_both_values(reproduce, place):
    per_class = json.loads(place.read_text())["per_class"]
    per_class["bird"] += 1
    forge(place, per_class=per_class)
    done = reproduce()
    assert done.status == 0, "the score is the same"
    assert "per_class.bird" in done.out
    assert "per_class.boat" not in done.out


def test_a_record_that_cannot_be_reproduced_is_refused(reproduce, place, bench, tmp_path):
    done = bench("reproduce", tmp_path / "absent.json")
    assert (done.status, "absent.json: cannot be read" in done.error) == (2, True)
    for change, message in (
        ({"status": "failed", "error": "boom"}, "failed (boom); only a finished record"),
        ({"method": "rotatoin", "status": "ok", "error": None}, "unknown method 'rotatoin'"),
    ):
        forge(place, **change)
        done = reproduce()
        assert (done.status, message in done.error) == (2, True)
