import shutil

import numpy as np
import pytest
from PIL import Image

from bench.data.voc_masks import open_masks, read_mask
from bench.errors import UserError
from bench.runtime.progress import Reporter


@pytest.fixture
def root(devkit, tmp_path):
    """A data root of its own, of the smoke suite's scenes."""
    copy = tmp_path / "root"
    shutil.copytree(devkit / "VOCdevkit", copy / "VOCdevkit")
    return copy


def test_masks_open_beside_their_images(root, smoke):
    found = open_masks(root, smoke.voc, smoke.voc_seg, Reporter())
    assert len(found.train.ids) == len(found.train.masks.files) == smoke.scenes.train
    assert len(found.test.ids) == smoke.scenes.test
    values = read_mask(found.train.masks.root / found.train.masks.files[0])
    assert set(np.unique(values)) <= {*range(11), 255}
    assert found.train.fingerprint != found.test.fingerprint


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
        ("index", r"000001\.png: has index 77, but the suite's voc\.classes give 0 to 10"),
        ("colors", r"000001\.png: has colors \(RGB\), not class indices"),
        ("missing", r"000001\.png: cannot be read"),
        ("overlap", r"000001 stands in both lists, trainval and test"),
    ],
)
def test_a_bad_mask_is_named(change, says, root, smoke):
    broken(root, change)
    with pytest.raises(UserError, match=says):
        open_masks(root, smoke.voc, smoke.voc_seg, Reporter())


def test_official_masks_stand_in_for_those_a_folder_lacks(root, smoke):
    voc = root / "VOCdevkit/VOC2007"
    one, two = sorted((voc / "SegmentationClass").iterdir())[:2]
    (voc / "SegmentationClassAug").mkdir()
    one.rename(voc / "SegmentationClassAug" / one.name)
    lists = smoke.voc_seg.model_copy(update={"masks": "SegmentationClassAug"})
    files = open_masks(root, smoke.voc, lists, Reporter()).train.masks.files
    assert files[:2] == (f"SegmentationClassAug/{one.name}", f"SegmentationClass/{two.name}")
