"""`bench check`: a reference that holds, and planted regressions that it catches."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from made_up import save
from support import forge

from bench.commands import check as command
from bench.commands import execute
from bench.commands.verdict import ALIKE, FALSE_ALARM, judge, likeness, tolerance
from bench.encoders.encoder import Encoder
from bench.evaluation.probes import linear_svm
from bench.metrics import registry, resampled
from bench.results import storage
from bench.statistics.intervals import ConfidenceInterval, Estimate
from bench.statistics.model import Kind, Seeds
from bench.statistics.scores import IMAGES_ONLY
from bench.statistics.training_runs import Runs


@pytest.fixture
def check(reference, bench, tmp_path):
    """`bench check` in this process, with nothing but the rendered scenes cached."""
    folder, cache, _ = reference
    shutil.copytree(cache / "scenes", tmp_path / "cache" / "scenes")

    def call(*arguments, against=folder):
        where = ["--reference", against, "--cache", tmp_path / "cache", "--device", "cpu"]
        return bench("check", *where, *arguments)

    return call


@pytest.fixture
def copy(reference, tmp_path):
    """The reference's folder again, to be changed."""
    shutil.copytree(reference[0], tmp_path / "copy")
    return tmp_path / "copy"


def verdicts(done):
    """What the table says of each cell."""
    lines = done.out.splitlines()
    methods = ("imagenet", "random_init")
    return {m: next(x for x in lines if x.strip().startswith(f"small: {m} x")) for m in methods}


def messages(done):
    """What is said below the table, one line."""
    return " ".join(done.out.split())


@pytest.mark.slow
def test_the_same_code_gives_the_same_bytes_and_takes_what_was_run(check, tmp_path):
    done = check("--out", tmp_path / "out")
    assert done.status == 0, done.out
    assert all("same bytes" in line for line in verdicts(done).values())
    assert "imagenet less random_init: +" in done.out
    assert "0 of 2 cells changed; 0 of 1 declared pairs in another order" in done.out
    assert "small: 2 cells, 2 to run" in done.err
    again = check("--out", tmp_path / "out")
    assert (again.status, again.out) == (0, done.out)
    assert "small: 2 cells, 0 to run" in again.err


@pytest.mark.slow
def test_a_wrong_metric_is_caught_by_the_references_own_predictions(check, monkeypatch):
    true = resampled.ranked_precisions

    def without_envelope(scores, positive, images, weights, kind, total=None):
        return true(scores, positive, images, weights, "step", total)

    monkeypatch.setattr(resampled, "ranked_precisions", without_envelope)
    done = check()
    assert done.status == 1
    assert all("CHANGED" in line for line in verdicts(done).values())
    assert (
        messages(done).count("bench/metrics (mAP): metric: the reference's predictions give") == 2
    )


@pytest.mark.slow
def test_a_wrong_metric_at_scoring_alone_is_caught_by_the_new_predictions(check, monkeypatch):
    def eleven_points(name):
        return registry.MeanAveragePrecision(name, "11-point")

    other = SimpleNamespace(**vars(registry) | {"get": eleven_points})
    monkeypatch.setattr(execute, "registry", other)
    done = check()
    assert done.status == 1
    assert all("CHANGED" in line for line in verdicts(done).values())
    assert messages(done).count("bench/metrics (mAP): metric: the new predictions give") == 2


@pytest.mark.slow
def test_an_unnormalized_input_is_caught(check, monkeypatch):
    monkeypatch.setattr(Encoder, "_input", lambda self, name, rgb: rgb)
    done = check()
    assert done.status == 1
    assert all("CHANGED" in line for line in verdicts(done).values())
    wrong = "tasks/voc_cls.py: scores: the same weights give other scores: correlation 0."
    assert messages(done).count(wrong) == 2


@pytest.mark.slow
def test_a_probe_that_reads_test_labels_is_caught(check, monkeypatch, reference):
    voc, fit = reference[2]["voc"], linear_svm.fit

    def on_both_splits(train, labels, test, costs, folds, **rest):
        positives = [(split.labels == 1).sum(0) for split in (voc.train, voc.test)]
        enough = np.minimum(*positives) >= 5
        leaked = np.concatenate([labels, voc.test.labels[:, enough]])
        return fit(torch.cat([train, test]), leaked, test, costs, folds, **rest)

    monkeypatch.setattr(linear_svm, "fit", on_both_splits)
    done = check()
    assert done.status == 1
    assert all("CHANGED" in line for line in verdicts(done).values())
    for method in ("imagenet", "random_init"):
        wrong = f"methods/{method}.py or tasks/voc_cls.py: score: the score changed by +"
        assert wrong in messages(done)
    assert "beyond its tolerance" in messages(done)
    assert "2 of 2 cells changed" in done.out


@pytest.mark.slow
def test_a_cell_that_fails_has_changed(check, monkeypatch):
    def broken(self, context):
        raise RuntimeError("boom")

    monkeypatch.setattr("bench.methods.imagenet.ImageNet.pretrain", broken)
    done = check()
    assert done.status == 1
    assert "CHANGED" in verdicts(done)["imagenet"]
    assert "methods/imagenet.py: failure: failed: RuntimeError: boom" in messages(done)
    assert "same bytes" in verdicts(done)["random_init"]
    assert "imagenet less random_init: -, NOT as declared" in done.out


def test_another_order_than_declared_is_caught(check, copy, reference):
    (copy / command.ORDER).write_text('[small]\nvoc_cls = ["random_init", "imagenet"]\n')
    done = check("--out", reference[0], against=copy)
    assert done.status == 1
    assert "NOT as declared" in done.out
    assert "0 of 2 cells changed; 1 of 1 declared pairs in another order" in done.out


