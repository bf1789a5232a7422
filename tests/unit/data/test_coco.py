"""COCO annotation files: what they say, and which are refused."""

import json
import re
import shutil

import numpy as np
import pytest
from support import mirror

from bench.config import schema
from bench.data.coco import open_coco
from bench.data.voc import open_voc
from bench.errors import UserError
from bench.runtime.fingerprint import digest, file_digest
from bench.runtime.progress import Reporter

IMAGES = "VOCdevkit/VOC2007/JPEGImages"
SECTION = schema.Coco(
    kind="coco", train="train.json", train_images=IMAGES, test="test.json", test_images=IMAGES
)


def as_coco(split, classes):
    """A split of a VOCdevkit in COCO's format; difficult objects are crowds."""
    annotations = []
    for image, objects in enumerate(split.objects):
        for entry in objects:
            xmin, ymin, xmax, ymax = entry.box
            annotations.append(
                {
                    "image_id": 100 + image,
                    "category_id": 7 + classes.index(entry.name),
                    "bbox": [xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1],
                    "iscrowd": int(entry.difficult),
                    "area": 1.0,
                }
            )
    return {
        "info": {},
        "images": [{"id": 100 + k, "file_name": f"{name}.jpg"} for k, name in enumerate(split.ids)],
        "annotations": annotations,
        "categories": [{"id": 7 + k, "name": name} for k, name in enumerate(classes)],
    }


@pytest.fixture(scope="module")
def splits(devkit, smoke):
    """The splits of the rendered devkit, as the VOC kind opens them."""
    return open_voc(devkit, "voc", smoke.datasets["voc"], Reporter())


@pytest.fixture
def root(devkit, splits, smoke, tmp_path):
    """A data root with the rendered images and annotation files made of their objects."""
    shutil.copytree(devkit / IMAGES, tmp_path / IMAGES)
    for name, split in zip(("train", "test"), splits, strict=True):
        content = as_coco(split, smoke.datasets["voc"].classes)
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def opened(root, **keys):
    return open_coco(root, "coco", SECTION.model_copy(update=keys), Reporter())


def edit(root, change, name="train.json"):
    """Rewrite an annotation file after a change of its content."""
    content = json.loads((root / name).read_text())
    change(content)
    (root / name).write_text(json.dumps(content))


def test_labels_and_boxes_are_those_of_the_same_images_in_vocs_format(root, splits, smoke):
    classes, *opened_splits = opened(root)
    assert classes == smoke.datasets["voc"].classes
    assert any(entry.difficult for objects in splits[0].objects for entry in objects)
    assert {*splits[0].labels.flat} == {-1, 0, 1}
    for split, expected in zip(opened_splits, splits, strict=True):
        assert split.ids == tuple(f"{name}.jpg" for name in expected.ids)
        assert split.labels.dtype == np.int8
        np.testing.assert_array_equal(split.labels, expected.labels)
        for objects, others in zip(split.objects, expected.objects, strict=True):
            boxes = [(entry.name, entry.box, entry.difficult) for entry in objects]
            assert boxes == [(entry.name, entry.box, entry.difficult) for entry in others]
        assert split.images.root == root / IMAGES
        assert (split.images.root / split.images.files[0]).is_file()


def test_a_crowd_is_a_difficult_object_too(root):
    content = {
        "images": [{"id": 1, "file_name": "000001.jpg"}, {"id": 2, "file_name": "000002.jpg"}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 5], "iscrowd": 1},
            {"image_id": 2, "category_id": 1, "bbox": [0, 0, 4, 5], "iscrowd": 1},
            {"image_id": 2, "category_id": 1, "bbox": [1.5, 2, 4.25, 0.5]},
        ],
    }
    (root / "train.json").write_text(json.dumps(content))
    shutil.copy(root / "train.json", root / "test.json")
    edit(root, lambda c: [i.update(file_name=f"00000{2 + i['id']}.jpg") for i in c["images"]])
    classes, train, _ = opened(root)
    assert classes == ("cat",)
    assert train.labels.tolist() == [[0], [1]]
    (crowd,), (other, single) = train.objects
    assert (crowd.box, crowd.difficult, crowd.crowd) == ((1, 1, 4, 5), True, True)
    assert other == crowd
    assert single.box == (2.5, 3, 5.75, 3)  # at least one pixel
    assert (single.difficult, single.crowd) == (False, False)


