import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from bench.config import schema
from bench.data.image_files import read
from bench.data.image_folder import open_image_folder
from bench.data.stream import Stream
from bench.errors import UserError
from bench.runtime.progress import Reporter


@pytest.fixture
def root(devkit, tmp_path):
    """A data root with a copy of the rendered pretraining images."""
    shutil.copytree(devkit / "pretraining", tmp_path / "images")
    return tmp_path


def opened(root, split="train", folder="images", **keys):
    section = schema.ImageFolder(kind="image_folder", **{"train": folder, "test": folder} | keys)
    return open_image_folder(root, "pretraining", section, split, Reporter())


def test_classes_are_folders_at_any_depth(root):
    images = opened(root)
    assert len(images.labels) == 40
    folders = sorted(p.name for p in (root / "images").iterdir())
    assert images.classes == tuple(folders)
    for file, label in zip(images.ids, images.labels, strict=True):
        assert file.split("/")[0] == images.classes[label]
    nested = root / "images" / images.classes[0] / "images"  # Tiny-ImageNet's own layout
    nested.mkdir()
    for path in list(nested.parent.glob("*.jpg")):
        path.rename(nested / path.name)
    again = opened(root)
    assert sorted(again.labels) == sorted(images.labels)
    assert again.classes == images.classes


def test_the_first_images_of_each_class_can_be_all(root):
    every = opened(root)
    some = opened(root, images_per_class=2)
    assert some.classes == every.classes
    assert np.bincount(some.labels).tolist() == [2] * len(every.classes)
    first = [[f for f in every.ids if f.startswith(f"{name}/")][:2] for name in every.classes]
    assert list(some.ids) == [file for own in first for file in own]
    assert some.fingerprint != every.fingerprint
    assert opened(root, images_per_class=10**6).fingerprint == every.fingerprint


def test_a_flat_folder_has_no_first_images_of_a_class(root):
    (root / "flat").mkdir()
    shutil.copy(next((root / "images").glob("*/*.jpg")), root / "flat")
    message = r"datasets\.pretraining\.images_per_class: .*flat has no folder for each class"
    with pytest.raises(UserError, match=message):
        opened(root, folder="flat", images_per_class=2)


def test_keys_that_older_records_lack_are_absent_where_they_have_their_defaults():
    section = {"kind": "image_folder", "train": "a"}
    plain = schema.ImageFolder(**section).model_dump(mode="json")
    assert not plain.keys() & {"decoder", "images_per_class"}
    changed = schema.ImageFolder(**section, decoder="torchcodec", images_per_class=3)
    assert changed.model_dump(mode="json").items() >= {"images_per_class": 3}.items()
    assert schema.ImageFolder(**changed.model_dump()) == changed


def test_a_flat_folder_has_no_classes(root):
    (root / "flat").mkdir()
    for path in (root / "images").glob("*/*.jpg"):
        shutil.copy(path, root / "flat" / f"{path.parent.name}-{path.name}")
    images = opened(root, folder="flat")
    assert images.classes == ()
    assert images.labels.tolist() == [0] * 40
    assert images.labels.dtype == np.int64
    assert len(images.images.files) == 40
    assert images.fingerprint != opened(root).fingerprint


def test_images_beside_class_folders_are_refused(root):
    path = next((root / "images").glob("*/*.jpg"))
    shutil.copy(path, root / "images" / "stray.jpg")
    with pytest.raises(UserError, match=r"images: has 1 images beside the class folders; move"):
        opened(root)


def test_a_truncated_image_stops_the_run_or_is_skipped_and_named(root):
    damaged = next((root / "images").glob("*/*.jpg"))
    damaged.write_bytes(damaged.read_bytes()[:-40])
    with pytest.raises(UserError, match=rf"{damaged.name}: is truncated"):
        opened(root)
    images = opened(root, damaged="skip")
    assert images.images.skipped == (damaged.relative_to(root / "images").as_posix(),)
    assert len(images.labels) == len(images.images.files) == 39


