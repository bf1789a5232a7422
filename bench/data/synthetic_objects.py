"""The objects in the rendered scenes: their classes, parts, surfaces and colors."""

from __future__ import annotations

import colorsys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.random import Generator
from PIL import Image, ImageDraw

VERSION: int = 2  # raised whenever a rendered byte may change

T = TypeVar("T")
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Kind:
    """Appearance of the objects of one class.

    Attributes:
        aspect: width / height, the middle of its range.
        hues: the usual hues, in [0, 1), of the tones "main" and "second".
        textures: the usual surfaces of these tones, out of `TEXTURES`.
        forms: the layouts of its parts, one text each. A text lists its parts back to front,
            separated by ";", and "|" separates alternatives, "-" being none. A part is a tone, a
            shape and its numbers in hundredths of the unit box, y down: `b` box (x0 y0 x1 y1), `o`
            oval (center x and y, radii), `p` polygon.
        aloft: the share of instances that are not on the ground.
    """

    aspect: float
    hues: tuple[tuple[float, ...], tuple[float, ...]]
    textures: tuple[str, ...]
    forms: tuple[str, ...]
    aloft: float = 0.0


# What makes a class is the layout of its parts: hues (0 red, .08 orange, .14 yellow, .33 green,
# .58 blue), textures and proportions are shared by several classes, and so are wheels and legs.
KINDS: dict[str, Kind] = {
    "bird": Kind(1.3, ((0.58, 0.07, 0.0), (0.6, 0.1)), ("fur", "grain"), ("""
        second p 30 60 0 50 3 72 | second p 30 60 0 34 6 58; dark p 45 80 50 80 47 100 42 100;
        dark p 55 80 60 80 60 100 55 100; main o 50 62 30 23; main o 78 40 13 17;
        accent p 88 33 100 42 88 48; dark o 81 36 3 4; second p 66 58 30 50 12 30 20 62 42 74
        | second p 66 60 44 46 16 0 12 20 34 66 | second p 66 58 36 50 8 60 22 72 46 76""",), 0.5),
    "boat": Kind(1.0, ((0.6, 0.02, 0.09), (0.13, 0.0, 0.55)), ("planks", "stripes", "plain"), ("""
        dark b 48 0 52 70; second p 54 4 54 62 96 62 | second p 54 14 54 62 84 56;
        light p 46 12 46 62 8 62 | light p 46 24 46 62 20 58 | -; main b 14 58 40 70 | - | -;
        main p 0 68 100 68 83 100 17 100 | main p 0 62 16 70 100 68 84 100 12 100;
        light p 2 68 98 68 95 75 5 75 | -""",)),
    "car": Kind(1.85, ((0.0, 0.6, 0.3), (0.6,)), ("plain", "plain", "stripes"), ("""
        main p 12 46 24 5 64 5 82 46; glass p 20 42 28 13 43 13 43 42;
        glass p 48 13 62 13 74 42 48 42; main p 0 50 5 44 88 44 100 56 100 84 0 84;
        accent b 93 56 100 68 | -; dark o 22 80 11 20; light o 22 80 4 8; dark o 77 80 11 20;
        light o 77 80 4 8""", """
        main p 4 46 6 8 60 5 78 46; glass p 11 42 12 15 32 14 32 42;
        glass p 37 14 58 13 70 42 37 42; main p 0 44 80 42 100 54 100 84 0 84;
        dark o 20 80 11 20; light o 20 80 4 8; dark o 79 80 11 20; light o 79 80 4 8""")),
    "chair": Kind(0.72, ((0.08, 0.33, 0.0), (0.1, 0.58)), ("planks", "checks", "plain"), ("""
        dark p 34 52 42 52 42 92 34 92; dark p 80 52 88 52 90 92 82 92;
        second p 6 60 6 4 40 0 40 52 | second p 6 60 0 0 34 0 40 52
        | second p 6 60 10 14 44 8 40 50; main p 4 60 30 46 100 46 86 60;
        main b 4 60 86 70; main b 5 66 16 100; main b 74 66 85 100""", """
        second b 12 0 24 60; second b 76 0 88 60; second b 20 6 80 18; second b 20 28 80 38 | -;
        main p 14 50 86 50 96 62 4 62; main b 4 62 96 70; main b 6 68 18 100; main b 82 68 94 100;
        dark b 24 68 32 90; dark b 68 68 76 90""")),
    "dog": Kind(1.25, ((0.09, 0.07, 0.58), (0.07, 0.1)), ("fur", "grain", "foliage"), ("""
        main p 17 45 0 14 7 8 25 40 | main p 17 42 0 60 2 70 22 54 | main p 17 45 8 6 16 4 26 40;
        dark p 22 60 32 60 38 98 28 98 | dark p 22 60 32 60 30 98 20 98;
        dark p 62 60 72 60 66 98 56 98 | dark p 62 60 72 60 76 98 66 98;
        main p 15 55 27 55 22 100 12 100 | main p 15 55 27 55 28 100 18 100;
        main p 56 55 67 55 72 100 62 100 | main p 56 55 67 55 64 100 54 100;
        main o 43 52 31 18; main p 58 50 68 20 84 30 70 60; main o 78 24 14 14;
        main p 80 18 100 25 98 34 80 36; dark o 97 28 3 4;
        second p 66 10 76 10 74 36 65 38 | second p 68 16 70 0 80 12""",)),
    "house": Kind(1.15, ((0.02, 0.13, 0.55), (0.03, 0.6, 0.33)), ("bricks", "planks"), ("""
        dark b 70 4 82 42 | dark b 20 4 30 42 | -; main b 7 42 93 100;
        second p 0 45 22 0 78 0 100 45 | second p 0 45 50 0 100 45; glass b 14 56 30 75;
        glass b 70 56 86 75 | -; dark b 40 64 57 100 | dark b 48 62 66 100""", """
        main b 7 40 60 100; second p 0 43 34 0 67 43; main b 60 56 96 100;
        second p 60 44 90 44 100 60 60 60; glass b 24 52 42 70; glass b 72 68 86 84 | -;
        dark b 14 72 30 100 | dark b 36 74 52 100""")),
    "lamp": Kind(0.42, ((0.6, 0.33, 0.1), (0.6, 0.02)), ("plain", "grain"), ("""
        main b 43 28 57 96; main p 20 100 34 90 66 90 80 100; main b 36 60 64 64 | -;
        accent p 8 9 92 9 78 30 22 30 | accent o 50 18 34 13 | accent p 24 9 76 9 84 30 16 30;
        second p 4 11 50 0 96 11; second b 18 28 82 33""",)),
    "person": Kind(0.45, ((0.0, 0.58, 0.33), (0.6, 0.1)), ("stripes", "checks", "plain"), ("""
        second p 30 55 52 55 44 100 24 100 | second p 30 55 52 55 28 100 8 100;
        second p 48 55 70 55 76 100 56 100 | second p 48 55 70 55 92 98 72 100;
        skin p 20 26 34 26 20 62 8 60 | skin p 20 36 34 28 10 4 0 8 | skin p 22 26 34 28 18 46 2 50;
        main p 24 23 76 23 72 60 28 60 | main p 24 23 76 23 84 76 16 76;
        skin p 66 26 80 26 92 60 80 62 | skin p 66 28 80 34 100 8 90 4
        | skin p 68 28 78 26 100 40 92 48; dark p 28 26 32 0 68 0 72 26 | -; skin o 50 12 18 10;
        dark p 30 12 34 2 50 0 66 2 70 12 50 6 | accent p 18 8 34 8 38 0 62 0 66 8 82 8""",)),
    "tree": Kind(0.75, ((0.3, 0.08, 0.36), (0.08, 0.06)), ("foliage", "foliage", "grain"), ("""
        second p 42 50 58 50 64 100 36 100; main o 28 42 26 18 | main o 22 40 22 16;
        main o 72 42 26 18; main o 50 50 26 18 | -; main o 38 22 24 20;
        main o 62 25 26 18 | main o 58 16 20 16""", """
        second b 42 70 58 100; main p 0 82 50 40 100 82; main p 10 58 50 18 90 58;
        main p 22 36 50 0 78 36""", """
        second p 44 40 56 40 60 100 40 100; main o 50 32 48 32 | main o 50 34 36 34""")),
    "truck": Kind(1.6, ((0.1, 0.58, 0.0), (0.33, 0.02, 0.6)), ("stripes", "planks", "plain"), ("""
        dark b 2 74 98 84;
        second b 0 0 60 76 | second b 0 20 60 76 | second p 0 44 60 44 56 76 8 76;
        main p 63 84 63 28 90 28 100 54 100 84 | main p 63 84 63 20 98 20 100 84;
        glass p 71 34 86 34 93 54 71 54; dark o 15 85 9 15; light o 15 85 3 5; dark o 36 85 9 15;
        light o 36 85 3 5; dark o 83 85 9 15; light o 83 85 3 5""",)),
}  # fmt: skip
CLASSES: tuple[str, ...] = tuple(KINDS)
# Distractors are of no class: plain solids here, and real parts in a wrong layout (`jumble`).
SOLIDS = (
    "main b 0 0 100 100; second b 20 40 80 60 | dark b 35 30 65 80 | -",
    "main o 50 50 50 50; second o 50 50 25 25 | second b 10 40 90 60 | -",
    "main p 0 100 50 0 100 100 | main p 0 100 20 0 80 0 100 100; light b 25 60 75 75 | -",
    "main p 10 95 0 50 22 12 60 0 96 30 100 80 70 100 | main p 0 80 30 20 50 40 80 0 100 90 60 100",
    "main b 0 0 20 100; main b 80 0 100 100; second b 0 10 100 28 | second b 0 50 100 66",
)
CIRCLE = np.exp(np.linspace(0, 2j * np.pi, 20, endpoint=False)).view(float).reshape(20, 2)


