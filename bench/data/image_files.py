"""Images on disk: checked, fingerprinted and decoded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from bench.errors import UserError
from bench.runtime.fingerprint import digest

# (first bytes, what must be near the end): JPEG (ISO 10918-1 annex B), PNG (section 5)
FORMATS = {b"\xff\xd8\xff": b"\xff\xd9", b"\x89PNG\r\n\x1a\n": b"IEND"}
TAIL = 512  # cameras append a few bytes after the end marker
THREADS = 8


@dataclass(frozen=True)
class ImageFiles:
    """Some images below a folder, whole as far as their bytes tell.

    Attributes:
        root: the folder.
        files: paths below it, in a fixed order.
        fingerprint: SHA-256 of the names and contents, in that order.
        skipped: the damaged ones that were left out.
    """

    root: Path
    files: tuple[str, ...]
    fingerprint: str
    skipped: tuple[str, ...] = ()


def verify(
    root: Path,
    files: Sequence[str],
    damaged: Literal["stop", "skip"],
    advance: Callable[[int], None],
) -> ImageFiles:
    """Read every file once: check that it is a whole image, and fingerprint it.

    Args:
        root: the folder.
        files: paths below it.
        damaged: whether a damaged image raises an error or is left out.
        advance: called with 1 for each file read.

    Raises:
        UserError: an image is damaged and `damaged` is `stop`; or none is left.
    """
    kept: list[str] = []
    contents: list[str] = []
    skipped: list[str] = []
    with ThreadPoolExecutor(THREADS) as pool:
        inspected = pool.map(lambda name: _inspect(root / name), files)
        for name, (content, problem) in zip(files, inspected, strict=True):
            advance(1)
            if not problem:
                kept.append(name)
                contents.append(content)
            elif damaged == "skip":
                skipped.append(name)
            else:
                raise UserError(
                    f"{root / name}: {problem}; replace the image (an image folder may "
                    "leave it out with damaged = 'skip' in its data set)"
                )
    if not kept:
        raise UserError(f"{root}: has no readable image")
    return ImageFiles(root, tuple(kept), digest([kept, contents]), tuple(skipped))


def _inspect(path: Path) -> tuple[str, str]:
    """A file's SHA-256 and what is wrong with it, if anything."""
    try:
        content = path.read_bytes()
    except OSError as error:
        return "", f"cannot be read ({error.strerror})"
    for start, end in FORMATS.items():
        if content.startswith(start):
            whole = end in content[-TAIL:]
            return hashlib.sha256(content).hexdigest(), "" if whole else "is truncated"
    return "", "is neither JPEG nor PNG"


def read(path: Path) -> Tensor:
    """Decode an image: uint8 (3, H, W), RGB in [0, 255]; a gray one gets three equal channels."""
    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError):  # what Pillow raises for a damaged file
        raise UserError(f"{path}: cannot be decoded; replace the image") from None
    return torch.from_numpy(pixels).permute(2, 0, 1)


def resize_exact(image: Tensor, size: int) -> Tensor:
    """Resize uint8 (3, H, W) to (3, size, size), antialiased bilinear, the aspect not kept.

    Goyal et al. 2019 scale the short side to 256 and then stretch it to 224 x 224; the second step
    alone gives the same image but for one interpolation.
    """
    small: Tensor = transforms.resize(image, [size, size], antialias=True)
    return small
