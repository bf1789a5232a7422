"""Images of every mode and format, folders of any content: the same pixels, or one line."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from fuzz import mutations
from fuzz.harness import NO_FILES, REFUSED, attempt, check, examples, write
from hypothesis import given, note
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from bench.config import schema
from bench.data import image_files
from bench.data.image_folder import open_image_folder
from bench.runtime.progress import Reporter

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
RGB = Image.fromarray(PIXELS)
GRAY = RGB.convert("L")
BITS = GRAY.convert("1")


def saved(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, format=form, **options)
    return buffer.getvalue()


def chunk(kind, content):
    """A chunk of a PNG."""
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def with_chunk(content, kind, data):
    """A PNG with a chunk behind its header."""
    return content[:33] + chunk(kind, data) + content[33:]


def bomb(width, height):
    """A PNG of few bytes that says to be huge."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(10**6))
    return PNG[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


JPEG = saved(RGB, "JPEG", quality=90)
PNG = saved(RGB, "PNG")
SHOWN = {"jpeg": np.array(Image.open(io.BytesIO(JPEG))), "png": PIXELS}
GRAYS = np.array(GRAY.convert("RGB"))


def sixteen(pixels):
    """A 16-bit gray image whose upper bytes are the gray levels."""
    return Image.fromarray(np.array(pixels).astype(np.uint16) * 257)


ICC = b"\0" * 200
EXIF = Image.Exif()
EXIF[0x0112] = 6
CLEAR = Image.fromarray(np.dstack([PIXELS, np.full((20, 30), 255, np.uint8)]))
HIDDEN = Image.fromarray(np.dstack([PIXELS, np.full((20, 30), 254, np.uint8)]))
PALETTE = RGB.quantize(16)
TEXT = PngImagePlugin.PngInfo()
TEXT.add_text("x", "y" * 1000)

# Sound: name -> (content, its pixels).
SOUND = {
    "jpeg": (JPEG, SHOWN["jpeg"]),
    "jpeg, bytes behind": (JPEG + b"x" * 600, SHOWN["jpeg"]),
    "jpeg, another behind": (JPEG + JPEG, SHOWN["jpeg"]),
    "jpeg, zeros behind": (JPEG + bytes(5000), SHOWN["jpeg"]),
    "jpeg, comment": (saved(RGB, "JPEG", quality=90, comment=b"\xff\xd9"), SHOWN["jpeg"]),
    "jpeg, turned": (saved(RGB, "JPEG", quality=90, exif=EXIF), SHOWN["jpeg"]),
    "jpeg, profile": (saved(RGB, "JPEG", quality=90, icc_profile=ICC), SHOWN["jpeg"]),
    "jpeg, gray": (saved(GRAY, "JPEG", quality=100), None),
    "jpeg, progressive": (saved(RGB, "JPEG", quality=90, progressive=True), SHOWN["jpeg"]),
    "jpeg, CMYK": (saved(RGB.convert("CMYK"), "JPEG", quality=90), None),
    "png": (PNG, PIXELS),
    "png, bytes behind": (PNG + b"x" * 600, PIXELS),
    "png, text": (saved(RGB, "PNG", pnginfo=TEXT), PIXELS),
    "png, profile": (saved(RGB, "PNG", icc_profile=ICC), PIXELS),
    "png, gamma": (with_chunk(PNG, b"gAMA", struct.pack(">I", 45455)), PIXELS),
    "png, odd chunk": (with_chunk(PNG, b"abCd", b"x" * 100), PIXELS),
    "png, gray": (saved(GRAY, "PNG"), GRAYS),
    "png, 16 bits": (saved(sixteen(GRAY), "PNG"), GRAYS),
    "png, 1 bit": (saved(BITS, "PNG"), np.array(BITS.convert("RGB"))),
    "png, palette": (saved(PALETTE, "PNG"), np.array(PALETTE.convert("RGB"))),
    "png, opaque": (saved(CLEAR, "PNG"), PIXELS),
    "png, opaque gray": (saved(GRAY.convert("LA"), "PNG"), GRAYS),
    "png, bits of a palette": (saved(PALETTE, "PNG", bits=4), np.array(PALETTE.convert("RGB"))),
}
FORMATS = (
    "BMP",
    "GIF",
    "TIFF",
    "WEBP",
    "PPM",
    "ICO",
    "TGA",
    "PCX",
    "SGI",
    "JPEG2000",
    "PDF",
    "EPS",
)
MODES = ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "I;16")


def foreign():
    """Images of other formats, of every mode that they can save."""
    made = {}
    for form in FORMATS:
        for mode in MODES:
            try:
                source = (
                    RGB.convert("L").convert(mode) if mode in ("LA", "I;16") else RGB.convert(mode)
                )
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    made[f"{form} {mode}"] = saved(source, form)
            except (OSError, ValueError, KeyError):
                continue
    return made


HARMFUL = {
    **foreign(),
    "png, transparent": saved(HIDDEN, "PNG"),
    "png, a transparent color": saved(RGB, "PNG", transparency=tuple(map(int, PIXELS[3, 4]))),
    "png, a transparent gray": saved(GRAY, "PNG", transparency=int(np.array(GRAY)[3, 4])),
    "png, animated": saved(RGB, "PNG", save_all=True, append_images=[GRAY.convert("RGB")]),
    "png, bomb": bomb(2**15, 2**15),
    "png, large bomb": bomb(2**31 - 1, 2**31 - 1),
    "png, no width": bomb(0, 5),
    "jpeg, header alone": JPEG[:2],
    "nothing": b"",
    "text": b"hello",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "zip": b"PK\x03\x04" + bytes(100),
    "jpeg, no scan": JPEG[:20] + JPEG[-2:],
    "png, no content": PNG[:33] + chunk(b"IEND", b""),
    "png, kind of pixels": PNG[:8]
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 30, 20, 7, 9, 0, 0, 0))
    + PNG[33:],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("images")


