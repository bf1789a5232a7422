"""Small synthetic scenes, rendered as a VOCdevkit tree and as an image folder for pretraining."""

from __future__ import annotations

import colorsys
import math
import multiprocessing
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.random import Generator
from PIL import Image, ImageDraw

VERSION: int = 1  # raised whenever a rendered byte may change
IGNORED = 255  # the mask's value for boundaries and for what is too hidden to name

T = TypeVar("T")
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Kind:
    """How the things of one class are drawn.

    Attributes:
        aspect: width / height, the middle of its range.
        hues: the usual hues, in [0, 1), of the tones "main" and "second".
        textures: the usual surfaces of these tones, out of `TEXTURES`.
        forms: the layouts of its parts, one text each. A text lists its parts back to front,
            separated by ";", and "|" separates alternatives, "-" being none. A part is a tone, a
            shape and its numbers in hundredths of the unit box, y down: `b` box (x0 y0 x1 y1), `o`
            oval (centre x and y, radii), `p` polygon.
        aloft: the share of instances that do not stand on the ground.
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
# Distractors are of no class: plain solids here, and real parts in a wrong layout (`_jumble`).
SOLIDS = (
    "main b 0 0 100 100; second b 20 40 80 60 | dark b 35 30 65 80 | -",
    "main o 50 50 50 50; second o 50 50 25 25 | second b 10 40 90 60 | -",
    "main p 0 100 50 0 100 100 | main p 0 100 20 0 80 0 100 100; light b 25 60 75 75 | -",
    "main p 10 95 0 50 22 12 60 0 96 30 100 80 70 100 | main p 0 80 30 20 50 40 80 0 100 90 60 100",
    "main b 0 0 20 100; main b 80 0 100 100; second b 0 10 100 28 | second b 0 50 100 66",
)
CIRCLE = np.exp(np.linspace(0, 2j * np.pi, 20, endpoint=False)).view(float).reshape(20, 2)


def _pick(rng: Generator, options: Sequence[T]) -> T:
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


def _draw(rng: Generator, forms: Sequence[str]) -> list[tuple[str, Array]]:
    """Draw one instance: one of its forms, alternatives chosen, proportions and places varied."""
    chosen = [_pick(rng, slot) for slot in _parts(_pick(rng, forms))]
    stretch = np.exp(rng.normal(0, 0.15, 2))
    shifts = rng.normal(0, 0.012, (len(chosen), 2))
    parts = zip(chosen, shifts, strict=True)
    return [(t, np.maximum(xy, 0) ** stretch + shift) for (t, xy), shift in parts if len(xy)]


def _jumble(rng: Generator) -> list[tuple[str, Array]]:
    """Put parts of three things of random classes together in no order."""
    kinds = [KINDS[_pick(rng, CLASSES)] for _ in range(3)]
    parts = [part for kind in kinds for part in _draw(rng, kind.forms)[:: _pick(rng, (2, 3, 4))]]
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


def _relief(rng: Generator, texture: str, rows: Array, columns: Array, period: int = 8) -> Array:
    """Return relief of about [-2, 2] at these pixels, of a texture that starts anywhere."""
    y, x = rng.integers(512, size=2)
    if texture in PATTERNS:
        return PATTERNS[texture](rows + y, columns + x, period)
    relief: Array = _noise(texture)[(rows + y) % 512, (columns + x) % 512]
    return relief


def _colour(hue: float, saturation: float, value: float) -> Array:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


def _palette(rng: Generator, kind: Kind) -> dict[str, tuple[Array, str, float]]:
    """Draw a thing's colour, texture and depth of relief for each tone, wide around the usual."""
    surfaces = {}
    for tone, hues in zip(("main", "second"), kind.hues, strict=True):
        hue = rng.random() if rng.random() < 0.15 else rng.normal(_pick(rng, hues), 0.05)
        texture = _pick(rng, kind.textures if rng.random() < 0.75 else TEXTURES)
        colour = _colour(hue, rng.uniform(0.15, 0.8), rng.uniform(0.4, 0.95))
        surfaces[tone] = (colour, texture, rng.uniform(0.05, 0.2))
    tint, value = rng.random(2)
    plain = {
        "dark": _colour(tint, 0.3, 0.1 + 0.15 * value),
        "light": _colour(tint, 0.1, 0.95 - 0.15 * value),
        "glass": _colour(rng.normal(0.57, 0.04), 0.3, rng.uniform(0.35, 0.95)),
        "accent": _colour(rng.normal(0.12, 0.1), rng.uniform(0.1, 0.7), rng.uniform(0.6, 1.0)),
        "skin": _colour(rng.normal(0.07, 0.01), rng.uniform(0.3, 0.6), rng.uniform(0.4, 0.95)),
    }
    return surfaces | {tone: (colour, "grain", 0.04) for tone, colour in plain.items()}


