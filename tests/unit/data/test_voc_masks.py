import shutil

import numpy as np
import pytest
from PIL import Image
from support import another_year

from bench.data.voc_colors import voc_colors
from bench.data.voc_masks import open_voc_masks, read_mask
from bench.errors import UserError
from bench.runtime.progress import Reporter


@pytest.fixture
def root(devkit, tmp_path):
    """A data root of its own, of the smoke suite's scenes."""
    copy = tmp_path / "root"
    shutil.copytree(devkit / "VOCdevkit", copy / "VOCdevkit")
    return copy


@pytest.fixture
def section(smoke):
    return smoke.datasets["voc_masks"]


def opened(root, section, **keys):
    return open_voc_masks(root, "voc_masks", section.model_copy(update=keys), Reporter())


def test_masks_open_beside_their_images(root, section, smoke):
    train, test = opened(root, section)
    assert len(train.ids) == len(train.masks.files) == smoke.synthetic.train
    assert len(test.ids) == smoke.synthetic.test
    values = read_mask(train.masks.root / train.masks.files[0])
    assert set(np.unique(values)) <= {*range(11), 255}
    assert train.fingerprint != test.fingerprint


def broken(root, change):
    voc = root / "VOCdevkit/VOC2007"
    mask = sorted((voc / "SegmentationClass").iterdir())[0]
    with Image.open(mask) as image:
        palette, values = image.getpalette(), np.array(image)
    if change == "size":
        values = values[:-1]
    if change == "index":
        values[0, 0] = 77
    if change == "colors":
        Image.fromarray(np.stack([values] * 3, -1)).save(mask)
    elif change == "missing":
        mask.unlink()
    elif change == "overlap":
        lists = voc / "ImageSets/Segmentation"
        with (lists / "test.txt").open("a") as stream:
            stream.write(f"{mask.stem}\n")
    else:
        image = Image.fromarray(values)
        image.putpalette(palette)
        image.save(mask)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("size", r"000001\.png: is 48 x \d+ pixels, its image is 48 x \d+"),
        ("index", r"000001\.png: has index 77, but the data set's classes give 0 to 10"),
        ("colors", r"000001\.png: has colors \(RGB\), not class indices"),
        ("missing", r"000001\.png: cannot be read"),
        ("overlap", r"000001 is in both splits, VOC2007/trainval and VOC2007/test"),
    ],
)
def test_a_bad_mask_is_named(change, says, root, section):
    broken(root, change)
    with pytest.raises(UserError, match=says):
        opened(root, section)


def with_palette(root, palette, values=None):
    """Save the first mask anew, with a palette or as gray levels."""
    path = sorted((root / "VOCdevkit/VOC2007/SegmentationClass").iterdir())[0]
    with Image.open(path) as mask:
        values = np.array(mask) if values is None else values(np.array(mask))
    image = Image.fromarray(values)
    if palette is not None:
        image.putpalette(palette)
    image.save(path)


def test_masks_may_be_gray_levels_or_have_the_palette_of_gray_levels(root, section):
    first = opened(root, section)[0]
    for palette in (None, [level for level in range(256) for _ in range(3)]):
        with_palette(root, palette)
        again = opened(root, section)[0]
        path = again.masks.root / again.masks.files[0]
        np.testing.assert_array_equal(read_mask(path), read_mask(first.masks.root / path))


def test_a_mask_with_an_adaptive_palette_is_refused(root, section):
    colors = np.array(voc_colors(256))

    def number_anew(values):
        _, renumbered = np.unique(values, return_inverse=True)
        return renumbered.reshape(values.shape).astype(np.uint8)

    path = sorted((root / "VOCdevkit/VOC2007/SegmentationClass").iterdir())[0]
    with Image.open(path) as mask:
        indices = np.unique(np.array(mask))
    assert indices.tolist() != [*range(len(indices))]
    with_palette(root, colors[indices].ravel().tolist(), number_anew)
    message = r"000001\.png: its palette gives index \d+ the color \(.*\), VOC's \(.*\); save the"
    with pytest.raises(UserError, match=message):
        opened(root, section)


