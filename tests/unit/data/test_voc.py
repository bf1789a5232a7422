"""The VOCdevkit reader, and what it refuses."""

import shutil

import pytest

from bench.config import schema
from bench.data.voc import open_voc
from bench.errors import UserError
from bench.runtime.progress import Reporter

VOC07 = schema.Voc(
    folder="VOCdevkit/VOC2007",
    train="trainval",
    test="test",
    classes=("cat", "dog"),
    size=32,
    min_positives=1,
)


@pytest.fixture
def tree(devkit, smoke, tmp_path):
    """A copy of the rendered devkit that a test may spoil, and its suite section."""
    shutil.copytree(devkit / "VOCdevkit", tmp_path / "VOCdevkit")
    return tmp_path, smoke.voc


def opened(tree):
    root, source = tree
    return open_voc(root, source, Reporter())


def test_a_good_tree_opens(tree):
    voc = opened(tree)
    assert voc.train.truth.shape == (80, len(tree[1].classes))
    assert len(voc.train.objects) == len(voc.train.images.files) == 80
    assert {*voc.train.truth.flat} <= {-1, 0, 1}
    names = tree[1].classes
    for row, things in zip(voc.train.truth, voc.train.objects, strict=True):
        for c, name in enumerate(names):
            mine = [thing for thing in things if thing.name == name]
            expected = 1 if any(not t.difficult for t in mine) else 0 if mine else -1
            assert row[c] == expected


def test_a_changed_image_or_label_changes_the_fingerprint(tree):
    before = opened(tree).train.fingerprint
    folder = tree[0] / "VOCdevkit/VOC2007"
    labels = folder / "ImageSets/Main" / f"{tree[1].classes[0]}_trainval.txt"
    text = labels.read_text()
    labels.write_text(text.replace("-1", "0", 1))
    changed = opened(tree).train.fingerprint
    assert changed != before
    labels.write_text(text)
    assert opened(tree).train.fingerprint == before
    one, two = sorted((folder / "JPEGImages").iterdir())[:2]
    one.write_bytes(two.read_bytes())
    assert opened(tree).train.fingerprint not in (before, changed)


def spoil_list(folder):
    (folder / "ImageSets/Main/test.txt").write_text("")


def spoil_name(folder):
    path = folder / "ImageSets/Main/trainval.txt"
    path.write_text(path.read_text() + "999999\n")


def spoil_label(folder):
    path = folder / "ImageSets/Main/boat_trainval.txt"
    path.write_text("\n".join(path.read_text().splitlines()[1:]))


def spoil_label_value(folder):
    path = folder / "ImageSets/Main/boat_trainval.txt"
    path.write_text(path.read_text().replace("-1", "2", 1))


def spoil_image(folder):
    (folder / "JPEGImages/000003.jpg").unlink()


def spoil_jpeg(folder):
    path = folder / "JPEGImages/000003.jpg"
    path.write_bytes(path.read_bytes()[:300])


def spoil_jpeg_kind(folder):
    (folder / "JPEGImages/000003.jpg").write_bytes(b"GIF89a not a jpeg")


def spoil_xml(folder):
    path = folder / "Annotations/000003.xml"
    path.write_text(path.read_text()[:-20])


def spoil_box(folder):
    path = folder / "Annotations/000003.xml"
    text = path.read_text()
    start = text.index("<xmax>")
    path.write_text(text[:start] + "<xmax>4000</xmax>" + text[text.index("</xmax>") + 7 :])


def spoil_area(folder):
    path = folder / "Annotations/000003.xml"
    text = path.read_text()
    start = text.index("<xmin>")
    path.write_text(text[:start] + "<xmin>40</xmin>" + text[text.index("</xmin>") + 7 :])
    text = path.read_text()
    start = text.index("<xmax>")
    path.write_text(text[:start] + "<xmax>39</xmax>" + text[text.index("</xmax>") + 7 :])


def spoil_class(folder):
    path = folder / "Annotations/000003.xml"
    text = path.read_text()
    start, end = text.index("<object>"), text.index("</name>")
    path.write_text(text[:start] + "<object><name>yak" + text[end:])


def spoil_overlap(folder):
    lists = folder / "ImageSets/Main"
    (lists / "test.txt").write_text((lists / "trainval.txt").read_text())


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_list, r"test\.txt: the list is empty"),
        (spoil_name, r"999999\.xml: no such annotation file"),
        (spoil_label, r"boat_trainval\.txt: has no label for 000001"),
        (spoil_label_value, r"boat_trainval\.txt: '\d+ 2' is not 'ID 1'"),
        (spoil_image, r"trainval\.txt: names 000003, but .*000003\.jpg does not exist"),
        (spoil_jpeg, r"000003\.jpg: is truncated; replace the image"),
        (spoil_jpeg_kind, r"000003\.jpg: is neither JPEG nor PNG"),
        (spoil_xml, r"000003\.xml: not readable as XML"),
        (spoil_box, r"000003\.xml: box \(.*\) of '\w+' is outside the image"),
        (spoil_area, r"000003\.xml: box \(40, .*\) of '\w+' has no area"),
        (spoil_class, r"000003\.xml: object 'yak' is not among the suite's voc\.classes"),
        (spoil_overlap, r"000001 stands in both lists, trainval and test"),
    ],
)
def test_a_spoilt_tree_is_refused_in_one_line_that_names_the_file(tree, spoil, message):
    spoil(tree[0] / "VOCdevkit/VOC2007")
    with pytest.raises(UserError, match=message) as error:
        opened(tree)
    assert "\n" not in str(error.value)


def test_a_image_without_objects_and_a_box_of_one_pixel_are_fine(tree):
    folder = tree[0] / "VOCdevkit/VOC2007"
    path = folder / "Annotations/000003.xml"
    text = path.read_text()
    path.write_text(text[: text.index("<object>")] + "</annotation>")
    assert opened(tree).train.objects[2] == ()
    corners = "".join(f"<{side}>5</{side}>" for side in ("xmin", "ymin", "xmax", "ymax"))
    dot = f"<object><name>boat</name><bndbox>{corners}</bndbox></object></annotation>"
    path.write_text(text[: text.index("<object>")] + dot)
    (thing,) = opened(tree).train.objects[2]
    assert thing.box == (5, 5, 5, 5)


def test_a_missing_devkit_names_the_folder(tmp_path):
    with pytest.raises(UserError, match=r"VOC2007: no such folder .*--data-root"):
        open_voc(tmp_path, VOC07, Reporter())
