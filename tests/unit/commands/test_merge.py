"""Records of several folders in one: all that a leaderboard checks, before anything is written."""

import shutil

import numpy as np
import pytest
from made_up import save
from support import forge

from bench.commands.merge import PNG, merge
from bench.errors import UserError
from bench.reporting import leaderboard
from bench.results import storage

METHODS = {"imagenet": 2.0, "rotation": 0.8, "random_init": 0.2}


@pytest.fixture
def sources(tmp_path):
    """Two folders with one row in common, which is the same."""
    both = tmp_path / "ann", tmp_path / "bob"
    for method in ("imagenet", "rotation"):
        save(both[0], method, METHODS[method])
    save(both[1], "random_init", METHODS["random_init"])
    shutil.copytree(place(both[0], "imagenet").parent, place(both[1], "imagenet").parent)
    return both


def place(out, method, seed=0):
    return out / "made/voc_cls" / method / f"seed{seed}.json"


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(sources, out, tmp_path):
    before = files(out) if out.exists() else {}
    with pytest.raises(UserError) as error:
        list(merge(sources, out, tmp_path / "cache"))
    assert (files(out) if out.exists() else {}) == before
    text = str(error.value)
    assert text.endswith("; nothing was merged")
    return text.removesuffix("; nothing was merged")


def test_records_of_two_people_are_in_one_folder(sources, tmp_path):
    out = tmp_path / "all"
    said = list(merge(sources, out, tmp_path / "cache"))
    assert said == [
        f"{out}/made: 3 records: 2 from {sources[0]}, 1 from {sources[1]}, 0 were there"
    ]
    assert files(out) == files(sources[0]) | files(sources[1])
    rows = leaderboard.load(out / "made").tables[0].rows
    assert {row.method for row in rows} == {*METHODS}


def test_a_dry_run_makes_the_checks_alone(sources, tmp_path):
    out = tmp_path / "all"
    said = list(merge(sources, out, tmp_path / "cache", dry_run=True))
    assert not out.exists()
    assert said == list(merge(sources, out, tmp_path / "cache"))
    forge(place(sources[1], "random_init"), task_version=2)
    with pytest.raises(UserError, match="differ in the task version"):
        list(merge(sources, tmp_path / "other", tmp_path / "cache", dry_run=True))


def test_a_folder_keeps_what_it_has(sources, tmp_path):
    list(merge(sources[:1], sources[1], tmp_path / "cache"))
    again = list(merge(sources, sources[1], tmp_path / "cache"))
    assert again[0].endswith(f"3 records: 0 from {sources[0]}, 0 from {sources[1]}, 3 were there")
    assert len(list(sources[1].rglob("seed0.json"))) == 3


def test_images_are_copied_those_that_are_there(sources, tmp_path):
    record = place(sources[0], "rotation")
    forge(record, samples="samples.png", predictions_image="predictions.png")
    record.with_name("samples.png").write_bytes(PNG + b"image")
    list(merge(sources, tmp_path / "all", tmp_path / "cache"))
    copied = place(tmp_path / "all", "rotation")
    assert copied.with_name("samples.png").read_bytes() == PNG + b"image"
    assert not copied.with_name("predictions.png").exists()


@pytest.mark.parametrize("kind", ["folder", "text", "link"])
def test_what_is_no_image_is_refused_before_anything_is_written(sources, tmp_path, kind):
    record = place(sources[0], "rotation")
    forge(record, samples="samples.png")
    image = record.with_name("samples.png")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    if kind == "folder":
        image.mkdir()
    elif kind == "link":
        image.symlink_to(secret)
    else:
        image.write_text("<script>")
    with pytest.raises(UserError, match=r"samples\.png: is n.*; nothing was merged$"):
        list(merge(sources, tmp_path / "all", tmp_path / "cache"))
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize("name", ["seed1.npz", "seed1.json", "samples.html"])
def test_a_record_names_no_file_of_another_one(sources, tmp_path, name):
    """`rotation` seed 1 of the target would be overwritten."""
    forge(place(sources[0], "rotation"), samples=name)
    with pytest.raises(UserError, match=r"key 'samples'"):
        list(merge(sources, tmp_path / "all", tmp_path / "cache"))


def test_only_records_and_what_they_name_are_copied(sources, tmp_path):
    for name in ("LEADERBOARD.md", "claims/rotation-seed0.0", "voc_cls/rotation/note.txt"):
        path = sources[0] / "made" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("a")
    list(merge(sources, tmp_path / "all", tmp_path / "cache"))
    assert {path.suffix for path in files(tmp_path / "all")} == {".json", ".npz"}


