"""What several test modules share."""

import json

import torch
from PIL import Image, ImageOps
from torch import nn

from bench import plugins
from bench.config.loader import to_toml
from bench.config.schema import VOC_CLASSES
from bench.data.published.catalog import PublishedDataset, Split
from bench.data.stream import Stream
from bench.data.voc_colors import voc_colors
from bench.results import storage

# `smoke`, shrunk until training takes four steps.
SHORT = [
    "pretraining.views=64",
    *(
        f"recipes.{m}.views=64"
        for m in ("rotation", "supervised", "split_brain_halves", "bigan", "pix2pix")
    ),
    *(f"recipes.{m}.views=64" for m in ("cyclegan", "deepcluster", "mae")),
    *(f"recipes.{m}.views=64" for m in ("simclr", "moco", "byol", "barlow_twins")),
    "recipes.dino.views=128",
    "recipes.counting.views=80",
    *(f"recipes.{m}.views=72" for m in ("context_prediction", "jigsaw")),
    *(f"tasks.{t}.views=16" for t in ("voc_det", "voc_seg", "voc_cls_finetune")),
]
TILED = ("context_prediction", "jigsaw")  # nine tiles of each image

FILES = (
    "LEADERBOARD.md",
    "leaderboard.csv",
    "leaderboard.html",
    "gap_voc_cls.svg",
    "gap_voc_cls.png",
)


def leaderboard(folder, clock=True):
    """The leaderboard's bytes; without `clock`, less the page and the column of measured time."""
    found = {name: (folder / name).read_bytes() for name in FILES}
    if not clock:
        lines = [line.split(",") for line in found["leaderboard.csv"].decode().splitlines()]
        column = lines[0].index("seconds")
        del found["leaderboard.html"]
        found["leaderboard.csv"] = [line[:column] + line[column + 1 :] for line in lines]
    return found


def forge(path, **changes):
    """Change a record as its maker could have, checksum and all."""
    found = storage.read(path)
    return storage.save(found.model_copy(update=changes), path)


# What differs from run to run: measured times, the machine, the date; and with these the checksum.
CLOCK = {"timings", "peak_memory_mb", "environment", "created", "checksum", "provenance"}


def values(folder):
    """What the records measured, the clock and the machine's state apart."""
    found = [json.loads(path.read_text()) for path in sorted(folder.rglob("seed*.json"))]
    for entry in found:
        del entry["pretraining"]["seconds"]
    return [{key: value for key, value in entry.items() if key not in CLOCK} for entry in found]


def without_rendering(suite, path):
    """The file of a suite that takes its images from a data root instead of rendering them."""
    settings = suite.model_dump(mode="json", exclude={"synthetic"}, exclude_none=True)
    path.write_text(to_toml(settings))
    return path


def built(name, context, **where):
    """A pretext task with its networks, in training mode."""
    torch.manual_seed(0)
    pretext = plugins.load("methods", name)()
    pretext.build(context(name, **where))
    return pretext


def batch_of(pretext, context, name, images=4):
    """What its loader would collate of the first pretraining images."""
    source = context(name).images
    stream = Stream(source.images, source.labels, 0, pretext.transform, images)
    return torch.utils.data.default_collate([stream[i] for i in range(images)])


def encoder_input(pretext, batch):
    """What the encoder was shown while the loss was computed."""
    views = []
    handle = pretext.encoder.register_forward_pre_hook(lambda _, inputs: views.append(inputs[0]))
    pretext.loss(batch)
    handle.remove()
    return views[0]


class Says(nn.Module):
    """A function in a network's place."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


def mirror(path):
    """Turn an image file left to right: other content, the same size."""
    with Image.open(path) as image:
        mirrored = ImageOps.mirror(image)
    mirrored.save(path)


def another_year(devkit, year, prefix, source="VOC2007"):
    """Copy a year of a VOCdevkit to another one; its identifiers begin with a prefix."""
    for path in sorted((devkit / source).rglob("*")):
        if path.is_dir():
            continue
        below = path.relative_to(devkit / source)
        name = path.name if below.parts[0] == "ImageSets" else prefix + path.name
        target = devkit / year / below.parent / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if below.parts[0] == "ImageSets":
            lines = path.read_text().splitlines()
            target.write_text("".join(f"{prefix}{line}\n" for line in lines))
        else:
            target.write_bytes(path.read_bytes())


ANNOTATION = """<annotation><size><width>10</width><height>8</height></size><object>
<name>{name}</name><difficult>0</difficult><truncated>0</truncated>
<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>7</ymax></bndbox>
</object></annotation>"""


def published_voc(root, year="VOC2007"):
    """A VOCdevkit of four images below a data root, and its entry in a catalog."""
    folder = root / "VOCdevkit" / year
    for name in ("JPEGImages", "Annotations", "SegmentationClass"):
        (folder / name).mkdir(parents=True)
    splits = {"train": {"1": 0, "2": 1}, "val": {"3": 0, "4": 1}}
    palette = [channel for color in voc_colors(256) for channel in color]
    for split, classes in splits.items():
        write_lists(folder / "ImageSets", split, classes)
        for name, index in classes.items():
            Image.new("RGB", (10, 8)).save(folder / f"JPEGImages/{name}.jpg")
            text = ANNOTATION.format(name=VOC_CLASSES[index])
            (folder / f"Annotations/{name}.xml").write_text(text)
            mask = Image.new("P", (10, 8), index + 1)
            mask.putpalette(palette)
            mask.save(folder / f"SegmentationClass/{name}.png")
    paths = [
        f"ImageSets/{kind}/{split}.txt" for kind in ("Main", "Segmentation") for split in splits
    ]
    return PublishedDataset(
        name="small-voc",
        title="a small VOC",
        kind="voc",
        folder=f"VOCdevkit/{year}",
        terms="none",
        page="https://example.org",
        splits=tuple(Split(path, path, 2) for path in paths),
        archives=(),
        layout=("VOCdevkit",),
    )


def write_lists(folder, split, classes, names=VOC_CLASSES):
    """The lists of a split, Main and Segmentation; `classes` has the class index of each image."""
    for kind in ("Main", "Segmentation"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / kind / f"{split}.txt").write_text("".join(f"{name}\n" for name in classes))
    for index, label in enumerate(names):
        lines = [f"{name} {1 if own == index else -1}\n" for name, own in classes.items()]
        (folder / "Main" / f"{label}_{split}.txt").write_text("".join(lines))