def test_masks_without_a_class_are_refused(root, section):
    for path in (root / "VOCdevkit/VOC2007/SegmentationClass").iterdir():
        with Image.open(path) as mask:
            empty = Image.fromarray(np.zeros_like(np.array(mask)))
        empty.save(path)
    with pytest.raises(UserError, match="SegmentationClass: no mask of the split has a pixel of a"):
        opened(root, section)


def change_masks(root, split, change):
    """Rewrite the values of every mask of a split."""
    voc = root / "VOCdevkit/VOC2007"
    for name in (voc / f"ImageSets/Segmentation/{split}.txt").read_text().split():
        path = voc / f"SegmentationClass/{name}.png"
        Image.fromarray(change(read_mask(path))).save(path)


def exchanged(values):
    table = np.arange(256, dtype=np.uint8)
    table[[0, 255]] = 255, 0
    return table[values]


def without_background(values):
    return np.where(values == 0, 255, values).astype(np.uint8)


@pytest.mark.parametrize("split", ["trainval", "test"])
@pytest.mark.parametrize("change", [exchanged, without_background])
def test_void_in_the_place_of_the_background_is_refused(root, section, split, change):
    change_masks(root, split, change)
    message = r"SegmentationClass: \d+% of the split's pixels are 255, .* and \d+% are 0, the back"
    with pytest.raises(UserError, match=message):
        opened(root, section)


def test_masks_whose_classes_cover_every_pixel_are_reported(root, section, capfd):
    text = "SegmentationClass: no mask of the split has a pixel of the background (0)"
    opened(root, section)
    assert text not in capfd.readouterr().err
    change_masks(root, "test", lambda values: np.where(values == 0, 1, values).astype(np.uint8))
    assert len(opened(root, section)[1].ids) == 80
    assert capfd.readouterr().err.count(text) == 1


def test_official_masks_stand_in_for_those_a_folder_lacks(root, section):
    voc = root / "VOCdevkit/VOC2007"
    first, second = sorted((voc / "SegmentationClass").iterdir())[:2]
    (voc / "SegmentationClassAug").mkdir()
    first.rename(voc / "SegmentationClassAug" / first.name)
    train, test = opened(root, section, masks="SegmentationClassAug")
    expected = (f"SegmentationClassAug/{first.name}", f"SegmentationClass/{second.name}")
    assert train.masks.files[:2] == expected
    assert all(file.startswith("SegmentationClass/") for file in test.masks.files)


def test_masks_of_two_years_are_joined(root, section):
    another_year(root / "VOCdevkit", "VOC2012", "2008_")
    both = ("VOC2007/trainval", "VOC2012/trainval")
    first, test = opened(root, section)
    second, _ = opened(root, section, train=both[1:])
    train, same_test = opened(root, section, train=both)
    assert train.ids == first.ids + second.ids
    assert train.masks.files[80] == "VOC2012/SegmentationClass/2008_000001.png"
    for index in (3, 83):
        mask = read_mask(train.masks.root / train.masks.files[index])
        np.testing.assert_array_equal(mask, read_mask(first.masks.root / first.masks.files[3]))
        assert (train.images.root / train.images.files[index]).is_file()
    assert len({split.fingerprint for split in (train, first, second)}) == 3
    assert same_test.fingerprint == test.fingerprint
    with pytest.raises(UserError, match="is in both splits"):
        opened(root, section, train=both, test=both[1:])


@pytest.mark.parametrize("kind", ["rolled", "empty"])
def test_a_mask_that_contradicts_the_annotation_is_refused(root, section, kind):
    path = sorted((root / "VOCdevkit/VOC2007/SegmentationClass").iterdir())[0]
    with Image.open(path) as mask:
        values = np.array(mask)
    classes = (values > 0) & (values < 255)
    wrong = np.where(classes, values % 10 + 1, values)
    wrong = wrong.astype(np.uint8) if kind == "rolled" else values[::-1, ::-1] * 0
    palette = [level for color in voc_colors(256) for level in color]
    with_palette(root, palette, lambda _: wrong)
    with pytest.raises(UserError, match=r"000001\.png: has no '\w+' where .*000001\.xml has one"):
        opened(root, section)


def test_masks_without_annotations_are_not_compared(root, section):
    before = opened(root, section)[0].fingerprint
    for path in (root / "VOCdevkit/VOC2007/Annotations").iterdir():
        path.unlink()
    assert opened(root, section)[0].fingerprint == before