def test_two_records_of_one_cell_that_differ_are_refused_by_name(sources, tmp_path):
    forge(place(sources[1], "imagenet"), created="another day")
    text = refused(sources, tmp_path / "all", tmp_path)
    first, second = (place(source, "imagenet") for source in sources)
    assert text == f"{first} and {second} are different records of one cell; move one away"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"suite_sha256": "0" * 64}, "differ in the settings of the suite"),
        ({"task_version": 2}, "differ in the task version"),
        (
            {"task_settings": {"dataset": "voc", "costs": [1.0]}},
            "differ in the settings of voc_cls",
        ),
        ({"task_digest": "other"}, "differ in the code of voc_cls"),
        ({"data": {"voc_test": "other"}}, "differ in the images (voc_test)"),
        ({"suite": "other"}, "is of suite other; rename its folder to that"),
        ({"method": "jigsaw"}, "is a copy of the record that belongs at"),
        ({"value": 1.0}, "value 1.0, but its predictions give"),
    ],
)
def test_what_cannot_share_a_leaderboard_is_refused_by_name(sources, tmp_path, changes, words):
    path = place(sources[1], "random_init")
    forge(path, **changes)
    text = refused(sources, tmp_path / "all", tmp_path)
    assert words in text and str(path) in text


def test_seeds_of_another_version_of_a_row_are_refused(sources, tmp_path):
    save(sources[1], "rotation", 0.8, seed=1)
    forge(place(sources[1], "rotation", 1), method_version=2)
    assert "differ in the version of rotation" in refused(sources, tmp_path / "all", tmp_path)


def test_seeds_of_another_number_of_stages_are_refused(sources, tmp_path):
    path = place(sources[1], "rotation", 1)
    save(sources[1], "rotation", 0.8, seed=1)
    forge(path, per_stage=[1.0], selected_stage=0)
    text = refused(sources, tmp_path / "all", tmp_path)
    assert text.startswith(f"{path}: has 1 stages, but other seeds of its row have")


@pytest.mark.parametrize("what", ["truth", "ids"])
def test_another_ground_truth_is_refused_by_name(sources, tmp_path, what):
    """Scores that are right for it, and a checksum: the other rows say what it was."""
    path = place(sources[1], "random_init")
    arrays = storage.load_arrays(path.with_suffix(".npz"))
    swapped = {name: arrays[name][::-1] for name in ("scores", "truth")}
    arrays |= swapped if what == "truth" else {"ids": arrays["ids"][::-1]}
    storage.save(storage.read(path), path, arrays)
    first = place(sources[0], "imagenet")
    assert refused(sources, tmp_path / "all", tmp_path) == (
        f"{path} has other images or another ground truth than {first}: they cannot share a "
        "table; move one away"
    )


def test_ground_truth_may_be_kept_in_other_types(sources, tmp_path):
    path = place(sources[1], "random_init")
    arrays = storage.load_arrays(path.with_suffix(".npz"))
    wider = {"truth": arrays["truth"].astype(np.int64), "ids": arrays["ids"].astype("U40")}
    storage.save(storage.read(path), path, arrays | wider)
    assert list(merge(sources, tmp_path / "all", tmp_path / "cache"))


@pytest.mark.parametrize("what", ["record", "predictions", "missing"])
def test_changed_and_missing_files_are_refused_by_name(sources, tmp_path, what):
    path = place(sources[1], "random_init")
    if what == "record":
        path.write_text(path.read_text().replace("random_init", "random_init "))
    elif what == "predictions":
        np.savez(path.with_suffix(".npz"), ids=np.zeros(3))
    else:
        path.with_suffix(".npz").unlink()
    assert str(path.with_suffix("")) in refused(sources, tmp_path / "all", tmp_path)


def test_a_folder_without_records_is_refused(sources, tmp_path):
    (tmp_path / "none").mkdir()
    text = refused([sources[0], tmp_path / "none"], tmp_path / "all", tmp_path)
    assert text.startswith(f"{tmp_path / 'none'}: has no records of suites; make some")
    text = refused([sources[0] / "made"], tmp_path / "all", tmp_path)
    assert text.endswith(f"has no records of suites; name the folder above, {sources[0]}")


def test_the_command_says_what_it_merged(bench, sources, tmp_path):
    done = bench("merge", *sources, "--out", tmp_path / "all")
    assert (done.status, done.err) == (0, "")
    assert done.out.split("made: ")[1].startswith("3 records")
    forge(place(sources[1], "imagenet"), created="another day")
    refusal = bench("merge", *sources, "--out", tmp_path / "other")
    assert refusal.status == 2
    assert refusal.error.endswith("nothing was merged")