def test_images_and_classes_are_in_the_order_of_their_ids(root):
    expected = opened(root)

    def shuffle(content):
        for table in content.values():
            if isinstance(table, list):
                table.reverse()

    edit(root, shuffle)
    classes, train, _ = opened(root)
    assert classes == expected[0]
    assert train.ids == expected[1].ids
    np.testing.assert_array_equal(train.labels, expected[1].labels)


def test_a_suite_may_name_the_classes(root):
    names, train, _ = opened(root)
    kept = (names[4], names[1])
    classes, some, _ = opened(root, classes=kept)
    assert classes == kept
    np.testing.assert_array_equal(some.labels, train.labels[:, [4, 1]])
    for objects, every in zip(some.objects, train.objects, strict=True):
        assert objects == tuple(entry for entry in every if entry.name in kept)
    assert some.fingerprint != train.fingerprint
    with pytest.raises(UserError, match=r"train\.json: has no category 'yak'"):
        opened(root, classes=("yak",))


def test_a_changed_image_or_box_changes_the_fingerprint(root):
    before = opened(root)[1].fingerprint
    assert opened(root)[1].fingerprint == before
    edit(root, lambda content: content["annotations"][0].update(bbox=[0, 0, 3, 3]))
    changed = opened(root)[1].fingerprint
    assert changed != before
    mirror(sorted((root / IMAGES).iterdir())[0])
    assert opened(root)[1].fingerprint not in (before, changed)


def content_digest(root, split, classes):
    """The fingerprint of a training split whose objects are all single ones."""
    path = root / "train.json"
    return digest([split.ids, split.images.fingerprint, list(classes), file_digest(path)])


def test_a_split_with_a_crowd_is_not_what_it_was_when_crowds_were_only_difficult(root):
    classes, crowded, _ = opened(root)
    assert any(entry.crowd for objects in crowded.objects for entry in objects)
    edit(root, lambda content: [a.update(iscrowd=0) for a in content["annotations"]])
    _, alone, _ = opened(root)
    assert not any(entry.crowd for objects in alone.objects for entry in objects)
    assert alone.fingerprint == content_digest(root, alone, classes)
    edit(root, lambda content: content["annotations"][0].update(iscrowd=1))
    _, marked, _ = opened(root)
    assert marked.fingerprint not in (alone.fingerprint, content_digest(root, marked, classes))


