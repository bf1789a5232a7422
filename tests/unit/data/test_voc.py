"""The VOCdevkit reader, and what it refuses."""

import shutil

import numpy as np
import pytest
from PIL import Image
from support import another_year, mirror

from bench.data.voc import open_voc
from bench.errors import UserError
from bench.runtime.progress import Reporter


@pytest.fixture
def tree(devkit, smoke, tmp_path):
    """A copy of the rendered devkit that a test may spoil, and its suite section."""
    shutil.copytree(devkit / "VOCdevkit", tmp_path / "VOCdevkit")
    return tmp_path, smoke.datasets["voc"]


def opened(tree, **keys):
    root, section = tree
    return open_voc(root, "voc", section.model_copy(update=keys), Reporter())


def test_a_good_tree_opens(tree):
    train, test = opened(tree)
    names = tree[1].classes
    assert train.labels.shape == test.labels.shape == (80, len(names))
    assert len(train.objects) == len(train.images.files) == 80
    assert {*train.labels.flat} <= {-1, 0, 1}
    assert not {*train.ids} & {*test.ids}
    for row, objects in zip(train.labels, train.objects, strict=True):
        for c, name in enumerate(names):
            same = [entry for entry in objects if entry.name == name]
            expected = 1 if any(not o.difficult for o in same) else 0 if same else -1
            assert row[c] == expected


def test_a_changed_image_or_label_changes_the_fingerprint(tree):
    before = opened(tree)[0].fingerprint
    folder = tree[0] / "VOCdevkit/VOC2007"
    labels = folder / "ImageSets/Main" / f"{tree[1].classes[0]}_trainval.txt"
    text = labels.read_text()
    labels.write_text(text.replace("-1", "0", 1))
    changed = opened(tree)[0].fingerprint
    assert changed != before
    labels.write_text(text)
    assert opened(tree)[0].fingerprint == before
    mirror(sorted((folder / "JPEGImages").iterdir())[0])
    assert opened(tree)[0].fingerprint not in (before, changed)


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


def spoil_object(folder):
    path = folder / "Annotations/000003.xml"
    text = path.read_text()
    own = text[text.index("<object>") : text.index("</object>") + len("</object>")]
    path.write_text(text.replace("</annotation>", f"{own}</annotation>"))


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
        (spoil_object, r"000003\.xml: box \(.*\) of '\w+' is given twice; remove one"),
        (spoil_class, r"000003\.xml: object 'yak' is not among the data set's classes"),
        (spoil_overlap, r"000001 is in both splits, VOC2007/trainval and VOC2007/test: the"),
    ],
)
def test_a_spoilt_tree_is_refused_in_one_line_that_names_the_file(tree, spoil, message):
    spoil(tree[0] / "VOCdevkit/VOC2007")
    with pytest.raises(UserError, match=message) as error:
        opened(tree)
    assert "\n" not in str(error.value)


def relabel(folder, identifier, labels):
    """Write the labels of one training image; -1 for classes that are not named."""
    for path in (folder / "ImageSets/Main").glob("*_trainval.txt"):
        lines = dict(line.split() for line in path.read_text().splitlines())
        lines[identifier] = labels.get(path.name.split("_")[0], -1)
        path.write_text("".join(f"{name} {label}\n" for name, label in lines.items()))


def test_an_image_without_objects_and_a_box_of_one_pixel_are_fine(tree):
    folder = tree[0] / "VOCdevkit/VOC2007"
    relabel(folder, "000003", {})
    path = folder / "Annotations/000003.xml"
    text = path.read_text()
    path.write_text(text[: text.index("<object>")] + "</annotation>")
    assert opened(tree)[0].objects[2] == ()
    corners = "".join(f"<{side}>5</{side}>" for side in ("xmin", "ymin", "xmax", "ymax"))
    dot = f"<object><name>boat</name><bndbox>{corners}</bndbox></object></annotation>"
    path.write_text(text[: text.index("<object>")] + dot)
    relabel(folder, "000003", {"boat": 1})
    (dot,) = opened(tree)[0].objects[2]
    assert dot.box == (5, 5, 5, 5)


def test_a_missing_devkit_names_the_folder(smoke, tmp_path):
    message = r"VOC2007: no such folder \(the suite's datasets\.voc\.train\); see --data-root"
    with pytest.raises(UserError, match=message):
        opened((tmp_path, smoke.datasets["voc"]))


@pytest.mark.parametrize("split", ["trainval", "VOC2007/", "/trainval", "VOC2007/Main/trainval"])
def test_a_split_is_a_year_and_a_list(tree, split):
    with pytest.raises(UserError, match=rf"datasets\.voc\.train: '{split}' is not YEAR/SPLIT"):
        opened(tree, train=(split,))


def test_a_data_set_names_a_split(tree):
    with pytest.raises(UserError, match=r"datasets\.voc\.test: names no split"):
        opened(tree, test=())


def edit(folder, change, identifier="000003"):
    path = folder / "Annotations" / f"{identifier}.xml"
    path.write_bytes(change(path.read_bytes()))