class Thing(NamedTuple):
    """A thing and its place: `name` is its class, or "" for a distractor.

    Its unit box, in canvas pixels, is `width` (negative if mirrored) by `height`, with the middle
    of its lower edge at (`x`, `y`). What is `aloft` throws no shadow there.
    """

    name: str
    x: float
    y: float
    width: float
    height: float
    aloft: bool


class Canvas:
    """A picture in the making, twice as fine as the finished one.

    Attributes:
        frame: where the picture is; the margin around it catches what its border cuts off.
        rgb: (h, w, 3) in [0, 1], margin included.
        owners: (h, w); 0, or k where the k-th object of a class is on top.
        objects: the class of each object so far, and the pixels it would show if nothing hid it.
    """

    def __init__(self, height: int, width: int) -> None:
        self.margin = margin = max(height, width)  # nothing reaches farther out
        self.frame = slice(margin, margin + height), slice(margin, margin + width)
        self.rgb = np.zeros((height + 2 * margin, width + 2 * margin, 3), np.float32)
        self.owners = np.zeros(self.rgb.shape[:2], np.uint8)
        self.objects: list[tuple[str, int]] = []

    def stand(self, rng: Generator, thing: Thing) -> None:
        """Paint `thing` over what is there, lit from above, with its shadow on the ground."""
        name, *foot, width, height, aloft = thing
        kind = KINDS[name or _pick(rng, CLASSES)]
        jumbled = not name and rng.random() < 0.5
        parts = _jumble(rng) if jumbled else _draw(rng, kind.forms if name else SOLIDS)
        sine, cosine = math.sin(angle := math.radians(rng.uniform(-8, 8))), math.cos(angle)
        turn, place = np.array([[cosine, sine], [-sine, cosine]]), np.array(foot) + self.margin
        outlines = [(xy - (0.5, 1)) * (width, height) @ turn + place for _, xy in parts]
        if not aloft:
            rows, columns, *_ = _ink([CIRCLE * (0.55 * width, 0.06 * height + 1) + place])
            self.rgb[rows, columns] *= np.float32(0.6)
        rows, columns, part, contour = _ink(outlines)
        tops, bottoms = (np.array([side(xy[:, 1]) for xy in outlines]) for side in (min, max))
        light = 1.2 - 0.4 * ((rows - tops[part]) / (bottoms - tops)[part])
        light[contour] *= 0.75
        palette, period = _palette(rng, kind), max(3, round(height * rng.uniform(0.08, 0.14)))
        colours, textures, depths = zip(*(palette[tone] for tone, _ in parts), strict=True)
        for texture in dict.fromkeys(textures):
            same = np.array([other == texture for other in textures])[part]
            relief = _relief(rng, texture, rows[same], columns[same], period)
            light[same] *= 1 + np.array(depths)[part[same]] * relief
        self.rgb[rows, columns] = np.minimum(light[:, None] * np.stack(colours)[part], 1)
        self.owners[rows, columns] = len(self.objects) + 1 if name else 0
        if name:
            self.objects.append((name, len(rows)))


def _ink(outlines: Sequence[Array]) -> tuple[Array, Array, Array, Array]:
    """Return the rows and columns polygons (n, 2) cover, which is on top there, and contours."""
    points = np.concatenate(outlines)
    low = np.floor(points.min(0))
    width, height = (int(side) for side in np.ceil(points.max(0) - low) + 1)
    plan = Image.new("L", (width, height))
    draw = ImageDraw.Draw(plan)
    for number, outline in enumerate(outlines, 1):
        draw.polygon((outline - low).ravel().tolist(), fill=number, outline=number + 128)
    ink = np.asarray(plan)
    rows, columns = np.nonzero(ink)
    numbers = ink[rows, columns]
    return rows + int(low[1]), columns + int(low[0]), (numbers & 127) - 1, numbers > 128


