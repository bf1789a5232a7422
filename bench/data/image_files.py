"""Images on disk: opened, checked, fingerprinted and decoded, for every use in one way.

A file is used if `to_rgb` gives its stored colors: 8-bit RGB, gray and palette images; 1, 2, 4 and
16-bit ones, scaled by their full range; CMYK, as Pillow converts it; images with an alpha channel
that hides nothing. Everything else is refused by name. An EXIF orientation is not applied, and
counted. Gamma (gAMA) and color profiles (ICC) are not applied: torchvision and detectron2, which
read images by Pillow too, do not either.
"""

from __future__ import annotations

import hashlib
import io
import stat
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from bench.data import jpeg
from bench.data.manifest import FileNames, Inspection, inspections
from bench.errors import UserError
from bench.runtime.fingerprint import digest

JPEG = b"\xff\xd8\xff"  # first bytes (ISO 10918-1 annex B)
END_OF_IMAGE = b"\xff\xd9"
START_OF_SCAN = 0xDA
PNG = b"\x89PNG\r\n\x1a\n"  # first bytes (PNG specification, section 5)
END_CHUNK = b"\0\0\0\0IEND\xaeB`\x82"
DEPTH = 24  # place of the bit depth in a PNG
FORMATS = ("JPEG", "PNG")
ALPHA = ("LA", "PA", "RGBA")
SIXTEEN_BITS = ("I", "I;16", "I;16B", "I;16L")  # what Pillow's versions call a 16-bit gray PNG
MODES = ("1", "L", "P", "RGB", "CMYK", *ALPHA, *SIXTEEN_BITS)
MAX_BYTES = 2**28
MAX_PIXELS = 2**30 // 12  # above it Pillow warns of a decompression bomb
DAMAGED_SHARE = 0.01  # of the images of a folder, at most, may be damaged and skipped
ORIENTATION = 0x0112  # EXIF tag
UPRIGHT = 1  # 0 where it is not given

T = TypeVar("T")
Decoder = Literal["pillow", "torchcodec"]

# `_decoded` refuses such images by name.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageError(Exception):
    """What is wrong with an image, in words that follow its name."""


class UndecodableError(ImageError):
    """What is wrong with the content of a file that can be read, so that it is no image."""


@dataclass(frozen=True)
class ImageFiles:
    """Some images below a folder, whole as far as their bytes tell.

    Attributes:
        root: the folder.
        files: paths below it, in a fixed order.
        fingerprint: SHA-256 of the names and contents, in that order.
        skipped: the damaged ones that were left out.
        damaged: whether one that cannot be decoded stops a training run or is skipped.
        decoder: of plain JPEGs.
        contents: uint64 (N,), the first bytes of each content's SHA-256.
        sizes: int32 (N, 2), width and height of each as it is stored, pixels.
        orientations: uint8 (N,), the EXIF orientation of each; 0 where it has none.
    """

    root: Path
    files: Sequence[str]
    fingerprint: str
    skipped: tuple[str, ...] = ()
    damaged: Literal["stop", "skip"] = "stop"
    decoder: Decoder = "pillow"
    contents: NDArray[np.uint64] = field(
        default_factory=lambda: np.empty(0, np.uint64), compare=False, repr=False
    )
    sizes: NDArray[np.int32] = field(
        default_factory=lambda: np.empty((0, 2), np.int32), compare=False, repr=False
    )
    orientations: NDArray[np.uint8] = field(
        default_factory=lambda: np.empty(0, np.uint8), compare=False, repr=False
    )


def verify(
    root: Path,
    files: Sequence[str],
    damaged: Literal["stop", "skip"],
    advance: Callable[[int], None],
    manifests: Path | None = None,
    decoder: Decoder = "pillow",
) -> ImageFiles:
    """Check that files are images that can be used, and fingerprint them.

    Args:
        root: the folder.
        files: paths below it.
        damaged: whether an image that cannot be used raises an error or is left out.
        advance: called with the number of files that are done.
        manifests: the folder of what earlier starts have read, see `data.manifest`; without it,
            every file is read.
        decoder: of plain JPEGs; one that is not the default is in the fingerprint.

    Raises:
        UserError: an image cannot be used and `damaged` is `stop`; too many cannot; or the decoder
            is not installed.
    """
    own = ["torchcodec", jpeg.torchcodec_version()] if decoder == "torchcodec" else []
    names = FileNames.of(files)

    def inspect(name: str) -> Inspection:
        inspection = _inspect(root, name)
        if inspection.problem and damaged == "stop":
            raise refusal(root / name, inspection.problem)
        return inspection

    found = inspections(root, names, inspect, advance, manifests)
    kept = found.without_problems()
    if not len(kept):
        raise UserError(f"{root}: has no readable image")
    check_damaged(root, len(found.problems), len(names))
    everything = len(kept) == len(names)
    return ImageFiles(
        root,
        found.names if everything else found.names.take(kept),
        digest([found.fingerprint, *own]) if own else found.fingerprint,
        tuple(found.names[position] for position in found.problems),
        damaged,
        decoder,
        contents=_first_bytes(found.contents)[kept],
        sizes=found.sizes[kept],
        orientations=found.orientations[kept],
    )