def test_a_list_with_0_for_absent_is_refused_with_a_hint(tree):
    path = tree[0] / "VOCdevkit/VOC2007/ImageSets/Main/boat_trainval.txt"
    path.write_text(path.read_text().replace("-1", "0"))
    message = (
        r"boat_trainval\.txt: has 0 for \d+ images without a 'boat'; -1 means absent, "
        "0 only difficult objects: write -1 for absent"
    )
    with pytest.raises(UserError, match=message):
        opened(tree)


def test_a_few_images_whose_difficult_objects_are_not_annotated_are_fine(tree):
    path = tree[0] / "VOCdevkit/VOC2007/ImageSets/Main/boat_trainval.txt"
    path.write_text(path.read_text().replace("-1", "0", 3))
    assert (opened(tree)[0].labels == 0).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((" 1", "-1"), r"says -1 for \d+, but its annotation has an object of 'boat'"),
        (("-1", " 1"), r"says 1 for \d+, but its annotation has no 'boat'"),
        ((" 1", " 0"), r"says 0 for \d+, but its annotation has an object of 'boat'"),
    ],
)
def test_a_label_that_contradicts_the_annotation_is_refused(tree, change, message):
    path = tree[0] / "VOCdevkit/VOC2007/ImageSets/Main/boat_trainval.txt"
    lines = path.read_text().splitlines()
    row = next(k for k, line in enumerate(lines) if line.endswith(change[0]))
    lines[row] = lines[row].replace(*change)
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=rf"boat_trainval\.txt: {message}"):
        opened(tree)


def test_a_label_list_names_an_image_once_and_may_begin_with_a_byte_order_mark(tree):
    path = tree[0] / "VOCdevkit/VOC2007/ImageSets/Main/boat_trainval.txt"
    text = path.read_text()
    before = opened(tree)[0].fingerprint
    path.write_text("\ufeff" + text)
    assert opened(tree)[0].fingerprint == before
    path.write_text(text + text.splitlines()[4] + "\n")
    with pytest.raises(UserError, match=r"boat_trainval\.txt: names 000005 twice"):
        opened(tree)


@pytest.mark.parametrize("tag", ["difficult", "truncated"])
@pytest.mark.parametrize("text", ["1", "true", "True", " TRUE ", "0", "false", "False"])
def test_flags_may_be_words(tree, tag, text):
    folder = tree[0] / "VOCdevkit/VOC2007"
    corners = "".join(f"<{side}>5</{side}>" for side in ("xmin", "ymin", "xmax", "ymax"))
    value = text.strip().lower() in ("1", "true")
    entry = f"<object><name>boat</name><{tag}>{text}</{tag}><bndbox>{corners}</bndbox></object>"
    edit(folder, lambda content: content[: content.index(b"<object>")] + entry.encode())
    edit(folder, lambda content: content + b"</annotation>")
    relabel(folder, "000003", {"boat": 0 if value and tag == "difficult" else 1})
    (thing,) = opened(tree)[0].objects[2]
    assert getattr(thing, tag) is value


@pytest.mark.parametrize("text", [b"", b"2", b"yes", b"-1", b"1.0", b"Unspecified"])
def test_any_other_flag_is_refused(tree, text):
    folder = tree[0] / "VOCdevkit/VOC2007"

    def change(content):
        start = content.index(b"<difficult>") + len(b"<difficult>")
        return content[:start] + text + content[content.index(b"</difficult>") :]

    edit(folder, change)
    with pytest.raises(UserError, match=r"000003\.xml: not a VOC annotation \(<difficult> is '"):
        opened(tree)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<a>" * 200 + b"</a>" * 200, r"not readable as XML \(nested more than 100 deep\)"),
        (b"<a>" * 1_000_000, r"not readable as XML \(nested more than 100 deep\)"),
        (b"<annotation>" + b" " * 2**22, "is larger than 4 MB"),
        (b"", "not readable as XML"),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "not (readable as XML|a VOC annotation)"),
    ],
)
def test_a_hostile_annotation_is_refused_in_one_line(tree, content, message):
    edit(tree[0] / "VOCdevkit/VOC2007", lambda _: content)
    with pytest.raises(UserError, match=rf"000003\.xml: {message}") as error:
        opened(tree)
    assert "\n" not in str(error.value)