def _backdrop(rng: Generator, view: Array, horizon: int) -> None:
    """Paint the sky, what stands at the horizon, and textured ground on `view` (h, w, 3)."""
    shape = height, width = view.shape[:2]
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    dimming = np.linspace(1.1, 0.8, height, dtype=np.float32)[:, None]

    def fill(top: Array, bottom: float, colour: Array, texture: str, period: int = 8) -> None:
        inside = np.broadcast_to((rows >= top) & (rows < bottom), shape)
        relief = 1 + np.float32(rng.uniform(0.03, 0.12)) * _relief(
            rng, texture, rows, columns, period
        )
        view[inside] = (relief * dimming)[inside][:, None] * colour

    def paint() -> Array:
        return _colour(rng.random(), rng.uniform(0.1, 0.5), rng.uniform(0.45, 0.8))

    hue = rng.normal(*_pick(rng, ((0.57, 0.03), (0.57, 0.03), (0.07, 0.03))))
    zenith, haze = _colour(hue, rng.uniform(0.2, 0.6), 0.9), _colour(hue, 0.1, 0.95)
    view[:] = zenith + (haze - zenith) * np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    view += np.float32(rng.uniform(0, 0.06)) * _relief(rng, "clouds", rows, columns)[..., None]
    between, edge = _pick(rng, ("plain", "hills", "wall", "water")), np.array(horizon)
    if between == "hills":
        for rise in rng.uniform((0.3, 0.1), (0.5, 0.3)):
            waves = 1 + np.sin(columns / width * rng.uniform(3, 9) + rng.uniform(0, 6))
            fill(horizon - rise * horizon * waves, horizon, paint(), "foliage")
    elif between == "wall":
        pattern, period = _pick(rng, ("bricks", "planks")), int(rng.integers(8, 18))
        fill(edge * rng.uniform(-0.5, 0.7), horizon, paint(), pattern, period)
    earth = rng.normal(_pick(rng, (0.3, 0.1, 0.13, 0.6, 0.05)), 0.03)
    soil = _colour(earth, rng.uniform(0.1, 0.5), rng.uniform(0.4, 0.7))
    cover = _pick(rng, ("fur", "grain", "foliage", "checks", "bricks", "waves"))
    fill(edge, height, soil, cover, int(rng.integers(6, 20)))
    if between == "water":
        lake = _colour(rng.normal(0.55, 0.04), rng.uniform(0.2, 0.6), rng.uniform(0.5, 0.8))
        fill(edge, horizon * rng.uniform(1.1, 1.4), lake, "waves")


def _place(
    rng: Generator, name: str, scale: float, shape: Sequence[int], things: list[Thing]
) -> Thing:
    """Stand a thing, its mean side `scale` of the longer side, where the others leave room."""
    height, width, horizon = shape
    aspect = (KINDS[name].aspect if name else rng.uniform(0.4, 1.9)) * rng.uniform(0.85, 1.18)
    aloft = rng.random() < (KINDS[name].aloft if name else 0.12)
    high = horizon + 0.08 * height
    y = rng.uniform(0.25 * height, high) if aloft else rng.uniform(high, 1.01 * height)
    root = math.sqrt(aspect)
    side = max(height, width) * min(scale, 0.8 / max(root, 1 / root))
    y = max(y, 0.9 * side / root)  # the top edge cuts off little: heads and roofs tell the class

    def crowding(x: float) -> float:
        room = ((abs(other.width) + side * root) / 2 - abs(x - other.x) for other in things)
        return sum(max(0.0, overlap) for overlap in room)

    x = min((rng.uniform(0.12, 0.88, 3) * width).tolist(), key=crowding)
    return Thing(name, x, y, _pick(rng, (-1, 1)) * side * root, side / root, aloft)


