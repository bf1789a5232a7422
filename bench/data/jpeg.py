"""Fast decoding of the JPEGs that most data sets have; Pillow decodes the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version

import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.errors import UserError

START = b"\xff\xd8"  # ISO 10918-1, annex B
BASELINE = 0xC0  # the marker of a frame: sequential, 8 bits, Huffman
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers that begin a frame of any kind
SCAN = 0xDA
EXIF = 0xE1  # an application's segment that may have an orientation
UNKNOWN = 0xEF  # one that decoders pass over
ADOBE = 0xEE  # an application's segment that says how colors are stored
COLORS = {"YCbCr": "RGB", "Gray": "GRAY"}  # how colors are stored -> what to ask for


def decode(content: bytes, most: int) -> NDArray[np.uint8] | None:
    """The pixels of a baseline JPEG in YCbCr or gray, as Pillow gives them.

    Both call libjpeg-turbo with the slow, exact transform and smooth upsampling of colors.

    Args:
        content: of the file.
        most: the largest number of pixels.

    Returns:
        uint8 (H, W, 3), RGB; a gray image has three equal channels. None for everything else and on
        any error or warning of the decoder: Pillow then decides.
    """
    colors = _colors(content, most)
    if not colors:
        return None
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(content, colors)
    except (ValueError, RuntimeError, MemoryError):
        return None
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, 2)


def torchcodec_version() -> str:
    """The version of torchcodec, which must be installed and fit torch.

    Raises:
        UserError: it is not, or does not.
    """
    try:
        import torchcodec.decoders  # noqa: F401 - whether it is there
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(
            "decoder = 'torchcodec' of a data set needs torchcodec; run pip install "
            f"'ssl-gap[gpu-decode]' ({type(error).__name__})"
        ) from None
    return version("torchcodec")


def decode_together(contents: Sequence[bytes], device: torch.device) -> list[Tensor] | None:
    """The pixels of plain JPEGs by torchcodec: on a GPU by nvJPEG, all in one call.

    An EXIF orientation is not applied.

    Args:
        contents: of files, for each of which `is_plain` is true.
        device: where to decode.

    Returns:
        Each uint8 (3, H, W), RGB, on the device. None where it cannot decode one of them.
    """
    from torchcodec.decoders import decode_jpeg

    try:
        images: list[Tensor] = decode_jpeg(
            [_unoriented(content) for content in contents], mode="RGB", device=device
        )
    except RuntimeError:
        return None
    return images


def is_plain(content: bytes, most: int) -> bool:
    """Whether a file is a baseline JPEG in YCbCr or gray, of `most` pixels or fewer."""
    return bool(_colors(content, most))


def _colors(content: bytes, most: int) -> str:
    """The colors to ask simplejpeg for, of a plain JPEG; empty for everything else."""
    if not _is_baseline(content):
        return ""
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(content)
    except (ValueError, RuntimeError, MemoryError):
        return ""
    return COLORS.get(colors, "") if height * width <= most else ""


def _is_baseline(content: bytes) -> bool:
    """Whether a JPEG's first frame is baseline, and no Adobe segment comes before it."""
    for _, marker in _segments(content):
        if marker in FRAMES:
            return marker == BASELINE
        if marker in (ADOBE, SCAN):
            return False
    return False


def _unoriented(content: bytes) -> bytes:
    """A JPEG whose EXIF segments, with the orientation in them, are not recognized as such."""
    changed = bytearray(content)
    for position, marker in _segments(content):
        if marker == EXIF:
            changed[position] = UNKNOWN
    return bytes(changed)


def _segments(content: bytes) -> Iterator[tuple[int, int]]:
    """Place and value of the markers of a JPEG, up to that of the first scan."""
    if not content.startswith(START):
        return
    position = len(START)
    while content[position : position + 1] == b"\xff" and position + 4 <= len(content):
        marker = content[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        yield position + 1, marker
        if marker == SCAN:
            return
        position += 2 + int.from_bytes(content[position + 2 : position + 4])