def pick(rng: Generator, options: Sequence[T]) -> T:
    """Draw one of the options, all as likely."""
    return options[int(rng.integers(len(options)))]  # rng.choice is ten times slower


@cache
def _parts(form: str) -> list[list[tuple[str, Array]]]:
    """Return the alternatives of each part: a tone and an outline (n, 2) in the unit box."""

    def outline(shape: str = "", *numbers: str) -> Array:
        xy = np.array(numbers, float).reshape(-1, 2) / 100
        if shape == "b":
            return np.array([xy[0], (xy[1, 0], xy[0, 1]), xy[1], (xy[0, 0], xy[1, 1])])
        return xy[0] + CIRCLE * xy[1] if shape == "o" else xy

    slots = [[text.split() for text in slot.split("|")] for slot in form.split(";")]
    return [[(word[0], outline(*word[1:])) for word in slot] for slot in slots]


def draw(rng: Generator, forms: Sequence[str]) -> list[tuple[str, Array]]:
    """Draw one instance: one of its forms, its alternatives, proportions and positions varied."""
    picked = [pick(rng, slot) for slot in _parts(pick(rng, forms))]
    stretch = np.exp(rng.normal(0, 0.1, 2))
    shifts = rng.normal(0, 0.012, (len(picked), 2))
    parts = zip(picked, shifts, strict=True)
    return [(t, np.maximum(xy, 0) ** stretch + shift) for (t, xy), shift in parts if len(xy)]