def test_without_a_declared_order_none_is_asked_for(check, copy, reference):
    (copy / command.ORDER).unlink()
    done = check("--out", reference[0], against=copy)
    assert (done.status, "declared" in done.out) == (0, False)
    assert "no order.toml, so no order was checked" in done.out


def test_a_raised_task_version_asks_for_a_new_reference(check, copy, reference):
    forge(copy / "small/voc_cls/imagenet/seed0.json", task_version=0)
    done = check("--out", reference[0], against=copy)
    assert done.status == 1
    assert "CHANGED" in verdicts(done)["imagenet"]
    wrong = "tasks/voc_cls.py: version: version 0 to 1: make a new reference (small: imagenet"
    assert wrong in messages(done)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ("[small", "order.toml: not TOML"),
        ("small = 3", "'small' is not a list of two or more different methods"),
        ("[small]\nvoc_cls = ['imagenet']", "'voc_cls' is not a list of two or more"),
        ("[small]\nvoc_cls = ['imagenet', 'imagenet']", "'voc_cls' is not a list of two or more"),
        ("[small]\nvoc_cls = ['imagenet', 'random']", "unknown cell 'small/voc_cls/random'"),
    ],
)
def test_a_bad_order_is_one_line(check, copy, order, message):
    (copy / command.ORDER).write_text(order)
    done = check(against=copy)
    assert (done.status, message in done.error) == (2, True)


def test_a_reference_that_cannot_serve_is_refused(check, copy, tmp_path):
    done = check(against=tmp_path / "nothing")
    assert (done.status, "nothing: has no records" in done.error) == (2, True)
    done = check("--out", copy, against=copy)
    assert (done.status, "is the reference itself" in done.error) == (2, True)
    path = copy / "small/voc_cls/imagenet/seed0.json"
    content = json.loads(path.read_text())
    forge(path, status="failed", error="boom")
    done = check(against=copy)
    assert (done.status, "a reference has finished cells only" in done.error) == (2, True)
    content["suite_settings"]["backbone"]["color"] = "red"
    path.write_text(json.dumps(content))
    done = check(against=copy)
    assert (done.status, "key 'suite_settings.backbone.color'" in done.error) == (2, True)


def verdict(tmp_path, change, quality=0.8, runs=IMAGES_ONLY, **changes):
    """The verdict on a made-up record whose scores were changed."""
    old = save(tmp_path / "old", "rotation", quality)
    new = save(tmp_path / "new", "rotation", quality, **changes)
    paths = [
        storage.path_of(tmp_path / n, "made", "voc_cls", "rotation", 0) for n in ("old", "new")
    ]
    arrays = storage.read_predictions(paths[1], new)
    arrays |= change(arrays)
    value = registry.value(registry.get("mAP"), arrays)
    new = storage.save(new.model_copy(update={"value": value}), paths[1], arrays)
    return judge((paths[0], old), (paths[1], new), runs)


@pytest.mark.parametrize(("sds", "caught"), [(1.0, False), (2.0, False), (5.0, True), (-5.0, True)])
def test_a_score_may_differ_as_two_runs_do(tmp_path, sds, caught):
    """Where the spread of runs is known, by sds of the difference of two runs."""
    spread = Kind({f"row{i}": Seeds(1.0, 20) for i in range(6)}).spread("another")
    assert spread.variance == pytest.approx(1, rel=0.1)
    found = verdict(tmp_path, lambda arrays: {}, runs=Runs(spread))
    shifted = replace(found.difference, value=sds * (2 * spread.variance) ** 0.5)
    most = tolerance(shifted, Runs(spread), FALSE_ALARM)
    assert (abs(shifted.value) > most) == caught


def test_no_cell_of_many_is_beyond_by_chance():
    """A hundred cells, each another run of its reference: at most 1% of such checks alarm."""
    rng = np.random.default_rng(0)
    kind = Kind({f"row{i}": Seeds(1.0, 20) for i in range(6)})
    spread = kind.spread("another")
    alarms = []
    for cells in (2, 100):
        nothing = Estimate(0.0, ConfidenceInterval(-1.0, 1.0))
        most = tolerance(nothing, Runs(spread), FALSE_ALARM / cells)
        checks = rng.normal(0, np.sqrt(2), (20000, cells))
        alarms.append(np.mean(np.abs(checks).max(axis=1) > most))
    assert max(alarms) <= 0.013


def test_rounding_is_within_and_a_lasting_loss_is_not(tmp_path):
    noise = np.random.default_rng(0)

    def rounded(arrays):
        return {"scores": arrays["scores"] + noise.normal(0, 1e-4, arrays["scores"].shape)}

    def worse(arrays):
        return {"scores": arrays["scores"] + noise.normal(0, 1.5, arrays["scores"].shape)}

    found = verdict(tmp_path, rounded)
    assert not found.changes
    assert not found.same
    assert found.tolerance < 1, "what hardly changed may hardly move"
    assert any("beyond its tolerance" in c.text for c in verdict(tmp_path, worse).changes)


def test_a_class_whose_scores_are_constant_hides_no_other(tmp_path):
    old, new = ({"scores": np.random.default_rng(1).normal(size=(50, 3))} for _ in range(2))
    old["scores"][:, 0] = new["scores"][:, 0] = 0
    entry = save(tmp_path, "rotation", 0.8)
    assert likeness(entry, old, entry, new) == 1
    new["scores"][:, 1:] = np.random.default_rng(2).normal(size=(50, 2))
    assert likeness(entry, old, entry, new) < ALIKE


def test_other_test_images_are_no_reference(tmp_path):
    def others(arrays):
        return {"ids": np.arange(500, 620).astype(str)}

    (change,) = verdict(tmp_path, others).changes
    assert change.text == "other test images: make a new reference"
