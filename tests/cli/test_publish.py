"""Somebody else's records on their way into the reference and onto its pages, and what is not."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_up import FAILED, OTHER_RECIPE, SUITE, arrays_of, encoder, save
from support import forge

from bench.config.schema import Backbone, Suite
from bench.metrics import registry
from bench.results import storage
from bench.results.record import Provenance

ROOT = Path(__file__).parents[2]
THERE = {"imagenet": 2.0, "rotation": 0.8, "random_init": 0.2}
SOURCE = "https://example.org/mine"
OWN = {"method_digest": "d" * 64}  # code that does not ship
NOTHING = "; nothing was published"
OTHER_BACKBONE = SUITE.model_copy(update={"backbone": Backbone(name="other", imagenet="timm")})


@pytest.fixture
def reference(tmp_path):
    """The records that everybody sees."""
    out = tmp_path / "reference"
    for method, quality in THERE.items():
        save(out, method, quality)
    return out


@pytest.fixture
def local(tmp_path, reference):
    """Somebody's results: a method of their own, and a row of the reference, run again."""
    out = tmp_path / "local"
    save(out, "mine", 1.0, **OWN)
    save(out, "imagenet", 2.1)
    return out


def place(out, method="mine", task="voc_cls", seed=0):
    return out / "made" / task / method / f"seed{seed}.json"


@pytest.fixture
def publish(bench, reference, local, tmp_path):
    def call(*arguments, source=SOURCE):
        out = tmp_path / "submission"
        shown = bench(
            *("publish", local, "--out", out, "--into", reference),
            *(["--source", source] if source else []),
            *arguments,
        )
        if shown.status:
            assert not out.exists()
            assert shown.err.count("\n") == 1, "one line"
        return shown

    return call


def refused(publish, *arguments, **options):
    shown = publish(*arguments, **options)
    assert (shown.status, shown.out) == (2, "")
    assert shown.error.endswith(NOTHING)
    return shown.error.removeprefix("bench: ").removesuffix(NOTHING)


def test_a_record_of_somebody_else_goes_onto_the_pages(bench, publish, local, reference, tmp_path):
    submission = tmp_path / "submission"
    said = publish().out.splitlines()
    assert said[0] == (f"{submission}/made: 1 record of mine; 1 left out, which {reference} has")
    assert [line.split()[:2] for line in said[2:]] == [
        ["git", "switch"],
        ["bench", "merge"],
        ["git", "add"],
    ]
    files = {path for path in submission.rglob("*") if path.is_file()}
    assert files == {place(submission).with_suffix(suffix) for suffix in (".json", ".npz")}
    before, after = storage.read(place(local)), storage.read(place(submission))
    changes = {"provenance": Provenance(source=SOURCE), "checksum": after.checksum}
    assert after == before.model_copy(update=changes)
    *first, _, out = said[3].partition(" && ")[0].split()
    assert bench(*first[1:], "--out", out, "--dry-run").status == 0
    assert not place(reference).exists()
    assert bench(*first[1:], "--out", out).status == 0
    assert bench("leaderboard", "--out", reference).status == 0
    for name in ("made/LEADERBOARD.md", "made/leaderboard.html", "index.html"):
        assert "mine" in (reference / name).read_text(), name
    assert SOURCE in (reference / "made/LEADERBOARD.md").read_text()
    assert bench("leaderboard", "--out", reference, "--check").status == 0


def test_what_was_published_is_published_again_without_its_address(publish, local, tmp_path):
    publish()
    shutil.rmtree(local)
    shutil.move(tmp_path / "submission", local)
    assert publish(source="").status == 0


def script(name, *arguments, cwd=ROOT):
    """A script of .ci/, as the workflows call it."""
    return subprocess.run(
        ["bash", ROOT / ".ci" / name, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


@pytest.fixture
def fork(reference, tmp_path):
    """The reference with one record more, as in a pull request."""
    out = shutil.copytree(reference, tmp_path / "fork")
    save(out, "mine", 1.0, **OWN, provenance=Provenance(source=SOURCE))
    return out


def test_the_workflow_of_pull_requests_takes_new_records(fork, reference):
    done = script("submitted", fork, reference)
    assert (done.returncode, done.stderr) == (0, "")
    assert "made: 1 record of mine; 3 left out" in done.stdout


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("rotation", {"created": "later"}, "are different records of one cell"),
        ("mine", {"value": 1.0}, "value 1.0, but its predictions give"),
        ("mine", {"task_version": 2}, "differ in the task version"),
        ("mine", {"provenance": Provenance()}, "do not ship; say where they are"),
    ],
)
def test_the_workflow_refuses_in_a_line(fork, reference, method, changes, words):
    forge(place(fork, method), **changes)
    done = script("submitted", fork, reference)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and words in done.stderr


def test_the_workflow_misses_what_was_removed(fork, reference):
    place(fork, "rotation").unlink()
    done = script("submitted", fork, reference)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{place(fork, 'rotation')}: is missing; restore it")