def used(place, name):
    """The pixels of an image, after its check."""
    image_files.verify(place, [name], "stop", lambda _: None)
    return image_files.read(place / name).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("kind", sorted(SOUND))
@pytest.mark.parametrize("name", ["x.jpg", "x.png", "é.jpg"])
def test_a_sound_image_has_its_pixels(place, kind, name):
    content, pixels = SOUND[kind]
    write(place / name, content)
    if pixels is None:
        pixels = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
    check("harmless", attempt("image", lambda: used(place, name)), pixels, np.array_equal)


@pytest.mark.parametrize("kind", sorted(HARMFUL))
def test_another_image_is_refused(place, kind):
    write(place / "x.jpg", HARMFUL[kind])
    check("harmful", attempt("image", lambda: used(place, "x.jpg")), None)


@examples(150)
@given(data=st.data())
def test_a_part_of_an_image_is_refused(place, data):
    kind = data.draw(st.sampled_from([k for k in sorted(SOUND) if "behind" not in k]))
    content = SOUND[kind][0]
    ends = 2 if kind.startswith("jpeg") else 12
    start = data.draw(st.sampled_from([b"", b"\0", b"\xff", b"\n"]))
    spoilt = data.draw(mutations.cuts(content, ends)) if not start else start + content
    note(f"{kind} {len(spoilt)} of {len(content)}")
    write(place / "x.jpg", spoilt)
    check("harmful", attempt("image", lambda: used(place, "x.jpg")), None)


@examples(150)
@given(data=st.data())
def test_changed_bytes_end_in_pixels_or_one_line(place, data):
    """What a decoder makes of changed bytes is its own; a PNG has checksums that refuse them."""
    kind = data.draw(st.sampled_from([k for k in sorted(SOUND) if "behind" not in k]))
    content = bytearray(SOUND[kind][0])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(2, len(content) - 1))] = data.draw(st.integers(0, 255))
    write(place / "x.jpg", bytes(content))
    result = attempt("image", lambda: used(place, "x.jpg"))
    if result is not REFUSED:
        assert result.ndim == 3 and result.dtype == np.uint8


@pytest.mark.parametrize("spoil", NO_FILES)
def test_what_is_no_file(place, spoil):
    spoil(place / "none.jpg")
    check("harmful", attempt("image", lambda: used(place, "none.jpg")), None)


SECTION = schema.ImageFolder(kind="image_folder", train="corpus")


class Corpus:
    """A folder of four images of two classes."""

    def __init__(self, root):
        self.root = root
        for index, name in enumerate(("ape/a.png", "ape/b.png", "bee/c.png", "bee/d.png")):
            write(root / "corpus" / name, saved(Image.fromarray(PIXELS + np.uint8(index)), "PNG"))
        self.expected = self.read()

    def read(self):
        images = open_image_folder(self.root, "pretraining", SECTION, "train", Reporter())
        return images.ids, images.labels.tolist(), images.classes, images.fingerprint


LEFT = (".DS_Store", "Thumbs.db", "desktop.ini", ".x.jpg", "README.txt", "labels.csv", "x.xml", "x")
HIDDEN_FOLDERS = ("__MACOSX", ".ipynb_checkpoints", ".git", "@eaDir", "lost+found", "__pycache__")
NEW = ("e.bmp", "e.gif", "e.jpg", "e.webp", "e.PNG", "e.tif")


@examples(100)
@given(data=st.data())
def test_a_folder_of_any_content(tmp_path_factory, data):
    """Leftovers are passed over; what may be an image and is none, is named."""
    corpus = Corpus(tmp_path_factory.mktemp("corpus"))
    root = corpus.root / "corpus"
    kind = data.draw(
        st.sampled_from(["left", "hidden", "foreign", "flat", "link", "name", "loop", "deep"])
    )
    folder = root / data.draw(st.sampled_from(["", "ape", "bee/x"]))
    label = "harmful"
    note(kind)
    if kind == "left":
        label = "harmless"
        write(
            folder / data.draw(st.sampled_from(LEFT)), data.draw(st.sampled_from([b"", b"x", PNG]))
        )
    elif kind == "hidden":
        label = "harmless"
        write(folder / data.draw(st.sampled_from(HIDDEN_FOLDERS)) / "x.jpg", b"x")
    elif kind == "foreign":
        write(
            root / "ape" / data.draw(st.sampled_from(NEW)), data.draw(st.sampled_from([b"", b"BM"]))
        )
    elif kind == "flat":
        write(root / "x.png", PNG)
    elif kind == "link":
        target = data.draw(st.sampled_from(["nosuch", "../bee", "/dev/null", "x.jpg"]))
        (root / "ape/x.jpg").symlink_to(target)
        label = "harmful" if target != "/dev/null" else "harmless"
        if target == "/dev/null":
            target = "pipe"
    elif kind == "name":
        path = os.fsencode(root / "ape") + data.draw(
            st.sampled_from([b"/\xff.png", b"/\xc3\x28.jpg"])
        )
        Path(os.fsdecode(path)).write_bytes(PNG)
    elif kind == "loop":
        label = "harmless"
        (folder.mkdir(exist_ok=True), (folder / "loop").symlink_to(root))
    else:
        label = "harmless"
        (root / "/".join(["bee", *["x"] * data.draw(st.integers(1, 60))])).mkdir(parents=True)
    check(label, attempt("folder", corpus.read), corpus.expected)


def test_pillow_knows_the_formats():
    assert len(HARMFUL) > 40