def test_a_crowd_of_a_class_that_is_left_out_changes_no_fingerprint(root):
    edit(root, lambda c: [a.update(iscrowd=int(a["category_id"] == 7)) for a in c["annotations"]])
    names, train, _ = opened(root)
    classes, rest, _ = opened(root, classes=names[1:])
    assert train.fingerprint != content_digest(root, train, names)
    assert rest.fingerprint == content_digest(root, rest, classes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.pop("categories"),
            "train.json: not a COCO annotation file: key 'categories': Field required",
        ),
        (
            lambda c: c["images"][2].pop("file_name"),
            "train.json: not a COCO annotation file: key 'images.2.file_name': Field required",
        ),
        (
            lambda c: c["annotations"][1].update(bbox=[1, 2, 3]),
            "key 'annotations.1.bbox.3': Field required",
        ),
        (
            lambda c: c["annotations"][1].update(bbox=[1, 2, 3, float("nan")]),
            "key 'annotations.1.bbox.3' ('nan'): Input should be a finite number",
        ),
        (
            lambda c: c["annotations"][1].update(bbox=[1, 2, 3, float("inf")]),
            "key 'annotations.1.bbox.3' ('inf'): Input should be a finite number",
        ),
        (lambda c: c["annotations"][1].update(bbox=[1, 2, 3, -4]), "has a box of 3 x -4 pixels"),
        (
            lambda c: c["annotations"][1].update(bbox=[1, 2, 58, 4]),
            "train.json: box (2, 3, 59, 6)",
        ),
        (
            lambda c: c["annotations"][1].update(bbox=[-2, 2, 9, 4]),
            "train.json: box (-1, 3, 7, 6)",
        ),
        (lambda c: c["annotations"][1].update(iscrowd=2), "less than or equal to 1"),
        (
            lambda c: c["images"][1].update(width=96, height=96),
            "train.json: is of an image of 96 x 96 pixels, but ",
        ),
        (
            lambda c: c["images"][1].update(file_name="caf\udce9.jpg"),
            "caf\\udce9.jpg: has a name that is not UTF-8",
        ),
        (lambda c: c["annotations"][1].update(image_id=5), "names an image or a category that"),
        (lambda c: c["annotations"][1].update(category_id=5), "names an image or a category that"),
        (lambda c: c["images"].clear(), "train.json: lists no image"),
        (lambda c: c["images"][1].update(id=100), "train.json: lists an image id twice: 100"),
        (
            lambda c: c["images"][1].update(file_name=c["images"][0]["file_name"]),
            "train.json: lists an image twice",
        ),
        (lambda c: c["categories"][1].update(id=7), "train.json: lists a category id twice: 7"),
        (
            lambda c: [a.update(id=6) for a in c["annotations"][1:3]],
            "train.json: lists an annotation id twice: 6",
        ),
        (
            lambda c: c["categories"][1].update(name=c["categories"][0]["name"]),
            "train.json: lists a category twice",
        ),
        (lambda c: c["images"][1].update(file_name="absent.jpg"), "absent.jpg: cannot be read"),
        (lambda c: c["images"][1].update(file_name="000090.jpg"), "000090.jpg is in both splits"),
    ],
)
def test_a_malformed_file_is_refused_in_one_line(root, change, message):
    edit(root, change)
    with pytest.raises(UserError, match=re.escape(message)) as error:
        opened(root)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", r"train\.json: not a COCO annotation file: Input should be"),
        (b'{"images": 3', r"train\.json: not JSON"),
        (b'{"images": "\xff"}', r"train\.json: not JSON"),
        (b"[" * 100_000, r"train\.json: not JSON"),
        (b"", r"train\.json: not JSON"),
    ],
)
def test_a_file_that_is_no_annotation_file_is_refused_in_one_line(root, content, message):
    (root / "train.json").write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        opened(root)
    assert "\n" not in str(error.value)


def test_a_missing_file_or_folder_is_named(root):
    with pytest.raises(UserError, match=r"other\.json: cannot be read .*; see --data-root"):
        opened(root, test="other.json")
    with pytest.raises(UserError, match=r"elsewhere/000001\.jpg: cannot be read"):
        opened(root, train_images="elsewhere")


def as_shares(content):
    for annotation in content["annotations"]:
        annotation["bbox"] = [value / 100 for value in annotation["bbox"]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (as_shares, "train.json: its boxes are shares of the image, 0..1; expected pixels"),
        (lambda c: c["annotations"][1].update(iscrowd="0"), "expected 0 or 1, not text"),
        (
            lambda c: c["categories"].__setitem__(0, {"id": 7, "name": "yak"}),
            "test.json: category 7 is '",
        ),
    ],
)
def test_statements_of_another_meaning_are_refused(root, change, message):
    edit(root, change)
    with pytest.raises(UserError, match=re.escape(message)) as error:
        opened(root)
    assert "\n" not in str(error.value)


