"""Small synthetic scenes, rendered as a VOCdevkit tree and as an image folder for pretraining."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image

from bench.data.synthetic_objects import (
    CIRCLE,
    CLASSES,
    KINDS,
    SOLIDS,
    VERSION,
    Array,
    color,
    draw,
    ink,
    jumble,
    palette,
    pick,
    relief,
)
from bench.runtime.pool import fresh_processes

IGNORED = 255  # the mask's value for boundaries and for what is too hidden to name


class SceneObject(NamedTuple):
    """An object and its position: `name` is its class, or "" for a distractor.

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
    """An unfinished image, twice as fine as the finished one.

    Attributes:
        frame: where the image is; the margin around it catches what its border cuts off.
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

    def paint(self, rng: Generator, item: SceneObject) -> None:
        """Paint an object over what is there, lit from above, with its shadow on the ground."""
        name, *foot, width, height, aloft = item
        kind = KINDS[name or pick(rng, CLASSES)]
        jumbled = not name and rng.random() < 0.25
        parts = jumble(rng) if jumbled else draw(rng, kind.forms if name else SOLIDS)
        angle = math.radians(rng.uniform(-8, 8))
        sine = math.sin(angle)
        cosine = math.cos(angle)
        rotation = np.array([[cosine, sine], [-sine, cosine]])
        origin = np.array(foot) + self.margin
        outlines = [(xy - (0.5, 1)) * (width, height) @ rotation + origin for _, xy in parts]
        if not aloft:
            rows, columns, *_ = ink([CIRCLE * (0.55 * width, 0.06 * height + 1) + origin])
            self.rgb[rows, columns] *= np.float32(0.6)
        rows, columns, part, contour = ink(outlines)
        tops = np.array([min(xy[:, 1]) for xy in outlines])
        bottoms = np.array([max(xy[:, 1]) for xy in outlines])
        light = 1.2 - 0.4 * ((rows - tops[part]) / (bottoms - tops)[part])
        light[contour] *= 0.75
        tones = palette(rng, kind)
        period = max(3, round(height * rng.uniform(0.08, 0.14)))
        colors, textures, depths = zip(*(tones[tone] for tone, _ in parts), strict=True)
        for texture in dict.fromkeys(textures):
            same = np.array([other == texture for other in textures])[part]
            depth = relief(rng, texture, rows[same], columns[same], period)
            light[same] *= 1 + np.array(depths)[part[same]] * depth
        self.rgb[rows, columns] = np.minimum(light[:, None] * np.stack(colors)[part], 1)
        self.owners[rows, columns] = len(self.objects) + 1 if name else 0
        if name:
            self.objects.append((name, len(rows)))


def _backdrop(rng: Generator, view: Array, horizon: int) -> None:
    """Paint the sky, something at the horizon, and textured ground on `view` (h, w, 3)."""
    shape = height, width = view.shape[:2]
    rows = np.arange(height)[:, None]
    columns = np.arange(width)[None]
    dimming = np.linspace(1.1, 0.8, height, dtype=np.float32)[:, None]

    def fill(top: Array, bottom: float, tint: Array, texture: str, period: int = 8) -> None:
        inside = np.broadcast_to((rows >= top) & (rows < bottom), shape)
        depth = np.float32(rng.uniform(0.03, 0.12))
        shade = 1 + depth * relief(rng, texture, rows, columns, period)
        view[inside] = (shade * dimming)[inside][:, None] * tint

    def paint() -> Array:
        return color(rng.random(), rng.uniform(0.1, 0.5), rng.uniform(0.45, 0.8))

    hue = rng.normal(*pick(rng, ((0.57, 0.03), (0.57, 0.03), (0.07, 0.03))))
    zenith = color(hue, rng.uniform(0.2, 0.6), 0.9)
    haze = color(hue, 0.1, 0.95)
    view[:] = zenith + (haze - zenith) * np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    view += np.float32(rng.uniform(0, 0.06)) * relief(rng, "clouds", rows, columns)[..., None]
    between = pick(rng, ("plain", "hills", "wall", "water"))
    edge = np.array(horizon)
    if between == "hills":
        for rise in rng.uniform((0.3, 0.1), (0.5, 0.3)):
            waves = 1 + np.sin(columns / width * rng.uniform(3, 9) + rng.uniform(0, 6))
            fill(horizon - rise * horizon * waves, horizon, paint(), "foliage")
    elif between == "wall":
        pattern = pick(rng, ("bricks", "planks"))
        period = int(rng.integers(8, 18))
        fill(edge * rng.uniform(-0.5, 0.7), horizon, paint(), pattern, period)
    earth = rng.normal(pick(rng, (0.3, 0.1, 0.13, 0.6, 0.05)), 0.03)
    soil = color(earth, rng.uniform(0.1, 0.5), rng.uniform(0.4, 0.7))
    cover = pick(rng, ("fur", "grain", "foliage", "checks", "bricks", "waves"))
    fill(edge, height, soil, cover, int(rng.integers(6, 20)))
    if between == "water":
        lake = color(rng.normal(0.55, 0.04), rng.uniform(0.2, 0.6), rng.uniform(0.5, 0.8))
        fill(edge, horizon * rng.uniform(1.1, 1.4), lake, "waves")


def _place(
    rng: Generator, name: str, scale: float, shape: Sequence[int], objects: list[SceneObject]
) -> SceneObject:
    """Place an object, its mean side `scale` of the longer side, where the others leave room."""
    height, width, horizon = shape
    aspect = (KINDS[name].aspect if name else rng.uniform(0.4, 1.9)) * rng.uniform(0.85, 1.18)
    aloft = rng.random() < (KINDS[name].aloft if name else 0.12)
    high = horizon + 0.08 * height
    y = rng.uniform(0.25 * height, high) if aloft else rng.uniform(high, 1.01 * height)
    root = math.sqrt(aspect)
    side = max(height, width) * min(scale, 0.8 / max(root, 1 / root))
    y = max(y, 0.9 * side / root)  # the top edge cuts off little: heads and roofs tell the class

    def crowding(x: float) -> float:
        room = ((abs(other.width) + side * root) / 2 - abs(x - other.x) for other in objects)
        return sum(max(0.0, overlap) for overlap in room)

    x = min((rng.uniform(0.12, 0.88, 3) * width).tolist(), key=crowding)
    return SceneObject(name, x, y, pick(rng, (-1, 1)) * side * root, side / root, aloft)


def _compose(rng: Generator, lead: str, size: int, portrait: bool) -> Canvas:
    """Paint a scene: in a portrait `lead` is large and central, else one of up to five objects."""
    short = size if portrait else round(size * rng.uniform(0.75, 1.0))
    height, width = (2 * int(side) for side in rng.permutation((short, size)))
    shape = height, width, int(height * rng.uniform(0.35, 0.6))
    canvas = Canvas(height, width)
    _backdrop(rng, canvas.rgb[canvas.frame], shape[2])
    others = pick(rng, (0, 0, 1) if portrait else (0, 0, 1, 1, 1, 2))
    cast = [pick(rng, CLASSES) for _ in range(others)] + [""] * int(rng.integers(0, 2))
    low, high = (0.14, 0.3) if portrait else (0.4, 0.8)
    scales = [low * (high / low) ** float(share) for share in rng.random(len(cast) + 1)]
    first = _place(rng, lead, rng.uniform(0.55, 0.8) if portrait else scales[0], shape, [])
    if portrait:
        x = width * rng.normal(0.5, 0.06)
        y = height * rng.normal(0.5, 0.04) + first.height / 2
        first = first._replace(x=x, y=y)
    objects = [first]
    for name, scale in zip(cast, scales[1:], strict=True):
        objects.append(_place(rng, name, scale, shape, objects))
    for item in sorted(objects, key=lambda item: (not item.aloft, item.y)):
        canvas.paint(rng, item)
    return canvas


def _develop(rng: Generator, canvas: Canvas) -> Image.Image:
    """Return the image a cheap camera takes at this hour: downscaled, tinted and noisy."""
    fine = canvas.rgb[canvas.frame]
    rgb = (fine[::2, ::2] + fine[1::2, ::2] + fine[::2, 1::2] + fine[1::2, 1::2]) / 4
    hour = pick(rng, ((1, 1, 1), (1, 0.8, 0.66), (0.8, 0.88, 1)))
    light = np.array(hour, np.float32) * np.float32(rng.uniform(0.7, 1.1))
    rgb = ((rgb - 0.5) * np.float32(rng.uniform(0.85, 1.15)) + 0.5) * light
    rgb += np.float32(rng.uniform(0.005, 0.02)) * rng.standard_normal(rgb.shape, np.float32)
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
    values = np.zeros(256, np.uint8)
    instances = []
    for owner, (name, area) in enumerate(canvas.objects, 1):
        ys, xs = np.nonzero(owners == owner)
        visible = np.count_nonzero(fine == owner)
        if visible < 0.1 * area or not len(ys):
            values[owner] = IGNORED
            continue
        values[owner] = 1 + CLASSES.index(name)
        truncated = np.count_nonzero(canvas.owners == owner) - visible > 0.02 * area
        x0, y0, x1, y1 = (int(side) for side in (xs.min(), ys.min(), xs.max(), ys.max()))
        difficult = visible < 0.35 * area or min(x1 - x0, y1 - y0) < 7
        box = (x0 + 1, y0 + 1, x1 + 1, y1 + 1)
        instances.append(Instance(name, int(truncated), int(difficult), *box))
    mask = values[owners]
    across = owners[:, 1:] != owners[:, :-1]
    down = owners[1:] != owners[:-1]
    mask[:, 1:][across] = IGNORED
    mask[:, :-1][across] = IGNORED
    mask[1:][down] = IGNORED
    mask[:-1][down] = IGNORED
    return instances, mask


@cache
def _color_map() -> bytes:
    """Return VOC's 256 colors of 3 bytes: bit 3k + c of the index is bit 7 - k of channel c."""
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