def jumble(rng: Generator) -> list[tuple[str, Array]]:
    """Put parts of three objects of random classes together in no order."""
    kinds = [KINDS[pick(rng, CLASSES)] for _ in range(3)]
    parts = [part for kind in kinds for part in draw(rng, kind.forms)[:: pick(rng, (2, 3, 4))]]
    return [(tone, xy - xy.mean(0) + rng.uniform(0.25, 0.75, 2)) for tone, xy in parts]


# Smooth noise: the cells, down and across, that are enlarged to a field of 512 x 512.
NOISES = {
    "grain": (256, 256),
    "fur": (64, 256),
    "foliage": (100, 100),
    "waves": (170, 24),
    "clouds": (12, 8),
}
# Patterns: (row, column, period) of pixels to relief in [-2, 2].
PATTERNS: dict[str, Callable[[Array, Array, int], Array]] = {
    "plain": lambda y, x, p: 0.0 * y,
    "stripes": lambda y, x, p: y // p % 2 * 2.0 - 1,
    "planks": lambda y, x, p: np.where(x % p == 0, -2.0, 0.3),
    "checks": lambda y, x, p: (y // p + x // p) % 2 * 2.0 - 1,
    "bricks": lambda y, x, p: np.where(
        (y % p == 0) | ((x + (y // p) % 2 * p) % (2 * p) == 0), -2.0, 0.4
    ),
}
TEXTURES = (*PATTERNS, *NOISES)


@cache
def _noise(name: str) -> Array:
    rng = np.random.default_rng([VERSION, zlib.crc32(name.encode())])
    cells = Image.fromarray(rng.standard_normal(NOISES[name], np.float32))
    smooth = np.asarray(cells.resize((512, 512), Image.Resampling.BICUBIC))
    field: Array = (smooth - smooth.mean()) / smooth.std()
    return field.clip(-2, 2)


def relief(rng: Generator, texture: str, rows: Array, columns: Array, period: int = 8) -> Array:
    """Return relief of about [-2, 2] at these pixels, of a texture that starts anywhere."""
    y, x = rng.integers(512, size=2)
    if texture in PATTERNS:
        return PATTERNS[texture](rows + y, columns + x, period)
    smooth: Array = _noise(texture)[(rows + y) % 512, (columns + x) % 512]
    return smooth


def color(hue: float, saturation: float, value: float) -> Array:
    """RGB (3,) in [0, 1] of a hue (taken modulo 1), saturation and value in [0, 1]."""
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


def palette(rng: Generator, kind: Kind) -> dict[str, tuple[Array, str, float]]:
    """Draw an object's color, texture and depth of relief for each tone, wide around the usual."""
    surfaces = {}
    for tone, hues in zip(("main", "second"), kind.hues, strict=True):
        hue = rng.random() if rng.random() < 0.15 else rng.normal(pick(rng, hues), 0.05)
        texture = pick(rng, kind.textures if rng.random() < 0.75 else TEXTURES)
        paint = color(hue, rng.uniform(0.15, 0.8), rng.uniform(0.4, 0.95))
        surfaces[tone] = (paint, texture, rng.uniform(0.05, 0.2))
    tint, value = rng.random(2)
    plain = {
        "dark": color(tint, 0.3, 0.1 + 0.15 * value),
        "light": color(tint, 0.1, 0.95 - 0.15 * value),
        "glass": color(rng.normal(0.57, 0.04), 0.3, rng.uniform(0.35, 0.95)),
        "accent": color(rng.normal(0.12, 0.1), rng.uniform(0.1, 0.7), rng.uniform(0.6, 1.0)),
        "skin": color(rng.normal(0.07, 0.01), rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.95)),
    }
    return surfaces | {tone: (paint, "grain", 0.04) for tone, paint in plain.items()}


def ink(outlines: Sequence[Array]) -> tuple[Array, Array, Array, Array]:
    """Return the rows and columns polygons (n, 2) cover, which is on top there, and contours."""
    points = np.concatenate(outlines)
    low = np.floor(points.min(0))
    width, height = (int(side) for side in np.ceil(points.max(0) - low) + 1)
    plan = Image.new("L", (width, height))
    pencil = ImageDraw.Draw(plan)
    for number, outline in enumerate(outlines, 1):
        pencil.polygon((outline - low).ravel().tolist(), fill=number, outline=number + 128)
    ink = np.asarray(plan)
    rows, columns = np.nonzero(ink)
    numbers = ink[rows, columns]
    return rows + int(low[1]), columns + int(low[0]), (numbers & 127) - 1, numbers > 128
