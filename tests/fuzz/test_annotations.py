"""Annotations, lists, masks and COCO files of a small devkit: the same labels, or one line."""

import copy
import io
import json

import numpy as np
import pytest
from fuzz import mutations
from fuzz.harness import NO_FILES, attempt, check, examples, nothing, write
from fuzz.mutations import WRONG, drop, get, leaves, put
from hypothesis import given, note
from hypothesis import strategies as st
from PIL import Image

from bench.config import schema
from bench.data.coco import open_coco
from bench.data.voc import open_voc
from bench.data.voc_colors import voc_colors
from bench.data.voc_masks import open_voc_masks, read_mask
from bench.runtime.progress import Reporter

CLASSES = ("cat", "dog")
IDS = {"train": ("a", "b"), "test": ("c", "d")}
WIDTH, HEIGHT = 32, 24


def objects_of(identifier):
    """(class, difficult, box) of the objects of an image."""
    cat = ("cat", 0, (1, 1, 20, 20))
    dog = ("dog", 1 if identifier == "b" else 0, (5, 4, 32, 24))
    return [cat, dog] if identifier in "bc" else [cat] if identifier == "a" else [dog]


def xml_of(identifier):
    parts = [f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"]
    for name, difficult, box in objects_of(identifier):
        sides = "".join(f"<{s}>{v}</{s}>" for s, v in zip(SIDES, box, strict=True))
        marks = f"<truncated>0</truncated><difficult>{difficult}</difficult>"
        parts.append(f"<object><name>{name}</name>{marks}<bndbox>{sides}</bndbox></object>")
    return "<annotation>" + "\n".join(parts) + "</annotation>"


SIDES = ("xmin", "ymin", "xmax", "ymax")


def label(identifier, name):
    own = [difficult for other, difficult, _ in objects_of(identifier) if other == name]
    return -1 if not own else 0 if all(own) else 1


class Devkit:
    """Four images with everything that a data set may read of them."""

    def __init__(self, root):
        self.root = root
        self.year = root / "VOCdevkit/VOC2007"
        for index, identifier in enumerate("abcd"):
            pixels = np.random.default_rng(index).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
            path = self.year / f"JPEGImages/{identifier}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            write(self.xml(identifier), xml_of(identifier))
            write(self.mask(identifier), png(mask_pixels()))
        for split, ids in IDS.items():
            for kind in ("Main", "Segmentation"):
                write(self.year / f"ImageSets/{kind}/{split}.txt", "".join(f"{i}\n" for i in ids))
            for name in CLASSES:
                lines = "".join(f"{i} {label(i, name):2d}\n" for i in ids)
                write(self.year / f"ImageSets/Main/{name}_{split}.txt", lines)
            write(root / f"{split}.json", json.dumps(coco(ids)))
        splits = {"train": ("VOC2007/train",), "test": ("VOC2007/test",), "classes": CLASSES}
        self.boxes_section = schema.Voc(kind="voc", **splits)
        self.masks_section = schema.VocMasks(kind="voc_masks", **splits)
        images = "VOCdevkit/VOC2007/JPEGImages"
        self.coco_section = schema.Coco(
            kind="coco",
            **{"train": "train.json", "train_images": images},
            **{"test": "test.json", "test_images": images},
        )
        self.expected = {"voc": self.voc(), "masks": self.masks(), "coco": self.coco()}

    def xml(self, identifier):
        return self.year / f"Annotations/{identifier}.xml"

    def mask(self, identifier):
        return self.year / f"SegmentationClass/{identifier}.png"

    def voc(self):
        """Labels and objects of both splits."""
        splits = open_voc(self.root, "voc", self.boxes_section, Reporter())
        return [(s.ids, s.images.files, s.labels.tolist(), s.objects) for s in splits]

    def masks(self):
        """Class indices of both splits."""
        splits = open_voc_masks(self.root, "masks", self.masks_section, Reporter())
        return [[read_mask(s.masks.root / f).tolist() for f in s.masks.files] for s in splits]

    def coco(self):
        classes, *splits = open_coco(self.root, "coco", self.coco_section, Reporter())
        return classes, [(s.ids, s.labels.tolist(), s.objects) for s in splits]


def coco(ids):
    images, annotations = [], []
    for number, identifier in enumerate(ids):
        size = {"width": WIDTH, "height": HEIGHT}
        images.append({"id": number, "file_name": f"{identifier}.jpg", **size})
        for name, difficult, (left, top, right, bottom) in objects_of(identifier):
            box = [left - 1, top - 1, right - left + 1, bottom - top + 1]
            about = {"image_id": number, "category_id": CLASSES.index(name) + 1}
            annotations.append({"bbox": box, "iscrowd": difficult, **about})
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


def mask_pixels():
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[2:12, 3:20] = 1
    pixels[8:20, 10:30] = 2
    pixels[2, 3:20] = 255
    return pixels


def png(pixels, palette="voc", **options):
    """A mask as a PNG: gray levels, or with a palette."""
    image = Image.fromarray(pixels)
    if palette:
        colors = voc_colors(256)
        if palette == "other":
            colors = [(i, 0, 255 - i) for i in range(256)]
        if palette == "swapped":
            colors = [colors[0], colors[2], colors[1], *colors[3:]]
        image.putpalette([level for color in colors for level in color])
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def devkit(tmp_path_factory):
    return Devkit(tmp_path_factory.mktemp("devkit"))


@st.composite
def annotations(draw, text):
    """An annotation's bytes, and their label."""
    kind = draw(
        st.sampled_from(
            [
                *("number", "number", "number", "mark", "absent", "absent", "name", "cut", "deep"),
                *("comment", "more", "order", "encoding", "entity", "garbage", "twice", "size"),
            ]
        )
    )
    note(kind)
    if kind == "number":
        side = draw(st.sampled_from([*SIDES, "width", "height"]))
        wrong = [
            "",
            " ",
            "nan",
            "inf",
            "-inf",
            "-1",
            "1e9",
            "9" * 400,
            "x",
            "1,5",
            "0x1",
            "1 2",
            "²",
        ]
        value = draw(st.sampled_from(wrong))
        start = text.index(f"<{side}>") + len(side) + 2
        end = text.index(f"</{side}>")
        note(f"{side} {value}")
        return text[:start] + value + text[end:], "harmful"
    if kind == "mark":
        mark = draw(st.sampled_from(["difficult", "truncated"]))
        old = text[text.index(f"<{mark}>") :].split("<")[1].split(">")[1]
        good = {"0": ["0", " 0 ", "false", "False", "FALSE"], "1": ["1", " 1\n", "true", "TRUE"]}[
            old
        ]
        harmless = draw(st.booleans())
        bad = ["2", "-1", "yes", "", "0.5", "x" * 5000, "10", "nan"]
        if mark == "difficult":
            bad.append("1" if old == "0" else "0")  # as the list says otherwise
        value = draw(st.sampled_from(good if harmless else bad))
        changed = text.replace(f"<{mark}>{old}<", f"<{mark}>{value}<", 1)
        return changed, "harmless" if harmless else "harmful"
    if kind == "absent":
        tag = draw(st.sampled_from([*SIDES, "width", "height", "size", "name", "bndbox"]))
        other = draw(st.sampled_from(["x", tag.upper(), f"{tag}s"]))
        return text.replace(f"<{tag}>", f"<{other}>").replace(f"</{tag}>", f"</{other}>"), "harmful"
    if kind == "name":
        wrong = ["", "Cat", "cat dog", "bird", "c\u0430t", "x" * 5000, "<b>cat</b>", "cat\u200b"]
        return text.replace(">cat<", f">{draw(st.sampled_from(wrong))}<", 1), "harmful"
    if kind == "cut":
        return draw(mutations.cuts(text)), "harmful"
    if kind == "deep":
        depth = draw(st.sampled_from([200, 100_000]))
        return text.replace("<size>", "<a>" * depth + "</a>" * depth + "<size>"), "harmful"
    if kind == "comment":
        more = draw(
            st.sampled_from(
                ["<!-- x -->", "<?x y?>", "\n\n\t", "<x/>", "<part><name>x</name></part>"]
            )
        )
        return text.replace("<size>", f"{more}<size>"), "harmless"
    if kind == "more":
        more = draw(
            st.sampled_from(
                ["<pose>x</pose>", "<occluded>7</occluded>", "<actions><x>1</x></actions>"]
            )
        )
        return text.replace("<object>", f"<object>{more}"), "harmless"
    if kind == "order":
        return text.replace(
            "<annotation>", "<annotation>\n<folder>..</folder><filename>/etc</filename>"
        ), "harmless"
    if kind == "encoding":
        head = '<?xml version="1.0" encoding="{}"?>'
        encoding = draw(st.sampled_from(["utf-8", "utf-16", "latin-1", "ascii"]))
        return (head.format(encoding) + text).encode(encoding), "harmless"
    if kind == "entity":
        lines = ['<!ENTITY a "aaaaaaaaaa">']
        lines += [
            f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
        ]
        entity = draw(st.sampled_from(["&i;", "&e;", "&nosuch;", "&x;"]))
        outside = '<!ENTITY x SYSTEM "file:///etc/passwd">'
        document = f"<!DOCTYPE annotation [{''.join(lines)}{outside}]>{text}"
        return document.replace(">cat<", f">{entity}<", 1), "harmful"
    if kind == "garbage":
        odd = [b"\0", b"\xff\xfe", b"<", b"</annotation>", b"x", b"\x80"]
        return text.encode() + draw(st.sampled_from(odd)), "harmful"
    if kind == "twice":
        return text + text, "harmful"
    swapped = text.replace(f"<width>{WIDTH}<", f"<width>{HEIGHT}<")
    return swapped.replace(f"<height>{HEIGHT}<", f"<height>{WIDTH}<"), "harmful"


@examples(250)
@given(data=st.data())
def test_an_annotation_of_any_content(devkit, data):
    identifier = data.draw(st.sampled_from("abc"))
    content, label_ = data.draw(annotations(xml_of(identifier)))
    write(devkit.xml(identifier), content)
    try:
        result = attempt("xml", devkit.voc)
    finally:
        write(devkit.xml(identifier), xml_of(identifier))
    check(label_, result, devkit.expected["voc"])


LISTS = ("Main/train", "Main/test", "Main/cat_train", "Main/dog_test")


@examples(150)
@given(data=st.data())
def test_a_list_of_any_content(devkit, data):
    name = data.draw(st.sampled_from(LISTS))
    path = devkit.year / f"ImageSets/{name}.txt"
    content = path.read_text()
    lines = content.splitlines()
    labels = "_" in name
    kind = data.draw(
        st.sampled_from(["form", "line", "bytes", "twice", "absent", "label", "empty"])
    )
    label_ = "harmful"
    spoilt = content
    if kind == "form":
        label_ = "harmless"
        forms = ["\r\n", "\n\n", " \n", "\t\n  "]
        spoilt = data.draw(st.sampled_from(forms)).join(lines)
        spoilt = data.draw(st.sampled_from(["", "\ufeff"])) + spoilt
    elif kind == "line" and not labels:
        wrong = [
            "e",
            "../JPEGImages/a",
            "/etc/passwd",
            "a\0b",
            "x" * 5000,
            ".",
            "..",
            "é",
            "\x1b[2J",
        ]
        spoilt = content + data.draw(st.sampled_from(wrong)) + "\n"
    elif kind in ("label", "line"):
        wrong = ["2", "x", "", "1 1", "1.0", "+1", "nan", "²", "1" * 5000]
        if labels:
            spoilt = f"{lines[0].split()[0]} {data.draw(st.sampled_from(wrong))}\n{lines[1]}\n"
        else:
            spoilt = f"{content}c\n" if "train" in name else f"{content}a\n"
    elif kind == "bytes":
        wrap = data.draw(st.sampled_from(["utf-16", "utf-32", "cp500"]))
        spoilt = content.encode(wrap)
        if data.draw(st.booleans()):
            spoilt = content.encode() + data.draw(
                st.sampled_from([b"\xff\n", b"\0", b"x \xc3\x28\n"])
            )
    elif kind == "twice":
        spoilt = content + lines[0] + "\n"
    elif kind == "absent":
        spoilt = f"{lines[0]}\n" if labels else ""
    else:
        spoilt = data.draw(st.sampled_from(["", "\n", " \n\t\n"]))
    note(f"{name} {kind} {spoilt[:80]!r}")
    write(path, spoilt)
    try:
        result = attempt("list", devkit.voc)
    finally:
        write(path, content)
    check(label_, result, devkit.expected["voc"])


PIXELS = mask_pixels()


@st.composite
def masks(draw):
    """A mask's bytes, and their label."""
    kind = draw(
        st.sampled_from(["form", "palette", "index", "size", "mode", "format", "cut", "bytes"])
    )
    note(kind)
    if kind == "form":
        palette = draw(st.sampled_from([None, "voc"]))
        level = draw(st.integers(0, 9))
        return png(PIXELS, palette, compress_level=level, optimize=draw(st.booleans())), "harmless"
    if kind == "palette":
        return png(PIXELS, draw(st.sampled_from(["other", "swapped"]))), "harmful"
    if kind == "index":
        odd = PIXELS.copy()
        odd[draw(st.integers(0, HEIGHT - 1)), draw(st.integers(0, WIDTH - 1))] = draw(
            st.integers(3, 254)
        )
        return png(odd, draw(st.sampled_from([None, "voc"]))), "harmful"
    if kind == "size":
        shapes = [PIXELS[:-1], PIXELS[:, 1:], PIXELS.T, PIXELS.repeat(2, 0), PIXELS[:1, :1]]
        return png(np.ascontiguousarray(draw(st.sampled_from(shapes)))), "harmful"
    if kind == "cut":
        return draw(mutations.cuts(png(PIXELS), 1)), "harmful"
    if kind == "bytes":
        content = bytearray(png(PIXELS))
        start = content.index(b"IDAT") + 4
        content[draw(st.integers(start, len(content) - 20))] ^= draw(st.integers(1, 255))
        return bytes(content), "harmful"
    image = Image.fromarray(PIXELS)
    buffer = io.BytesIO()
    if kind == "mode":
        mode = draw(st.sampled_from(["1", "LA", "RGB", "RGBA", "I;16"]))
        image.convert(mode).save(buffer, format="PNG")
    else:
        image.save(
            buffer, format=draw(st.sampled_from(["BMP", "JPEG", "GIF", "TIFF", "WEBP", "PPM"]))
        )
    return buffer.getvalue(), "harmful"


@examples(120)
@given(data=st.data())
def test_a_mask_of_any_content(devkit, data):
    content, label_ = data.draw(masks())
    path = devkit.mask("a")
    write(path, content)
    try:
        result = attempt("mask", devkit.masks)
    finally:
        write(path, png(PIXELS))
    check(label_, result, devkit.expected["masks"])


@examples(150)
@given(data=st.data())
def test_a_coco_file_of_any_content(devkit, data):
    whole = coco(IDS["train"])
    path = devkit.root / "train.json"
    kind = data.draw(
        st.sampled_from(["drop", "retype", "number", "name", "cut", "bytes", "more", "space"])
    )
    label_ = "harmful"
    changed = copy.deepcopy(whole)
    every = [p for p in leaves(whole) if p[-1] not in ("iscrowd",)]
    place_ = data.draw(st.sampled_from(every))
    if kind == "drop":
        kept = [p for p in every if p[-1] not in ("width", "height")]
        changed = drop(whole, data.draw(st.sampled_from(kept)))
    elif kind == "retype":
        changed = put(whole, place_, data.draw(st.sampled_from(WRONG)))
    elif kind == "number":
        numbers = [p for p in every if isinstance(get(whole, p), int)]
        value = data.draw(
            st.sampled_from([float("nan"), float("inf"), -(10**9), 10**30, 1e308, 0.5])
        )
        target = data.draw(st.sampled_from([p for p in numbers if value != 0.5 or "bbox" not in p]))
        if target[0] in ("images", "categories") and target[-1] == "id":
            value = float("nan")
        changed = put(whole, target, value)
    elif kind == "name":
        wrong = [
            "",
            "../a.jpg",
            "/etc/passwd",
            "a\0.jpg",
            "x" * 5000,
            "c.jpg",
            ".",
            "\udcff.jpg",
            "b.jpg",
        ]
        changed = put(whole, ("images", 0, "file_name"), data.draw(st.sampled_from(wrong)))
    elif kind == "more":
        label_ = "harmless"
        key = data.draw(st.sampled_from(["info", "licenses", "x"]))
        changed[key] = data.draw(st.sampled_from([None, [], {"a": [1]}, "x" * 1000]))
        changed["images"][0]["x"] = 1
    elif kind == "space":
        label_ = "harmless"
    indent = data.draw(st.sampled_from([None, 1]))
    text = json.dumps(changed, indent=indent)
    if kind == "cut":
        text = data.draw(mutations.cuts(text, 1))
    if kind == "bytes":
        odd = [b"", b"[]", b"null", b"1", b"[" * 10**5, b"{" * 10, text.encode() + b"x"]
        text = data.draw(
            st.sampled_from([*odd, b"\xff" + text.encode(), text.encode("utf-16") + b"x"])
        )
    note(f"{kind} {place_} {text[:3000]!r}")
    write(path, text)
    try:
        result = attempt("json", devkit.coco)
    finally:
        write(path, json.dumps(whole))
    check(label_, result, devkit.expected["coco"])


FILES = {
    "Annotations/a.xml": "voc",
    "ImageSets/Main/train.txt": "voc",
    "ImageSets/Main/cat_test.txt": "voc",
    "JPEGImages/a.jpg": "voc",
    "SegmentationClass/a.png": "masks",
    "ImageSets/Segmentation/train.txt": "masks",
    "../../train.json": "coco",
}


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("spoil", [*NO_FILES, nothing])
def test_what_is_no_file(devkit, name, spoil):
    path = devkit.year / name
    content = path.read_bytes()
    spoil(path)
    try:
        result = attempt("file", getattr(devkit, FILES[name]))
    finally:
        write(path, content)
    check("harmful", result, None)