# The string that seeds the random stream of each split: another one is another set of images.
STREAMS = {
    "pretraining": "corpus",
    "validation": "validation",
    "trainval": "trainval",
    "test": "test",
}
LABELED_FOLDERS = ("pretraining", "validation")  # a portrait an image, in a folder for each class


class Job(NamedTuple):
    """One image to render: its split, its position there from 0, and its number in its folder."""

    split: str
    position: int
    number: int


Labels = dict[Job, dict[str, int]]  # per image and class: 1, or 0 if all instances are difficult


def _image(root: Path, seed: int, size: int, job: Job) -> dict[str, int]:
    """Render one image and what belongs to it below `root`; return its labels."""
    stream = zlib.crc32(STREAMS[job.split].encode())
    rng = np.random.default_rng([VERSION, seed, stream, job.position])
    lead = CLASSES[job.position % len(CLASSES)]
    name = f"{job.number:06d}"
    portrait = job.split in LABELED_FOLDERS
    canvas = _compose(rng, lead, size, portrait=portrait)
    image = _develop(rng, canvas)
    voc = root / "VOCdevkit" / "VOC2007"
    folder = root / job.split / lead if portrait else voc / "JPEGImages"
    image.save(folder / f"{name}.jpg", quality=92, subsampling=0)
    if portrait:
        return {lead: 1}
    instances, values = _annotate(canvas)
    mask = Image.fromarray(values)
    mask.putpalette(_color_map())
    mask.save(voc / "SegmentationClass" / f"{name}.png")
    (voc / "Annotations" / f"{name}.xml").write_text(_xml(name, image.size, instances))
    easy = {instance.name for instance in instances if not instance.difficult}
    return {instance.name: int(instance.name in easy) for instance in instances}