BOX = {"id": 6, "bbox": [2, 3, 8, 10]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"area": 121}, "train.json: annotation 6 has an area of 121, too much for its box of 8 x"),
        (
            {"segmentation": [[2, 3, 10, 3, 10, 13], [2, 3, 10, 3, 10, 14.5]]},
            "train.json: annotation 6 has a polygon that reaches 1.5 pixels beyond its box of 8 x",
        ),
        ({"segmentation": [[0.5, 3, 10, 13, 2, 13]]}, "reaches 1.5 pixels beyond its box"),
        ({"segmentation": [["a", "b"]]}, "annotation 6 has a segmentation that is no list of"),
        ({"segmentation": [2, 3, 10, 13]}, "annotation 6 has a segmentation that is no list of"),
        ({"area": -1}, "key 'annotations.1.area' ('-1'): Input should be greater than"),
    ],
)
def test_areas_and_polygons_that_a_box_cannot_hold_are_refused(root, values, message):
    edit(root, lambda content: content["annotations"][1].update(BOX | values))
    with pytest.raises(UserError, match=re.escape(message)) as error:
        opened(root)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "values",
    [
        {"area": 120, "segmentation": [[1, 3, 11, 3, 10, 14, 2, 2]]},
        {"segmentation": [[]]},
        {"segmentation": {"size": [48, 48], "counts": [0, 2304]}, "iscrowd": 1},
    ],
)
def test_areas_and_polygons_may_be_rounded(root, values):
    edit(root, lambda content: content["annotations"][1].update(BOX))
    expected = opened(root)[1].images
    edit(root, lambda content: content["annotations"][1].update(BOX | values))
    assert opened(root)[1].images == expected


def test_annotations_that_are_there_twice_are_counted(root, capfd):
    edit(root, lambda content: content["annotations"].append(content["annotations"][3] | {"id": 5}))
    opened(root)
    count = len(json.loads((root / "train.json").read_text())["annotations"])
    text = (
        f"train.json: 1 of {count} annotations with the image, category and box of another one "
        "(annotation 5)"
    )
    assert text in capfd.readouterr().err


def test_test_objects_of_a_category_that_training_lacks_are_refused(root):
    def add(content):
        content["categories"].append({"id": 99, "name": "yak"})

    expected = opened(root)[1].ids
    edit(root, add, "test.json")
    classes, train, _ = opened(root)
    assert (train.ids, "yak" in classes) == (expected, False)
    image = json.loads((root / "test.json").read_text())["images"][0]["id"]
    yak = {"image_id": image, "category_id": 99, "bbox": [1, 2, 3, 4]}
    edit(root, lambda content: content["annotations"].append(yak), "test.json")
    with pytest.raises(UserError, match=r"test\.json: has 1 objects of 'yak', a category that .*"):
        opened(root)
    assert opened(root, classes=classes)[0] == classes


def test_a_key_given_twice_is_refused(root):
    path = root / "train.json"
    path.write_text(path.read_text().replace('"bbox":', '"bbox": [1, 1, 2, 2], "bbox":', 1))
    with pytest.raises(UserError, match=r"train\.json: not JSON \(the key 'bbox' is given twice"):
        opened(root)


@pytest.mark.parametrize("bbox", [[1, 2, 0, 4], [1, 2, 3, 0.0]])
def test_a_box_without_width_or_height_is_left_out_and_counted(root, bbox, capsys):
    """COCO's own training split has such (cocoapi, issue 355)."""
    before = opened(root)[1]
    edit(root, lambda c: c["annotations"].append({**c["annotations"][0], "id": 990, "bbox": bbox}))
    after = opened(root)[1]
    assert after.objects == before.objects
    assert "train.json: left out 1 of " in (said := capsys.readouterr().err)
    assert "whose box has no width or no height (annotation 990)" in said


@pytest.mark.parametrize(("mark", "value"), [("ignore", 1), ("difficult", True), ("ignore", "1")])
def test_a_mark_that_the_format_lacks_is_refused_unless_it_says_nothing(root, mark, value):
    edit(root, lambda c: c["annotations"][1].update({mark: 0}))
    opened(root)
    edit(root, lambda c: c["annotations"][1].update({mark: value}))
    with pytest.raises(UserError, match=f"train.json: an annotation of .* has {mark} "):
        opened(root)
    edit(root, lambda c: c["annotations"][1].update(iscrowd=1))
    opened(root)