def refusal(path: Path, problem: str) -> UserError:
    """The error for an image that cannot be used, where one might be skipped."""
    return UserError(
        f"{path}: {problem}; replace the image (an image folder may leave it out with damaged = "
        "'skip' in its data set)"
    )


def check_damaged(root: Path, damaged: int, total: int) -> None:
    """Refuse a folder of which more than 1% is damaged, and more than one image.

    Args:
        root: the folder.
        damaged: images of it that cannot be used.
        total: all of its images.

    Raises:
        UserError: names the folder.
    """
    if damaged > max(1, DAMAGED_SHARE * total):
        raise UserError(
            f"{root}: {damaged:,} of {total:,} images are damaged, more than "
            f"{DAMAGED_SHARE:.0%}; replace them (bench data verify names those of known data sets)"
        )


def _first_bytes(contents: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The first eight bytes of each digest, uint8 (N, 32), as a number, uint64 (N,)."""
    return np.ascontiguousarray(contents[:, :8]).view(">u8")[:, 0].astype(np.uint64)


def _inspect(root: Path, name: str) -> Inspection:
    """Read a file whole, and its header as an image."""
    try:
        name.encode()
        content = read_bytes(root / name, MAX_BYTES)
        if not content.startswith((JPEG, PNG)):
            raise ImageError("is neither JPEG nor PNG")
        if not _is_whole(content):
            raise ImageError("is truncated")
        size, orientation = _decoded(io.BytesIO(content), _header)
    except UnicodeEncodeError:  # no record could hold it
        return Inspection(problem="has a name that is not UTF-8: rename it")
    except ImageError as problem:
        return Inspection(problem=str(problem))
    return Inspection(hashlib.sha256(content).hexdigest(), size, orientation)


def problem_of(root: Path, name: str) -> str:
    """What is wrong with an image, of which every pixel is decoded; empty if nothing is.

    Args:
        root: a folder.
        name: path of the image below it.
    """
    inspection = _inspect(root, name)
    if inspection.problem:
        return inspection.problem
    try:
        _decoded(root / name, lambda image: to_rgb(image).load())
    except ImageError as problem:
        return str(problem)
    return ""


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a regular file of at most `most` bytes.

    Raises:
        ImageError: there is none, it is none or it is larger.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("cannot be read (not a regular file)")
        if status.st_size > most:
            raise ImageError(f"is larger than {most / 2**20:,.0f} MB")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read ({error.strerror})") from None
    except ValueError:
        raise ImageError("has a name that no file can have") from None


def _is_whole(content: bytes) -> bool:
    """Whether a JPEG or PNG has its end; bytes that follow it do not matter."""
    if content.startswith(JPEG):
        return content.endswith(END_OF_IMAGE) or _jpeg_ends(content)
    return content.endswith(END_CHUNK) or _png_ends(content)


def _jpeg_ends(content: bytes) -> bool:
    """Whether an end marker follows the first scan.

    The segments before it are passed over, as a thumbnail in one of them has an end of its own.
    """
    position = 2
    while content[position : position + 1] == b"\xff":
        marker = content[position + 1 : position + 2]
        if marker == b"\xff":  # a fill byte
            position += 1
            continue
        position += 2 + int.from_bytes(content[position + 2 : position + 4])
        if marker == bytes([START_OF_SCAN]):
            return content.find(END_OF_IMAGE, position) >= 0
    return False


def _png_ends(content: bytes) -> bool:
    """Whether the chunks go on to the last one."""
    position = len(PNG)
    while len(content) >= position + len(END_CHUNK):
        if content[position + 4 : position + 8] == b"IEND":
            return True
        position += int.from_bytes(content[position : position + 4]) + len(END_CHUNK)
    return False


def decode(path: Path, use: Callable[[Image.Image], T]) -> T:
    """What a function makes of an opened image.

    Args:
        path: of the image.
        use: is given it; may raise `ImageError`.

    Raises:
        UserError: the file cannot be used; one line that names it.
    """
    try:
        if not path.is_file():
            read_bytes(path, 0)
        return _decoded(path, use)
    except ImageError as problem:
        raise UserError(f"{path}: {problem}; replace the image") from None


def _decoded(source: Path | io.BytesIO, use: Callable[[Image.Image], T]) -> T:
    """`decode`, of a file or its content; every image is opened here.

    Its samples are used as they are stored. No gamma (gAMA) and no color profile (ICC) is applied.
    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(_too_large(f"{image.width} x {image.height}"))
            if image.mode not in MODES:
                raise ImageError(f"has pixels of an unknown kind ({image.mode})")
            if image.format == "PNG" and getattr(image, "is_animated", False):
                raise ImageError("is animated")
            if image.format == "PNG":
                _check_significant_bits(image)
            return use(image)
    except (ImageError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise ImageError(_too_large("it")) from None
    except Exception:  # a damaged file makes Pillow raise nearly anything
        raise ImageError("cannot be decoded") from None


def _check_significant_bits(image: Image.Image) -> None:
    """Refuse a 16-bit PNG whose sBIT chunk says that fewer bits carry the image.

    Writers differ in whether such samples span the full range.
    """
    stream = image.fp  # type: ignore[attr-defined] # of an open file
    place = stream.tell()
    stream.seek(0)
    deep = stream.read(DEPTH + 1)[DEPTH] == 16
    stream.seek(len(PNG))
    while deep and len(head := stream.read(8)) == 8 and head[4:] != b"IDAT":
        length = int.from_bytes(head[:4])
        if head[4:] == b"sBIT":
            bits = min(stream.read(min(length, 4)), default=16)
            if bits < 16:
                raise ImageError(f"has 16 bits of which {bits} are significant (sBIT)")
            break
        stream.seek(length + 4, io.SEEK_CUR)
    stream.seek(place)


def _too_large(size: str) -> str:
    return f"has too many pixels ({size} is more than {MAX_PIXELS / 1e6:.0f} million)"


def _header(image: Image.Image) -> tuple[tuple[int, int], int]:
    """Size and EXIF orientation; pixels are decoded only where some may be transparent."""
    if _may_be_transparent(image):
        to_rgb(image)
    orientation = image.getexif().get(ORIENTATION, 0) if "exif" in image.info else 0
    known = isinstance(orientation, int) and 0 <= orientation <= 8
    return image.size, orientation if known else 0


def _may_be_transparent(image: Image.Image) -> bool:
    return image.mode in ALPHA or "transparency" in image.info


def to_rgb(image: Image.Image) -> Image.Image:
    """An opened image in 8-bit RGB; a gray one gets three equal channels.

    Raises:
        ImageError: some pixels are transparent, so their colors are not defined.
    """
    if image.mode in SIXTEEN_BITS:
        return _from_sixteen_bits(image)
    if _may_be_transparent(image) and _alpha(image) < 255:
        raise ImageError("has transparent pixels, whose color is not defined")
    return image if image.mode == "RGB" else image.convert("RGB")


def _alpha(image: Image.Image) -> float:
    """The smallest alpha of all pixels; 255 for a visible one."""
    lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
    assert isinstance(lowest, int | float)
    return lowest


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    """A 16-bit gray image in RGB: the upper byte, as Pillow reads a 16-bit RGB image."""
    levels = np.array(image)
    if np.any(levels == image.info.get("transparency", -1)):
        raise ImageError("has transparent pixels, whose color is not defined")
    return Image.fromarray((levels >> 8).astype(np.uint8)).convert("RGB")


def read(path: Path, decoder: Decoder = "pillow") -> Tensor:
    """Decode an image: uint8 (3, H, W), RGB in [0, 255]; a gray one gets three equal channels.

    Args:
        path: of the file.
        decoder: of plain JPEGs.

    Raises:
        UserError: the file cannot be used as an image.
    """
    try:
        return read_pixels(path, decoder)
    except ImageError as problem:
        raise UserError(f"{path}: {problem}; replace the image") from None


def read_pixels(path: Path, decoder: Decoder = "pillow") -> Tensor:
    """`read`, for callers that go on without an image.

    Raises:
        UndecodableError: its content cannot be used.
        ImageError: the file cannot be read.
    """
    content = read_bytes(path, MAX_BYTES)
    if decoder == "torchcodec" and jpeg.is_plain(content, MAX_PIXELS):
        images = jpeg.decode_together([content], torch.device("cpu"))
        if images is not None:
            return images[0]
    pixels = jpeg.decode(content, MAX_PIXELS)
    if pixels is None:
        try:
            pixels = _decoded(io.BytesIO(content), lambda image: np.array(to_rgb(image)))
        except ImageError as problem:
            raise UndecodableError(str(problem)) from None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def resize_exact(image: Tensor, size: int) -> Tensor:
    """Resize uint8 (3, H, W) to (3, size, size), antialiased bilinear, the aspect not kept.

    Goyal et al. 2019 scale the short side to 256 and then stretch it to 224 x 224; the second step
    alone gives the same image but for one interpolation.
    """
    small: Tensor = transforms.resize(image, [size, size], antialias=True)
    return small
