"""The resamples of a record: the value they start from, the cache that keeps them."""

import numpy as np
import pytest
from support import forge

from bench.errors import UserError
from bench.reporting import leaderboard, publish
from bench.results import storage


def test_a_value_that_its_predictions_do_not_give_is_refused(folder):
    for value in (99.9, float("nan")):
        forge(folder / "made/voc_cls/rotation/seed0.json", value=value)
        with pytest.raises(UserError, match=rf"says {value}, but its predictions give"):
            leaderboard.load(folder / "made")


def test_what_the_cache_keeps_changes_no_byte_and_hides_no_change(folder, bench, tmp_path):
    cache, made = tmp_path / "cache", folder / "made"
    fresh = publish.texts(leaderboard.load(made))
    assert publish.texts(leaderboard.load(made, cache)) == fresh
    kept = sorted((cache / "resampled").iterdir())
    assert len(kept) == 3
    assert publish.texts(leaderboard.load(made, cache)) == fresh
    rng = np.random.default_rng(0)
    content = kept[0].read_bytes()
    for place in [*range(60), *rng.integers(len(content), size=40), *range(-120, 0)]:
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << rng.integers(8)
        kept[0].write_bytes(spoilt)
        assert publish.texts(leaderboard.load(made, cache)) == fresh
    arrays = made / "voc_cls/rotation/seed0.npz"
    arrays.write_bytes(arrays.read_bytes() + b" ")
    with pytest.raises(UserError, match=r"seed0\.npz: is not the file"):
        leaderboard.load(made, cache)


def test_a_kept_file_of_another_form_or_value_is_made_again(folder, tmp_path):
    cache, made = tmp_path / "cache", folder / "made"
    fresh = publish.texts(leaderboard.load(made, cache))
    for kept in (cache / "resampled").iterdir():
        with np.load(kept) as archive:
            values = archive["values"]
        for other in (values[:0], values[:1], values + 1):
            np.savez(kept, images=np.array(120), values=other)
            assert publish.texts(leaderboard.load(made, cache)) == fresh


def test_predictions_that_are_none_are_named(folder):
    path = folder / "made/voc_cls/rotation/seed0.json"
    found = storage.read(path)
    arrays = storage.read_predictions(path, found)
    for change in ({"scores": arrays["scores"][:-1]}, {"scores": arrays["scores"] * np.nan}):
        storage.save(found, path, arrays | change)
        with pytest.raises(UserError, match=r"rotation/seed0\.npz: cannot be scored \("):
            leaderboard.load(folder / "made")


def test_many_records_are_resampled_in_processes_to_the_same_board(folder, tmp_path, monkeypatch):
    fresh = publish.texts(leaderboard.load(folder / "made"))
    monkeypatch.setattr("bench.statistics.cache.WORTHWHILE", 1)
    seen = []
    monkeypatch.setattr("bench.metrics.resampled.resampled_scores", lambda *_: seen.append(1))  # not here
    assert publish.texts(leaderboard.load(folder / "made", tmp_path / "cache")) == fresh
    assert not seen
