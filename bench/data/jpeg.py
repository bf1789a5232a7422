"""Fast decoding of the JPEGs that most data sets have; Pillow decodes the rest."""

from __future__ import annotations

import numpy as np
import simplejpeg
from numpy.typing import NDArray

START = b"\xff\xd8"  # ISO 10918-1, annex B
BASELINE = 0xC0  # the marker of a frame: sequential, 8 bits, Huffman
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers that begin a frame of any kind
SCAN = 0xDA
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
    if not _is_plain(content):
        return None
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(content)
        if colors not in COLORS or height * width > most:
            return None
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(content, COLORS[colors])
    except (ValueError, RuntimeError, MemoryError):
        return None
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, 2)


def _is_plain(content: bytes) -> bool:
    """Whether a JPEG's first frame is baseline, and no Adobe segment comes before it."""
    if not content.startswith(START):
        return False
    position = len(START)
    while content[position : position + 1] == b"\xff" and position + 4 <= len(content):
        marker = content[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
        elif marker in FRAMES:
            return marker == BASELINE
        elif marker in (ADOBE, SCAN):
            return False
        else:
            position += 2 + int.from_bytes(content[position + 2 : position + 4])
    return False