def test_images_of_another_size_than_their_annotations_are_refused(tree):
    path = tree[0] / "VOCdevkit/VOC2007/JPEGImages/000003.jpg"
    with Image.open(path) as image:
        width, height = image.size
        half = image.resize((width // 2, height // 2))
        turned = image.transpose(Image.Transpose.ROTATE_90)
    half.save(path)
    message = rf"000003\.xml: is of an image of {width} x {height} pixels, but .*\.jpg has "
    with pytest.raises(UserError, match=rf"{message}{width // 2} x {height // 2}$"):
        opened(tree)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(path, exif=exif)
    hint = "; its EXIF orientation turns it: save it upright"
    with pytest.raises(UserError, match=rf"{message}{height} x {width}{hint}"):
        opened(tree)


BOTH = ("VOC2007/trainval", "VOC2012/trainval")


@pytest.fixture
def two_years(tree):
    """The devkit with a second year: the same images under other identifiers."""
    another_year(tree[0] / "VOCdevkit", "VOC2012", "2008_")
    return tree


def test_splits_of_two_years_are_joined(two_years):
    first, test = opened(two_years)
    second, _ = opened(two_years, train=BOTH[1:])
    train, same_test = opened(two_years, train=BOTH)
    assert train.ids == first.ids + second.ids
    assert second.ids == tuple(f"2008_{name}" for name in first.ids)
    np.testing.assert_array_equal(train.labels, np.concatenate([first.labels, second.labels]))
    assert train.objects == first.objects + second.objects
    assert train.images.root == two_years[0] / "VOCdevkit"
    assert train.images.files[0] == "VOC2007/JPEGImages/000001.jpg"
    assert train.images.files[80] == "VOC2012/JPEGImages/2008_000001.jpg"
    assert all((train.images.root / file).is_file() for file in train.images.files)
    assert len({split.fingerprint for split in (train, first, second)}) == 3
    assert len({split.images.fingerprint for split in (train, first, second)}) == 3
    assert same_test.fingerprint == test.fingerprint
    assert opened(two_years, train=BOTH[::-1])[0].fingerprint != train.fingerprint


def test_a_change_in_either_year_changes_the_joined_fingerprint(two_years):
    before = opened(two_years, train=BOTH)[0].fingerprint
    for year in ("VOC2007", "VOC2012"):
        images = sorted((two_years[0] / "VOCdevkit" / year / "JPEGImages").iterdir())
        content = images[0].read_bytes()
        mirror(images[0])
        assert opened(two_years, train=BOTH)[0].fingerprint != before
        images[0].write_bytes(content)
    assert opened(two_years, train=BOTH)[0].fingerprint == before


def test_joined_splits_that_share_an_image_with_the_test_split_are_refused(two_years):
    message = (
        r"is in both splits, VOC2007/trainval, VOC2012/trainval and VOC2012/trainval: "
        "the test images must not be trained on"
    )
    with pytest.raises(UserError, match=message):
        opened(two_years, train=BOTH, test=BOTH[1:])
    lists = two_years[0] / "VOCdevkit/VOC2012/ImageSets/Main"
    (lists / "test.txt").write_text((lists / "trainval.txt").read_text().splitlines()[7] + "\n")
    with pytest.raises(UserError, match=r"2008_000008 is in both splits"):
        opened(two_years, train=BOTH, test=("VOC2007/test", "VOC2012/test"))


def test_a_missing_year_names_its_folder(tree):
    with pytest.raises(UserError, match=r"VOC2012: no such folder"):
        opened(tree, train=BOTH)


CORNER = b"<xmin>5</xmin><ymin>5</ymin><xmax>9</xmax><ymax>9</ymax>"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (b"<size>", b"<size></size><size>", "<size> is given twice in one <annotation>"),
        (b"<width>", b"<width>1</width><width>", "<width> is given twice in one <size>"),
        (b"<name>", b"<name>cow</name><name>", "<name> is given twice in one <object>"),
        (b"<xmin>", b"<xmin>9</xmin><xmin>", "<xmin> is given twice in one <bndbox>"),
        (b"<bndbox>", b"<bndbox>" + CORNER + b"</bndbox><bndbox>", "<bndbox> is given twice in"),
        (b"<difficult>", b"<difficult>1</difficult><difficult>", "<difficult> is given twice in"),
    ],
)
def test_a_statement_given_twice_is_refused(tree, before, after, message):
    edit(tree[0] / "VOCdevkit/VOC2007", lambda content: content.replace(before, after, 1))
    with pytest.raises(UserError, match=rf"000003\.xml: not a VOC annotation \({message}"):
        opened(tree)


def test_parts_of_an_object_have_boxes_of_their_own(tree):
    part = b"<part><name>head</name><bndbox>" + CORNER + b"</bndbox></part>"
    before = opened(tree)[0].objects
    edit(
        tree[0] / "VOCdevkit/VOC2007",
        lambda content: content.replace(b"</object>", 2 * part + b"</object>", 1),
    )
    assert opened(tree)[0].objects == before


def test_an_annotation_of_another_image_is_refused(tree):
    folder = tree[0] / "VOCdevkit/VOC2007"
    edit(folder, lambda content: content.replace(b"000003.jpg", b"unknown.jpg"))
    opened(tree)
    edit(folder, lambda content: content.replace(b"unknown.jpg", b"000004.jpg"))
    message = r"000003\.xml: is of another image: its <filename> is that of .*000004\.jpg"
    with pytest.raises(UserError, match=message):
        opened(tree)


def test_boxes_that_count_from_0_are_refused(tree):
    def begin(text):
        def change(content):
            start = content.index(b"<xmin>") + len(b"<xmin>")
            return content[:start] + text + content[content.index(b"</xmin>") :]

        edit(tree[0] / "VOCdevkit/VOC2007", change)

    begin(b"0.5")
    opened(tree)
    begin(b"0")
    with pytest.raises(UserError, match=r"000003\.xml: box \(0, .* begins at 0; VOC's pixels"):
        opened(tree)