def test_the_workflow_misses_predictions_that_were_changed(fork, reference):
    place(fork, "rotation").with_suffix(".npz").write_bytes(b"other")
    done = script("submitted", fork, reference)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{place(fork, 'rotation').with_suffix('.npz')}: was changed")


def test_what_is_published_has_an_index_and_all_records(bench, reference, tmp_path):
    results, site = tmp_path / "results/reference", tmp_path / "site"
    shutil.move(reference, results)
    assert "stale" in script("pages", site, cwd=tmp_path).stderr
    assert not site.exists()
    assert bench("leaderboard", "--out", results).status == 0
    assert script("pages", site, cwd=tmp_path).returncode == 0
    links = re.findall(r'href="([^"#]+)"', (site / "index.html").read_text())
    assert links and all((site / link).exists() for link in links)
    assert place(site, "rotation").exists() and place(site, "rotation").with_suffix(".npz").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"value": 1.0}, "value 1.0, but its predictions give"),
        ({"per_class": {"ape": 1.0, "bee": 2.0, "cat": 3.0}}, "1.0000 of the class 'ape', but"),
        ({"method_version": 2, "method": "jigsaw", "method_digest": ""}, "belongs at"),
        ({"task_version": 2}, "is of version 2 of voc_cls, which is now 1; run it again"),
        ({"suite_sha256": "0" * 64}, "differ in the settings of the suite"),
        ({"data": {"voc_test": "other"}}, "differ in the images (voc_test)"),
        ({"task_settings": {"dataset": "voc"}}, "differ in the settings of voc_cls"),
        ({"environment": {"dirty": True}}, "ran with changes that were not committed"),
        ({"task_digest": "d" * 64}, "the name voc_cls is taken by a task of this project"),
        ({"per_stage": [1.0, 2.0]}, "but 2.0 of the stage that it selected"),
        ({"selected_stage": 0}, "of the stage that it selected"),
        ({"num_images": {"voc_test": 99}}, "99 test images, but its predictions are of 120"),
        ({"suite_settings": OTHER_BACKBONE}, "differ in the settings of the suite"),
        ({"metric": "other"}, "its score cannot be computed again, metric 'other' is not"),
        ({"provenance": Provenance(), "method_digest": ""}, "unknown method 'mine'"),
    ],
)
def test_what_cannot_join_the_reference_is_refused_in_a_line(publish, local, changes, words):
    forge(place(local), **changes)
    text = refused(publish)
    assert words in text and str(place(local)) in text


def test_a_changed_byte_is_refused(publish, local):
    path = place(local)
    path.write_text(path.read_text().replace('"seed": 0', '"seed":  0').replace("100", "101", 1))
    assert "was changed since it was written" in refused(publish)


def test_another_ground_truth_is_refused(publish, local, reference):
    arrays = arrays_of("mine", 1.0)
    arrays["truth"] = arrays["truth"][::-1]
    record = storage.read(place(local))
    metric = registry.get("mAP")
    value = registry.value(metric, arrays)
    changes = {"value": value, "per_class": registry.per_class(metric, arrays)}
    storage.save(
        record.model_copy(update={**changes, "per_stage": [value, value]}), place(local), arrays
    )
    text = refused(publish)
    assert text.startswith(
        f"{place(local)} has other images or another ground truth than {reference}"
    )


def test_other_names_of_the_classes_are_refused(publish, local):
    record = storage.read(place(local))
    arrays = storage.read_predictions(place(local), record)
    arrays["classes"] = arrays["classes"][::-1]
    per_class = registry.per_class(registry.get("mAP"), arrays)
    storage.save(record.model_copy(update={"per_class": per_class}), place(local), arrays)
    assert "has other images or another ground truth than" in refused(publish)


def test_one_run_is_no_two_seeds_and_no_two_methods(publish, local, reference):
    record = storage.read(place(local))
    arrays = storage.read_predictions(place(local), record)
    storage.save(record.model_copy(update={"seed": 1}), place(local, seed=1), arrays)
    text = refused(publish)
    assert text == (
        f"{place(local, seed=1)}: has the predictions of {place(local)}; leave one out, or run it "
        "again"
    )
    place(local, seed=1).unlink()
    theirs = save(reference, "theirs", 1.0, **OWN)
    shutil.copy(place(reference, "theirs").with_suffix(".npz"), place(local).with_suffix(".npz"))
    changes = {"method": "mine", "provenance": record.provenance}
    storage.save(theirs.model_copy(update=changes), place(local))
    assert f"has the predictions of {place(reference, 'theirs')}" in refused(publish)


def test_a_failed_cell_is_refused_and_may_be_left_out(publish, local):
    save(local, "broken", 0, error="no luck", **OWN, **FAILED)
    assert "failed; run it again, or leave it out with --methods" in refused(publish)
    assert publish("--methods", "mine").status == 0