def _compose(rng: Generator, lead: str, size: int, portrait: bool) -> Canvas:
    """Paint a scene: in a portrait `lead` is large and central, else one of up to five objects."""
    short = size if portrait else round(size * rng.uniform(0.75, 1.0))
    height, width = (2 * int(side) for side in rng.permutation((short, size)))
    shape = height, width, int(height * rng.uniform(0.35, 0.6))
    canvas = Canvas(height, width)
    _backdrop(rng, canvas.rgb[canvas.frame], shape[2])
    others = _pick(rng, (0, 1, 2) if portrait else (0, 1, 1, 2, 2, 3, 3, 4, 4))
    cast = [_pick(rng, CLASSES) for _ in range(others)] + [""] * int(rng.integers(0, 4))
    low, high = (0.14, 0.3) if portrait else (0.22, 0.66)
    scales = [low * (high / low) ** float(share) for share in rng.random(len(cast) + 1)]
    first = _place(rng, lead, rng.uniform(0.48, 0.75) if portrait else scales[0], shape, [])
    if portrait:
        x, y = width * rng.normal(0.5, 0.06), height * rng.normal(0.5, 0.04) + first.height / 2
        first = first._replace(x=x, y=y)
    things = [first]
    for name, scale in zip(cast, scales[1:], strict=True):
        things.append(_place(rng, name, scale, shape, things))
    for thing in sorted(things, key=lambda thing: (not thing.aloft, thing.y)):
        canvas.stand(rng, thing)
    return canvas


def _develop(rng: Generator, canvas: Canvas) -> Image.Image:
    """Return the picture a cheap camera takes at this hour: downscaled, tinted and noisy."""
    fine = canvas.rgb[canvas.frame]
    rgb = (fine[::2, ::2] + fine[1::2, ::2] + fine[::2, 1::2] + fine[1::2, 1::2]) / 4
    hour = _pick(rng, ((1, 1, 1), (1, 0.8, 0.66), (0.8, 0.88, 1)))
    light = np.array(hour, np.float32) * np.float32(rng.uniform(0.7, 1.1))
    rgb = ((rgb - 0.5) * np.float32(rng.uniform(0.7, 1.15)) + 0.5) * light
    rgb += np.float32(rng.uniform(0.01, 0.04)) * rng.standard_normal(rgb.shape, np.float32)
    return Image.fromarray((np.clip(rgb, 0, 1) * 255 + 0.5).astype(np.uint8))


class Instance(NamedTuple):
    """An annotated object; its box is in pixels, counted from 1, the last ones included."""

    name: str
    truncated: int
    difficult: int
    xmin: int
    ymin: int
    xmax: int
    ymax: int


def _annotate(canvas: Canvas) -> tuple[list[Instance], Array]:
    """Return the objects one can see, and the segmentation mask (h, w)."""
    fine = canvas.owners[canvas.frame]
    owners = fine[::2, ::2]
    values, instances = np.zeros(256, np.uint8), []
    for owner, (name, area) in enumerate(canvas.objects, 1):
        ys, xs = np.nonzero(owners == owner)
        shown = np.count_nonzero(fine == owner)
        if shown < 0.1 * area or not len(ys):
            values[owner] = IGNORED
            continue
        values[owner] = 1 + CLASSES.index(name)
        truncated = np.count_nonzero(canvas.owners == owner) - shown > 0.02 * area
        x0, y0, x1, y1 = (int(side) for side in (xs.min(), ys.min(), xs.max(), ys.max()))
        difficult = shown < 0.35 * area or min(x1 - x0, y1 - y0) < 7
        box = (x0 + 1, y0 + 1, x1 + 1, y1 + 1)
        instances.append(Instance(name, int(truncated), int(difficult), *box))
    mask = values[owners]
    across, down = owners[:, 1:] != owners[:, :-1], owners[1:] != owners[:-1]
    mask[:, 1:][across] = mask[:, :-1][across] = IGNORED
    mask[1:][down] = mask[:-1][down] = IGNORED
    return instances, mask


@cache
def _colour_map() -> bytes:
    """Return VOC's 256 colours of 3 bytes: bit 3k + c of the index is bit 7 - k of channel c."""
    bits = [[(i >> 3 * k + c & 1) << 7 - k for k in range(3)] for i in range(256) for c in range(3)]
    return bytes(map(sum, bits))