def test_an_image_damaged_inside_is_named_when_it_is_decoded(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(b"\xff\xd8\xff" + b"\x00" * 200 + b"\xff\xd9")
    with pytest.raises(UserError, match=r"x\.jpg: cannot be decoded"):
        read(path)


@pytest.mark.parametrize("split", ["train", "test"])
def test_an_empty_or_missing_folder_is_refused(tmp_path, split):
    message = rf"absent: no such folder \(the suite's datasets\.pretraining\.{split}\); see --data-"
    with pytest.raises(UserError, match=message):
        opened(tmp_path, split, folder="absent")
    with pytest.raises(UserError, match=r"has no images \(CLASS/\*\.jpg or \*\.jpg\)"):
        opened(tmp_path, split, folder=".")


def test_a_changed_or_moved_image_changes_the_fingerprint(root):
    before = opened(root).fingerprint
    assert opened(root).fingerprint == before
    first, second = sorted((root / "images").glob("*/*.jpg"))[:2]
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    assert opened(root).fingerprint != before
    first.write_bytes(content)
    assert opened(root).fingerprint == before
    other = next(p for p in (root / "images").iterdir() if p != first.parent)
    first.rename(other / first.name.replace(".jpg", "-moved.jpg"))
    assert opened(root).fingerprint != before


def assert_same(images, expected):
    assert images.images == expected.images
    assert images.labels.tolist() == expected.labels.tolist()
    assert images.classes == expected.classes


def test_linked_class_folders_and_images_are_followed(root):
    expected = opened(root)
    folder = root / "images" / expected.classes[3]
    folder.rename(root / "elsewhere")
    folder.symlink_to("../elsewhere")
    image = next((root / "images" / expected.classes[0]).glob("*.jpg"))
    image.rename(root / "moved.jpg")
    image.symlink_to(root / "moved.jpg")
    assert_same(opened(root), expected)


def test_what_systems_leave_behind_is_left_out_and_counted(root, capfd):
    expected = opened(root)
    assert "left out" not in capfd.readouterr().err
    images = root / "images"
    image = next(images.glob("*/*.jpg"))
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
        (images / name).mkdir()
        shutil.copy(image, images / name / "copy.jpg")
    for name in (".DS_Store", "Thumbs.db", f"._{image.name}"):
        (image.parent / name).write_bytes(b"junk")
    (images / "labels.csv").write_text("a,b")
    (image.parent / "up").symlink_to("../..")
    os.mkfifo(images / "pipe.jpg")
    assert_same(opened(root), expected)
    text = (
        f"{images}: left out 1 files that are no images ('labels.csv'), "
        "6 hidden or system files ('.ipynb_checkpoints'), "
        f"1 links to a folder above ('{image.parent.name}/up'), "
        "1 pipes, sockets or devices ('pipe.jpg')"
    )
    assert text in capfd.readouterr().err


def test_a_class_under_two_names_is_refused(root):
    (root / "images/again").symlink_to("boat")
    message = r"images/boat: is the folder .*images/again under another name"
    with pytest.raises(UserError, match=message):
        opened(root)


def test_a_link_to_nothing_is_refused(root):
    (root / "images/ship").symlink_to("absent")
    with pytest.raises(UserError, match=r"images/ship: links to nothing"):
        opened(root)
    (root / "images/ship").rename(root / "images/boat/ship.jpg")
    with pytest.raises(UserError, match=r"ship\.jpg: cannot be read \(No such file"):
        opened(root)
    assert len(opened(root, damaged="skip").labels) == 40


def test_images_of_other_formats_are_not_passed_over(root):
    with Image.open(next((root / "images/boat").glob("*.jpg"))) as image:
        image.save(root / "images/boat/other.webp")
    with pytest.raises(UserError, match=r"other\.webp: is neither JPEG nor PNG"):
        opened(root)
    assert opened(root, damaged="skip").images.skipped == ("boat/other.webp",)


def test_folders_of_splits_are_no_classes(root):
    (root / "both").mkdir()
    for name in ("train", "val"):
        shutil.copytree(root / "images", root / "both" / name)
    message = r"both: its folders have names of splits, not of classes \(train, val\); name one of"
    with pytest.raises(UserError, match=message):
        opened(root, folder="both")


@pytest.mark.parametrize("kind", ["image", "folder"])
def test_a_name_that_is_not_utf_8_is_refused_in_one_line(root, kind):
    boat = root / "images/boat"
    path = next(boat.glob("*.jpg")) if kind == "image" else boat
    path.rename(path.with_name(os.fsdecode(b"caf\xe9") + path.suffix))
    with pytest.raises(UserError, match=r"caf\\udce9.*: has a name that is not UTF-8") as error:
        opened(root)
    assert "\n" not in str(error.value)
    str(error.value).encode()  # it can be printed


def test_a_gray_image_has_three_equal_channels(tmp_path):
    path = tmp_path / "gray.jpg"
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(path)
    image = read(path)
    assert image.shape == (3, 16, 16)
    assert torch.equal(image[0], image[2])


def test_the_stream_is_a_shuffled_pass_and_depends_on_the_position_alone(smoke_data):
    source = smoke_data["pretraining"].train
    count = len(source.labels)

    def stream(seed=0):
        transform = lambda image, label: (label, torch.rand(()).item())  # noqa: E731
        return Stream(source.images, source.labels, seed, transform, 3 * count)

    items = stream()
    first = [items[p] for p in range(count)]
    second = [items[p] for p in range(count, 2 * count)]
    assert sorted(label for label, _ in first) == sorted(source.labels)
    assert [label for label, _ in first] != [label for label, _ in second]
    assert stream()[count + 3] == second[3]
    assert stream(seed=1)[0] != first[0]
    assert len({noise for _, noise in first + second}) == 2 * count


def test_a_copied_class_under_another_name_is_refused(root):
    shutil.copytree(root / "images/boat", root / "images/ship")
    message = r"images/ship: has the images of .*images/boat: a class under two names"
    with pytest.raises(UserError, match=message):
        opened(root)


def test_a_split_inside_itself_is_refused(root):
    shutil.copytree(root / "images", root / "again")
    shutil.move(root / "again", root / "images/train")
    with pytest.raises(UserError, match=r"images/train: has the name of a split and folders"):
        opened(root)