def _images(root: Path, seed: int, size: int, jobs: Sequence[Job]) -> Labels:
    return {job: _image(root, seed, size, job) for job in jobs}


def _spread(
    root: Path, seed: int, size: int, chunks: Sequence[Sequence[Job]], workers: int
) -> Iterator[Labels]:
    """Yield the labels of each chunk as it is finished, over at most `workers` processes."""
    workers = min(workers, len(chunks))
    if workers <= 1:
        yield from (_images(root, seed, size, chunk) for chunk in chunks)
        return
    with fresh_processes(workers) as pool:
        tasks = [pool.submit(_images, root, seed, size, chunk) for chunk in chunks]
        try:
            yield from (task.result() for task in as_completed(tasks))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # else Ctrl-C would wait for them all
            raise


def _write_splits(voc: Path, split: str, labels: dict[str, dict[str, int]]) -> None:
    sets = voc / "ImageSets"
    for folder in (sets / "Main", sets / "Segmentation"):
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in labels))
    for label in CLASSES:
        lines = [f"{name} {own.get(label, -1):2d}\n" for name, own in labels.items()]
        (sets / "Main" / f"{label}_{split}.txt").write_text("".join(lines))


def render(
    root: Path,
    *,
    seed: int,
    size: int,
    pretraining: int,
    validation: int,
    train: int,
    test: int,
    workers: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> None:
    """Render `root/VOCdevkit/VOC2007`, `root/pretraining/CLASS` and `root/validation/CLASS`.

    Every image depends only on `VERSION`, the seed, the size, its split and its index there.

    Args:
        root: an empty or absent folder.
        seed: any integer >= 0.
        size: the side of an image in a class folder, the longer side of a VOC image, in pixels.
        pretraining: images to pretrain on, spread evenly over the classes.
        validation: more of the same kind, spread evenly over the classes.
        train: images of the split `trainval`.
        test: images of the split `test`.
        workers: processes; all processors if None, this process alone if 1.
        advance: called here with the number of images that have become ready.
    """
    voc = root / "VOCdevkit" / "VOC2007"
    parts = ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main")
    for folder in (*parts, "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True, exist_ok=True)
    for name in CLASSES:
        for split in LABELED_FOLDERS:
            (root / split / name).mkdir(parents=True, exist_ok=True)
    jobs = [Job("trainval", i, i + 1) for i in range(train)]
    jobs += [Job("test", i, train + i + 1) for i in range(test)]
    jobs += [Job("pretraining", i, i + 1) for i in range(pretraining)]
    jobs += [Job("validation", i, i + 1) for i in range(validation)]
    chunks = [jobs[start : start + 32] for start in range(0, len(jobs), 32)]
    labels: Labels = {}
    for rendered in _spread(root, seed, size, chunks, workers or os.cpu_count() or 1):
        labels.update(rendered)
        if advance:
            advance(len(rendered))
    for split in ("trainval", "test"):
        ordered = {f"{job.number:06d}": labels[job] for job in jobs if job.split == split}
        _write_splits(voc, split, ordered)
