"""Every kind of image file: read right, or refused by name in one line, in every place."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from bench.data import near_duplicates
from bench.data.image_files import ImageFiles, read, verify
from bench.data.voc_masks import read_mask
from bench.errors import UserError

GRAY = np.random.default_rng(0).integers(0, 256, (20, 24), dtype=np.uint8)
COLORS = np.random.default_rng(1).integers(0, 256, (20, 24, 3), dtype=np.uint8)


def pixels(path):
    return read(path).permute(1, 2, 0).numpy()


def opened(path, damaged="stop"):
    return verify(path.parent, [path.name], damaged, lambda _: None)


def hashed(path):
    files = ImageFiles(path.parent, (path.name,), "")
    return near_duplicates.hashes(files, lambda _: None)


def png(path, depth, kind, rows, extra=b"", size=None):
    """A PNG of any bit depth and color type; rows are bytes."""

    def chunk(name, content):
        check = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)

    width, height = size or (24, len(rows))
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


def test_gamma_and_color_profiles_are_not_applied(tmp_path):
    gamma = PngImagePlugin.PngInfo()
    gamma.add(b"gAMA", struct.pack(">I", 100_000))
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for keys in ({"pnginfo": gamma}, {"icc_profile": lab}):
        Image.fromarray(COLORS).save(tmp_path / "x.png", **keys)
        opened(tmp_path / "x.png")
        np.testing.assert_array_equal(pixels(tmp_path / "x.png"), COLORS)


def test_plain_images_have_the_pixels_that_pillow_gives(tmp_path):
    palette = Image.fromarray(COLORS).quantize(64)
    images = {
        "rgb.jpg": Image.fromarray(COLORS),
        "gray.jpg": Image.fromarray(GRAY),
        "cmyk.jpg": Image.fromarray(COLORS).convert("CMYK"),
        "rgb.png": Image.fromarray(COLORS),
        "gray.png": Image.fromarray(GRAY),
        "palette.png": palette,
        "bits.png": Image.fromarray(GRAY > 99),
    }
    for name, image in images.items():
        image.save(tmp_path / name)
        with Image.open(tmp_path / name) as again:
            expected = np.array(again.convert("RGB"))
        np.testing.assert_array_equal(pixels(tmp_path / name), expected)
        assert opened(tmp_path / name).sizes.tolist() == [[24, 20]]


@pytest.mark.parametrize("factor", [256, 257])
def test_sixteen_bit_gray_is_the_same_image(tmp_path, factor):
    rows = [row.astype(">u2").tobytes() for row in GRAY.astype(np.uint16) * factor]
    path = png(tmp_path / "deep.png", 16, 0, rows)
    np.testing.assert_array_equal(pixels(path), np.stack([GRAY] * 3, -1))
    Image.fromarray(GRAY).save(tmp_path / "plain.png")
    np.testing.assert_array_equal(hashed(path), hashed(tmp_path / "plain.png"))
    opened(path)


@pytest.mark.parametrize(("depth", "factor"), [(1, 255), (2, 85), (4, 17)])
def test_gray_of_few_bits_spans_the_full_range(tmp_path, depth, factor):
    levels = GRAY >> (8 - depth)
    bits = np.unpackbits(levels[..., None], -1)[..., -depth:].reshape(len(levels), -1)
    path = png(tmp_path / "few.png", depth, 0, [row.tobytes() for row in np.packbits(bits, -1)])
    np.testing.assert_array_equal(pixels(path)[..., 1], levels * factor)


def test_sixteen_bit_colors_are_the_same_image(tmp_path):
    deep = COLORS.astype(np.uint16) * 257
    path = png(tmp_path / "x.png", 16, 2, [row.astype(">u2").tobytes() for row in deep])
    np.testing.assert_array_equal(pixels(path), COLORS)
    opened(path)


def with_alpha(mode, lowest):
    image = Image.fromarray(COLORS if mode == "RGBA" else GRAY)
    alpha = np.full(GRAY.shape, 255, np.uint8)
    alpha[3, 4] = lowest
    image.putalpha(Image.fromarray(alpha))
    assert image.mode == mode
    return image


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_an_alpha_channel_may_hide_nothing(tmp_path, mode):
    path = tmp_path / "a.png"
    with_alpha(mode, 255).save(path)
    expected = COLORS if mode == "RGBA" else np.stack([GRAY] * 3, -1)
    np.testing.assert_array_equal(pixels(path), expected)
    with_alpha(mode, 254).save(path)
    refused_everywhere(path, r"a\.png: has transparent pixels, whose color is not defined")


def refused_everywhere(path, message):
    for use in (read, opened, hashed):
        with pytest.raises(UserError, match=message) as error:
            use(path)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="has no readable image"):
        opened(path, "skip")


@pytest.mark.parametrize("index", [3, 200])
def test_a_transparent_palette_entry_may_be_unused(tmp_path, index):
    path = tmp_path / "p.png"
    image = Image.fromarray(GRAY % 64)
    image.putpalette(COLORS.ravel()[:768].tolist())
    image.save(path, transparency=index)
    if index == 3:
        refused_everywhere(path, r"p\.png: has transparent pixels")
    else:
        np.testing.assert_array_equal(pixels(path), COLORS.reshape(-1, 3)[GRAY % 64])


@pytest.mark.parametrize("depth", [8, 16])
def test_a_transparent_gray_level_is_refused(tmp_path, depth):
    level = int(GRAY[0, 0]) * (257 if depth == 16 else 1)
    content = b"tRNS" + struct.pack(">H", level)
    extra = struct.pack(">I", 2) + content + struct.pack(">I", zlib.crc32(content))
    levels = GRAY if depth == 8 else (GRAY.astype(np.uint16) * 257).astype(">u2")
    path = png(tmp_path / "t.png", depth, 0, [row.tobytes() for row in levels], extra)
    refused_everywhere(path, r"t\.png: has transparent pixels")


def test_a_decompression_bomb_is_refused_everywhere(tmp_path):
    for side, size in ((60_000, "it"), (10_000, "10000 x 10000")):
        path = png(tmp_path / "bomb.png", 8, 0, [b"\0"], size=(side, side))
        message = rf"bomb\.png: has too many pixels \({size} is more than 89 million\); replace"
        refused_everywhere(path, message)
        with pytest.raises(UserError, match=message):
            read_mask(path)


def test_an_animation_is_refused(tmp_path):
    path = tmp_path / "a.png"
    frames = [Image.fromarray(COLORS), Image.fromarray(255 - COLORS)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    refused_everywhere(path, r"a\.png: is animated")


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "WEBP"])
def test_other_formats_are_refused_whatever_their_name(tmp_path, kind):
    path = tmp_path / "x.jpg"
    Image.fromarray(COLORS).save(path, kind)
    refused_everywhere(path, r"x\.jpg: (is neither JPEG nor PNG|cannot be decoded)")


@pytest.mark.parametrize("name", ["x.jpg", "x.png"])
def test_bytes_behind_the_end_do_not_matter(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(COLORS).save(path)
    before = pixels(path)
    path.write_bytes(path.read_bytes() + bytes(600) + b"IEN" * 400)
    opened(path)
    np.testing.assert_array_equal(pixels(path), before)


@pytest.mark.parametrize("suffix", [b"", bytes(600)])
def test_a_truncated_file_is_refused(tmp_path, suffix):
    thumbnail = io.BytesIO()
    Image.fromarray(GRAY[:8, :8]).save(thumbnail, "JPEG")
    for name in ("x.jpg", "x.png"):
        path = tmp_path / name
        options = {"exif": b"Exif\0\0" + thumbnail.getvalue()} if name == "x.jpg" else {}
        Image.fromarray(COLORS).save(path, **options)
        path.write_bytes(path.read_bytes()[:-40] + suffix)
        for damaged, message in (("stop", rf"{name}: is truncated"), ("skip", "no readable")):
            with pytest.raises(UserError, match=message):
                opened(path, damaged)


def test_any_bytes_are_an_image_or_one_line(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("x.jpg", "x.png"):
        path = tmp_path / name
        info = PngImagePlugin.PngInfo()
        info.add_text("comment", "text", zip=True)
        Image.fromarray(COLORS).save(path, pnginfo=info)
        content = path.read_bytes()
        for _ in range(150):
            spoilt = bytearray(content)
            for position in rng.integers(3, len(content), 4):
                spoilt[position] = rng.integers(256)
            path.write_bytes(spoilt)
            for use in (read, opened, hashed, read_mask):
                try:
                    use(path)
                except UserError as error:
                    assert name in str(error) or "has no readable" in str(error)


def test_what_is_not_a_regular_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for name in ("pipe.jpg", "folder.jpg"):
        refused_everywhere(tmp_path / name, rf"{name}: cannot be read \(not a regular file\)")
    refused_everywhere(tmp_path / "absent.jpg", r"absent\.jpg: cannot be read \(No such file")


def test_a_huge_file_is_not_read(tmp_path):
    path = tmp_path / "huge.jpg"
    with path.open("wb") as stream:
        stream.write(b"\xff\xd8\xff")
        stream.truncate(2**28 + 1)
    with pytest.raises(UserError, match=r"huge\.jpg: is larger than 256 MB"):
        opened(path)


@pytest.mark.parametrize("depth", [2, 4])
def test_a_mask_of_few_bits_is_refused(tmp_path, depth):
    path = png(tmp_path / "m.png", depth, 0, [bytes(24 * depth // 8)] * 20)
    with pytest.raises(UserError, match=r"m\.png: has gray levels of less than 8 bits"):
        read_mask(path)
    Image.fromarray(GRAY).save(path, "JPEG")
    with pytest.raises(UserError, match=r"m\.png: is a JPEG, whose compression changes class"):
        read_mask(path)


@pytest.mark.parametrize(("kind", "bits"), [(0, b"\x0c"), (2, b"\x10\x0c\x10")])
def test_sixteen_bits_of_which_fewer_are_significant_are_refused(tmp_path, kind, bits):
    row = bytes(24 * 2 * (3 if kind else 1))

    def with_bits(value):
        body = b"sBIT" + value
        extra = struct.pack(">I", len(value)) + body + struct.pack(">I", zlib.crc32(body))
        return png(tmp_path / "deep.png", 16, kind, [row] * 4, extra)

    opened(with_bits(b"\x10" * len(bits)))
    read(tmp_path / "deep.png")
    message = r"deep\.png: has 16 bits of which 12 are significant"
    refused_everywhere(with_bits(bits), message)