def _xml(name: str, size: tuple[int, int], instances: Sequence[Instance]) -> str:
    def tag(name: str, **values: object) -> str:
        return f"<{name}>" + "".join(f"<{k}>{v}</{k}>" for k, v in values.items()) + f"</{name}>"

    lines = ["<annotation>", f"<folder>VOC2007</folder><filename>{name}.jpg</filename>"]
    lines += [tag("size", width=size[0], height=size[1], depth=3), "<segmented>1</segmented>"]
    for label, truncated, difficult, *box in instances:
        bounds = dict(zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
        lines += ["<object>", f"<name>{label}</name><pose>Unspecified</pose>"]
        lines += [f"<truncated>{truncated}</truncated><difficult>{difficult}</difficult>"]
        lines += [tag("bndbox", **bounds), "</object>"]
    return "\n".join([*lines, "</annotation>", ""])


class Job(NamedTuple):
    """One picture to render: its split, its place there from 0, and its number in its folder."""

    split: str
    place: int
    number: int


Labels = dict[Job, dict[str, int]]  # per picture and class: 1, or 0 if all instances are difficult


def _picture(root: Path, seed: int, size: int, job: Job) -> dict[str, int]:
    """Render one picture and what belongs to it below `root`; return its labels."""
    rng = np.random.default_rng([VERSION, seed, zlib.crc32(job.split.encode()), job.place])
    lead, name = CLASSES[job.place % len(CLASSES)], f"{job.number:06d}"
    canvas = _compose(rng, lead, size, portrait=job.split == "corpus")
    picture, voc = _develop(rng, canvas), root / "VOCdevkit" / "VOC2007"
    folder = root / "corpus" / lead if job.split == "corpus" else voc / "JPEGImages"
    picture.save(folder / f"{name}.jpg", quality=92, subsampling=0)
    if job.split == "corpus":
        return {lead: 1}
    instances, values = _annotate(canvas)
    mask = Image.fromarray(values)
    mask.putpalette(_colour_map())
    mask.save(voc / "SegmentationClass" / f"{name}.png")
    (voc / "Annotations" / f"{name}.xml").write_text(_xml(name, picture.size, instances))
    easy = {instance.name for instance in instances if not instance.difficult}
    return {instance.name: int(instance.name in easy) for instance in instances}


def _pictures(root: Path, seed: int, size: int, jobs: Sequence[Job]) -> Labels:
    return {job: _picture(root, seed, size, job) for job in jobs}


def _spread(
    root: Path, seed: int, size: int, chunks: Sequence[Sequence[Job]], workers: int
) -> Iterator[Labels]:
    """Yield the labels of each chunk as it is finished, over at most `workers` processes."""
    workers = min(workers, len(chunks))
    if workers <= 1:
        yield from (_pictures(root, seed, size, chunk) for chunk in chunks)
        return
    spawn = multiprocessing.get_context("spawn")  # forking a process with torch's threads may hang
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        tasks = [pool.submit(_pictures, root, seed, size, chunk) for chunk in chunks]
        yield from (task.result() for task in as_completed(tasks))


def _write_lists(voc: Path, split: str, labels: dict[str, dict[str, int]]) -> None:
    sets = voc / "ImageSets"
    for folder in (sets / "Main", sets / "Segmentation"):
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in labels))
    for label in CLASSES:
        lines = [f"{name} {found.get(label, -1):2d}\n" for name, found in labels.items()]
        (sets / "Main" / f"{label}_{split}.txt").write_text("".join(lines))


def render(
    root: Path,
    *,
    seed: int,
    size: int,
    corpus: int,
    train: int,
    test: int,
    workers: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> None:
    """Render `root/VOCdevkit/VOC2007` and `root/corpus/<class>`.

    Every picture depends only on `VERSION`, the seed, the size, its split and its place there.

    Args:
        root: an empty or absent folder.
        seed: any integer >= 0.
        size: the side of a corpus picture and the longer side of a VOC picture, in pixels.
        corpus: pictures to pretrain on, spread evenly over the classes.
        train: pictures of the split `trainval`.
        test: pictures of the split `test`.
        workers: processes; all processors if None, this process alone if 1.
        advance: called here with the number of pictures that have become ready.
    """
    voc = root / "VOCdevkit" / "VOC2007"
    parts = ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main")
    for folder in (*parts, "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True, exist_ok=True)
    for name in CLASSES:
        (root / "corpus" / name).mkdir(parents=True, exist_ok=True)
    jobs = [Job("trainval", i, i + 1) for i in range(train)]
    jobs += [Job("test", i, train + i + 1) for i in range(test)]
    jobs += [Job("corpus", i, i + 1) for i in range(corpus)]
    chunks = [jobs[start : start + 32] for start in range(0, len(jobs), 32)]
    labels: Labels = {}
    for done in _spread(root, seed, size, chunks, workers or os.cpu_count() or 1):
        labels.update(done)
        if advance:
            advance(len(done))
    for split in ("trainval", "test"):
        ordered = {f"{job.number:06d}": labels[job] for job in jobs if job.split == split}
        _write_lists(voc, split, ordered)