def test_only_known_names_can_be_selected(publish):
    assert "unknown method 'mime'" in refused(publish, "--methods", "mime")


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("rotation", OWN, "is taken by a method of this project"),
        ("rotation", {"recipe": OTHER_RECIPE}, "of another recipe; give yours another one"),
        ("theirs", {"method_digest": "e" * 64}, "of another code; give yours another one"),
    ],
)
@pytest.mark.parametrize("task", ["voc_cls", "voc_seg"])
def test_a_name_that_is_taken_is_refused(publish, local, reference, method, changes, words, task):
    save(reference, "theirs", 0.9, **OWN)
    save(local, method, 1.0, task=task, **changes)
    text = refused(publish)
    assert text.startswith(f"{place(local, method, task)}: the name {method} is taken by")
    assert words in text


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("a_better_imagenet", {"role": "reference", **OWN}),
        ("a_random_init", {"role": "untrained", **OWN}),
        ("jigsaw", {"role": "reference"}),
        ("imagenet@net", {"role": "reference", **OWN}),
    ],
)
def test_no_row_of_others_becomes_what_gaps_are_measured_from(publish, local, method, changes):
    save(local, method, 1.0, task="voc_seg", **changes)
    assert f"has role {changes['role']}, but {method} is pretrained" in refused(publish)


def test_weights_of_another_backbone_may_be_its_reference(publish, local):
    save(
        local,
        "imagenet@other",
        1.0,
        role="reference",
        encoder=encoder("rgb", backbone="other"),
        **OWN,
    )
    assert publish("--methods", "imagenet@other").status == 0


def test_an_older_version_of_what_ships_is_refused(publish, local):
    save(local, "jigsaw", 1.0, method_version=7)
    assert "is of version 7 of jigsaw, which is now 1; run it again" in refused(publish)


def test_a_new_seed_of_a_row_is_welcome(publish, local, tmp_path):
    save(local, "rotation", 0.8, seed=1)
    said = publish("--methods", "rotation", source="").out
    assert "1 record of rotation; 0 left out" in said
    assert place(tmp_path / "submission", "rotation", seed=1).exists()


def test_no_folder_of_somebody_is_published(publish, local, tmp_path):
    forge(place(local), files={"/home/ann/my.pth": "a" * 64, "package:weights/net.pth": "b" * 64})
    publish()
    files = storage.read(place(tmp_path / "submission")).files
    assert files == {"my.pth": "a" * 64, "package:weights/net.pth": "b" * 64}


@pytest.mark.parametrize("source", ["", "./mine.py", "http://example.org", "https://a b"])
def test_what_does_not_ship_needs_an_address(publish, source):
    words = "must be an address" if source else "do not ship; say where they are, --source"
    assert words in refused(publish, source=source)


def test_weights_of_timm_need_no_address(publish, local):
    forge(place(local), weights={"weights": "timm:resnet18.a1_in1k"})
    assert publish(source="").status == 0


@pytest.fixture
def refused_by_an_empty_reference(bench, local, tmp_path):
    """The line that refuses the records, as a function."""

    def call():
        (tmp_path / "empty").mkdir()
        folders = ("--out", tmp_path / "new", "--into", tmp_path / "empty")
        shown = bench("publish", local, *folders, "--source", SOURCE)
        assert shown.status == 2
        return shown.error

    return call


def test_a_suite_that_nobody_knows_is_refused(refused_by_an_empty_reference):
    assert "unknown suite 'made'" in refused_by_an_empty_reference()


@pytest.mark.parametrize(
    ("suite", "line"),
    [
        ("mini", "has other settings of suite mini"),
        ("smoke", "smoke tests the code and measures nothing; run another suite"),
    ],
)
def test_a_suite_that_ships_must_be_as_it_is_and_measure(
    refused_by_an_empty_reference, local, suite, line
):
    settings = Suite(**{**SUITE.model_dump(), "name": suite})
    forge(place(local), suite=suite, suite_settings=settings)
    shutil.move(local / "made", local / suite)
    shutil.rmtree(local / suite / "voc_cls/imagenet")
    assert line in refused_by_an_empty_reference()


def test_nothing_new_and_no_folder_are_said(publish, local, reference, bench, tmp_path):
    shutil.rmtree(place(local).parent)
    assert f"{reference} has every cell of {local}" in refused(publish)
    save(local, "mine", 1.0, **OWN)
    shown = bench("publish", local, "--out", reference, "--into", reference)
    assert "has records; give a new folder" in shown.error
    shown = bench("publish", local, "--out", tmp_path / "a", "--into", tmp_path / "none")
    assert "no such folder; name results/reference of a clone" in shown.error


def test_a_name_is_quoted_in_what_to_type(publish, local):
    save(local, "it's; rm", 1.0, **OWN)
    said = publish("--methods", "it's; rm").out.splitlines()
    assert said[2] == "git switch -c results-it-s-rm"
    assert """'Results: 1 record of it'"'"'s; rm'""" in said[4]
