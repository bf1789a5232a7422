"""The stream of training images, and what it does about damaged ones."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data import near_duplicates
from bench.data.image_files import UndecodableError, read_pixels, verify
from bench.data.stream import DamagedImages, Stream
from bench.errors import UserError

COUNT = 120
HOLLOW = b"\xff\xd8\xff" + b"\x00" * 200 + b"\xff\xd9"  # the markers of a JPEG, nothing inside


@pytest.fixture
def folder(tmp_path):
    """Images whose only level is their number."""
    root = tmp_path / "images"
    root.mkdir()
    for number in range(COUNT):
        Image.new("L", (2, 2), number).save(root / f"{number:03}.png")
    return root


def damage(folder, *numbers):
    """Break the pixels, not the header, which is all that is decoded at the start."""
    for number in numbers:
        path = folder / f"{number:03}.png"
        head, tail = path.read_bytes().split(b"IDAT")
        path.write_bytes(head + b"IDAT" + b"\0" * 8 + tail[8:])


def opened(folder, damaged):
    names = [f"{number:03}.png" for number in range(COUNT)]
    return verify(folder, names, damaged, lambda _: None)


def stream(folder, damaged="skip", notes=None):
    images = opened(folder, damaged)
    noted = notes and DamagedImages(notes, images)
    return Stream(images, np.arange(COUNT), 3, pair, 3 * COUNT, noted)


def pair(image, label):
    return int(image[0, 0, 0]), label, float(torch.rand(()))


def test_a_damaged_image_is_replaced_by_the_next_one_of_its_pass(folder, tmp_path):
    sound = stream(folder)
    order = [sound.index(position) for position in range(3 * COUNT)]
    plain = [sound[position] for position in range(3 * COUNT)]
    first = order[5], order[6]  # one after the other
    last = order[2 * COUNT - 1]  # of the second pass
    damage(folder, *{*first, last})
    drawn = stream(folder)
    items = [drawn[position] for position in range(3 * COUNT)]
    for position, item in enumerate(items):
        expected = position
        while order[expected] in {*first, last}:
            expected = expected // COUNT * COUNT + (expected + 1) % COUNT
        assert item[:2] == plain[expected][:2]  # pixels and label of one image
        assert item[2] == plain[position][2]  # the augmentation is the position's own
    assert items[5][:2] == plain[7][:2]
    assert items[2 * COUNT - 1][:2] != plain[2 * COUNT][:2]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_skip_and_note_the_same_images(folder, tmp_path, start):
    damage(folder, 17)
    alone = stream(folder)
    shared = stream(folder, notes=tmp_path / "damaged")
    loader = torch.utils.data.DataLoader(
        shared, batch_size=30, num_workers=2, multiprocessing_context=start
    )
    levels = torch.cat([batch[0] for batch in loader]).tolist()
    assert levels == [alone[position][0] for position in range(3 * COUNT)]
    assert DamagedImages(tmp_path / "damaged", alone._images).indices() == {17}


def test_each_damaged_image_is_named_once(folder, tmp_path):
    damage(folder, 17)
    images = opened(folder, "skip")
    damaged = DamagedImages(tmp_path / "damaged", images)
    other = pickle.loads(pickle.dumps(damaged))
    lines = []
    damaged.say_new(lines.append)
    assert lines == []
    other.add(17)
    for _ in range(2):
        damaged.say_new(lines.append)
    assert lines == [f"{folder / '017.png'}: cannot be decoded; skipped"]
    damaged.clear()
    assert damaged.indices() == set()


def test_too_many_damaged_images_end_the_run(folder, tmp_path):
    damage(folder, 3, 4)
    some = stream(folder, notes=tmp_path / "damaged")
    message = r"images: 2 of 120 images are damaged, more than 1%; replace them"
    with pytest.raises(UserError, match=message):
        [some[position] for position in range(COUNT)]


def test_images_that_were_left_out_at_the_start_count_too(folder, tmp_path):
    (folder / "000.png").write_bytes(HOLLOW)
    images = opened(folder, "skip")
    assert images.skipped == ("000.png",)
    damaged = DamagedImages(tmp_path / "damaged", images)
    with pytest.raises(UserError, match="2 of 120 images are damaged"):
        damaged.add(2)
    (folder / "001.png").write_bytes(HOLLOW)
    with pytest.raises(UserError, match="2 of 120 images are damaged"):
        opened(folder, "skip")


def test_without_the_key_the_image_and_the_key_are_named(folder):
    damage(folder, 17)
    with pytest.raises(UserError, match=r"017\.png: cannot be decoded; .*damaged = 'skip'"):
        [stream(folder, "stop")[position] for position in range(COUNT)]


def test_a_file_that_cannot_be_read_is_no_damaged_image(folder, tmp_path):
    """It may be readable again in an hour, and then the weights would be others."""
    drawn = stream(folder, notes=tmp_path / "damaged")
    (folder / "017.png").unlink()
    with pytest.raises(UserError, match=r"017\.png: cannot be read \(No such file"):
        [drawn[position] for position in range(COUNT)]


def test_nothing_but_damaged_images(folder):
    images = replace(opened(folder, "skip"), files=("000.png", "001.png"))
    damage(folder, 0, 1)
    with pytest.raises(UserError, match="has no image that can be decoded"):
        Stream(images, np.arange(2), 0, pair, 2)[0]


@pytest.mark.parametrize(
    "content",
    [HOLLOW, b"\x89PNG\r\n\x1a\n" + b"\0" * 40 + b"\0\0\0\0IEND\xaeB`\x82", b"GIF89a" + b"\0" * 60],
)
def test_what_is_no_image_inside_is_undecodable(tmp_path, content):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(UndecodableError, match="cannot be decoded"):
        read_pixels(tmp_path / "x.jpg")


def test_a_damaged_image_that_is_skipped_is_nobodys_near_duplicate(folder):
    damage(folder, 17)
    signs = near_duplicates.hashes(opened(folder, "skip"), lambda _: None)
    assert [row for row, one in enumerate(signs) if not one.any()] == [17]
    assert 17 not in {pair[0] for pair in near_duplicates.near(signs, signs, lambda _: None)}
    with pytest.raises(UserError, match=r"017\.png: cannot be decoded"):
        near_duplicates.hashes(opened(folder, "stop"), lambda _: None)
