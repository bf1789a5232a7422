"""Fast decoding gives Pillow's pixels, or leaves the image to Pillow."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bench.data import image_files, jpeg
from bench.errors import UserError

MOST = 10**6
DATA = os.environ.get("SSL_GAP_DATA_ROOT", "")


def drawn(mode="RGB", size=(61, 47)):
    """Smooth and noisy parts, in any mode."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    smooth = np.stack([x, y, 255 - x], 2)
    noisy = np.where(x[:, :, None] > 128, rng.integers(0, 256, (*x.shape, 3)), smooth)
    return Image.fromarray(noisy.astype(np.uint8)).convert(mode)


def encoded(image, **options):
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def by_pillow(content):
    with Image.open(io.BytesIO(content)) as image:
        return np.array(image.convert("RGB"))


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 9), (61, 47), (256, 130)])
@pytest.mark.parametrize("quality", [5, 75, 100])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "4:1:1"])
def test_pixels_are_those_of_pillow(mode, size, quality, subsampling):
    content = encoded(drawn(mode, size), quality=quality, subsampling=subsampling)
    pixels = jpeg.decode(content, MOST)
    assert pixels is not None
    assert np.array_equal(pixels, by_pillow(content))


@pytest.mark.parametrize(
    "options",
    [
        {"optimize": True},
        {"restart_marker_blocks": 1},
        {"exif": b"Exif\x00\x00" + b"MM\x00*\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00"},
        {"icc_profile": b"x" * 200},
        {"comment": b"y" * 60_000},
        {"dpi": (300, 300)},
    ],
    ids=lambda options: "-".join(options),
)
def test_other_segments_change_nothing(options):
    content = encoded(drawn(), **options)
    pixels = jpeg.decode(content, MOST)
    assert pixels is not None
    assert np.array_equal(pixels, by_pillow(content))


def test_bytes_behind_the_end_change_nothing():
    content = encoded(drawn())
    for tail in (b"\0" * 100, content):
        pixels = jpeg.decode(content + tail, MOST)
        assert pixels is None or np.array_equal(pixels, by_pillow(content))


def png():
    stream = io.BytesIO()
    drawn().save(stream, "PNG")
    return stream.getvalue()


def test_every_other_file_is_left_to_pillow():
    whole = encoded(drawn())
    for content in (
        encoded(drawn(), progressive=True),
        encoded(drawn("CMYK")),
        encoded(drawn(), keep_rgb=True),
        whole[: len(whole) // 2],
        whole[:4],
        whole[:2] + b"\xff" * 50,
        b"",
        png(),
    ):
        assert jpeg.decode(content, MOST) is None
    assert jpeg.decode(whole, 61 * 47 - 1) is None


def test_any_damage_is_left_to_pillow_or_gives_its_pixels():
    whole = encoded(drawn())
    rng = np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(whole)
        content[rng.integers(2, len(content))] ^= 1 << rng.integers(8)
        pixels = jpeg.decode(bytes(content), MOST)
        if pixels is not None:
            assert np.array_equal(pixels, by_pillow(bytes(content)))


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_file_is_read_as_pillow_reads_it(tmp_path, options):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(drawn(), **options))
    expected = torch.from_numpy(by_pillow(path.read_bytes())).permute(2, 0, 1)
    assert torch.equal(image_files.read(path), expected)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UserError, match=r"a\.jpg: cannot be decoded"):
        image_files.read(path)


@pytest.mark.skipif(not DATA, reason="SSL_GAP_DATA_ROOT names no folder of real images")
@pytest.mark.slow
def test_all_real_images_are_read_as_pillow_reads_them():
    counts = {True: 0, False: 0}
    for path in sorted(Path(DATA).rglob("*")):
        if path.suffix.lower() not in (".jpg", ".jpeg"):
            continue
        content = path.read_bytes()
        pixels = jpeg.decode(content, image_files.MAX_PIXELS)
        counts[pixels is not None] += 1
        assert pixels is None or np.array_equal(pixels, by_pillow(content)), path
    assert counts[True] > 9 * counts[False]
