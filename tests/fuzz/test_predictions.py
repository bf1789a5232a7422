"""Predictions: what is no npz of the right arrays is set aside; equal arrays score the same."""

import io
import json
import zipfile

import numpy as np
import pytest
from fuzz import mutations
from fuzz.harness import attempt, bench, check, examples, write
from hypothesis import given, note
from hypothesis import strategies as st
from made_up import arrays_of, save

from bench.metrics import registry
from bench.results import storage
from bench.runtime.fingerprint import file_digest
from bench.statistics import cache as statistics
from bench.statistics.cache import resampled_scores

BASE = arrays_of("moco", 1.2)
NAMES = ("scores", "truth", "ids", "classes")


def npy(array, pickled=False, fortran=False, version=None):
    """An npy file."""
    buffer = io.BytesIO()
    array = np.asfortranarray(array) if fortran else array
    np.lib.format.write_array(buffer, array, version=version, allow_pickle=pickled)
    return buffer.getvalue()


def npz(members, compression=zipfile.ZIP_DEFLATED):
    """An npz file of (name, content)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def headed(array, **changes):
    """An npy file whose header says something else."""
    head = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape} | changes
    text = repr(head).encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + array.tobytes()


def members(arrays):
    return {f"{name}.npy": npy(array) for name, array in arrays.items()}


WHOLE = npz(members(BASE).items())
HARMFUL_SCORES = {
    "nan": np.where(np.eye(120, 3) > 0, np.nan, BASE["scores"]),
    "inf": np.where(np.eye(120, 3) > 0, np.inf, BASE["scores"]),
    "complex": BASE["scores"].astype(complex),
    "text": BASE["scores"].astype(str),
    "flags": BASE["scores"] > 0,
    "dates": BASE["scores"].astype("int64").astype("datetime64[s]"),
    "fields": np.zeros((120, 3), [("a", "f4"), ("b", "i4")]),
    "one axis": BASE["scores"][:, 0],
    "three axes": BASE["scores"][None],
    "no axis": np.array(0.5),
    "fewer images": BASE["scores"][:-1],
    "more classes": np.hstack([BASE["scores"]] * 2),
    "turned": BASE["scores"].T,
    "none": BASE["scores"][:0],
    "no classes": BASE["scores"][:, :0],
    "negated": -BASE["scores"],
    "other order": BASE["scores"][::-1],
    "huge integers": np.full((120, 3), 2**62),
    "objects": np.array([[{}] * 3] * 120),
}
HARMFUL_TRUTH = {
    "flags": BASE["truth"] > 0,
    "zeros": np.where(BASE["truth"] > 0, 1, 0),
    "other": BASE["truth"] * 2,
    "halves": BASE["truth"] / 2,
    "unsigned": BASE["truth"].astype("uint8"),
    "nothing": np.full((120, 3), -1),
    "text": BASE["truth"].astype(str),
    "nan": np.full((120, 3), np.nan),
    "one axis": BASE["truth"][:, 0],
    "fewer": BASE["truth"][1:],
}
HARMFUL_IDS = {
    "fewer": BASE["ids"][1:],
    "none": BASE["ids"][:0],
    "too many": np.zeros(300_000, "S1"),
    "no axis": np.array("x"),
    "objects": BASE["ids"].astype(object),
}
HARMLESS = {
    "scores": {
        "float64": BASE["scores"].astype("float64"),
        "big endian": BASE["scores"].astype(">f4"),
        "long": BASE["scores"].astype("longdouble"),
        "ranks": BASE["scores"].argsort(axis=None).argsort().reshape(120, 3),
        "doubled": BASE["scores"] * 2,
    },
    "truth": {
        "int64": BASE["truth"].astype("int64"),
        "float": BASE["truth"].astype("float32"),
        "big endian": BASE["truth"].astype(">i2"),
    },
    "ids": {
        "bytes": BASE["ids"].astype("S"),
        "integers": np.arange(120),
        "twice": np.zeros(120, "U1"),
    },
    "classes": {"bytes": BASE["classes"].astype("S3"), "longer": BASE["classes"].astype("U90")},
}


@st.composite
def contents(draw):
    """The bytes of an npz file, and their label."""
    kind = draw(
        st.sampled_from(
            [
                *("array", "array", "array", "same array", "same array", "absent", "twice", "more"),
                *("pickled", "header", "order", "stored", "tail", "prefix", "cut", "bytes", "bomb"),
            ]
        )
    )
    parts = members(BASE)
    if kind == "array":
        name, arrays = draw(
            st.sampled_from(
                [("scores", HARMFUL_SCORES), ("truth", HARMFUL_TRUTH), ("ids", HARMFUL_IDS)]
            )
        )
        what = draw(st.sampled_from(sorted(arrays)))
        note(f"{name}: {what}")
        parts[f"{name}.npy"] = npy(arrays[what], pickled=True)
        return npz(parts.items()), "harmful"
    if kind == "same array":
        name = draw(st.sampled_from(sorted(HARMLESS)))
        what = draw(st.sampled_from(sorted(HARMLESS[name])))
        note(f"{name}: {what}")
        fortran = draw(st.booleans())
        version = draw(st.sampled_from([(1, 0), (2, 0), None]))
        parts[f"{name}.npy"] = npy(HARMLESS[name][what], fortran=fortran, version=version)
        return npz(parts.items()), "harmless"
    name = draw(st.sampled_from(NAMES[:3]))
    note(f"{kind}: {name}")
    if kind == "absent":
        del parts[f"{name}.npy"]
        return npz(parts.items()), "harmful"
    if kind == "twice":
        suffix = draw(st.sampled_from([".npy", ""]))
        twice = [*parts.items(), (f"{name}{suffix}", parts[f"{name}.npy"])]
        return npz(twice), "harmful"
    if kind == "more":
        other = draw(st.sampled_from(["x.npy", "x", "../x.npy", "/etc/x.npy", "a/b.npy", "é.npy"]))
        content = draw(st.sampled_from([b"", b"x", npy(np.zeros(3)), b"\x93NUMPY"]))
        return npz([*parts.items(), (other, content)]), "harmless"
    if kind == "pickled":
        parts[f"{name}.npy"] = npy(BASE[name].astype(object), pickled=True)
        return npz(parts.items()), "harmful"
    if kind == "header":
        change = draw(
            st.sampled_from(
                [
                    *({"shape": (10**12,)}, {"shape": (-1, 3)}, {"shape": (2**40, 0)}),
                    *({"shape": "x"}, {"shape": None}, {"shape": (1.5,)}, {"shape": (10**30,)}),
                    *({"descr": "<U0"}, {"descr": "|V0"}, {"descr": "|O"}, {"descr": "x"}),
                    *({"descr": []}, {"descr": None}, {"descr": [("a", "|O")]}, {"x": 1}),
                    *({"fortran_order": 7}, {"descr": "<U99999999"}, {"shape": (True,)}),
                ]
            )
        )
        note(str(change))
        parts[f"{name}.npy"] = headed(BASE[name], **change)
        return npz(parts.items()), "harmful"
    if kind == "order":
        return npz(draw(st.permutations(list(parts.items())))), "harmless"
    if kind == "stored":
        ways = [zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
        return npz(parts.items(), draw(st.sampled_from(ways))), "harmless"
    if kind == "tail":
        part = parts[f"{name}.npy"]
        odd = draw(
            st.sampled_from([part + b"x", part[:-1], part[:50], b"", part[10:], b"x" + part])
        )
        parts[f"{name}.npy"] = odd
        return npz(parts.items()), "harmful"
    if kind == "prefix":  # of an archive that unpacks itself
        return b"x" * draw(st.integers(1, 500)) + WHOLE, "harmless"
    if kind == "cut":
        return draw(mutations.cuts(WHOLE)), "harmful"
    if kind == "bomb":
        parts[f"{name}.npy"] = BOMB
        return npz(parts.items()), "harmful"
    position = draw(st.integers(60, 200))  # in the compressed content of the first array
    value = draw(st.integers(1, 255))
    changed = bytearray(WHOLE)
    changed[position] ^= value
    return bytes(changed), "harmful"


# Of 200 MB of zeros; a header that fits, and one that says another size.
BOMB = headed(np.zeros(0), shape=(25_000_000,)) + bytes(200_000_000)


class Row:
    """One record, whose predictions are replaced."""

    def __init__(self, root):
        self.root = root
        save(root, "rotation", 0.8)
        save(root, "moco", 1.2)
        self.path = root / "made/voc_cls/moco/seed0.json"
        self.arrays = self.path.with_suffix(".npz")
        self.data = json.loads(self.path.read_text())
        self.expected = resampled_scores(self.path, storage.read(self.path), None).values

    def put(self, content):
        write(self.arrays, content)
        self.data["predictions"]["sha256"] = file_digest(self.arrays)
        self.data["checksum"] = storage._checksum(self.data)
        write(self.path, json.dumps(self.data))


@pytest.fixture(scope="module")
def row(tmp_path_factory):
    return Row(tmp_path_factory.mktemp("predictions"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@examples(350)
@given(made=contents())
def test_predictions_of_any_content(row, made):
    content, label = made
    row.put(content)
    record = storage.read(row.path)
    cache = row.root / "cache"
    result = attempt("npz", lambda: resampled_scores(row.path, record, cache).values, cache)
    check(label, result, row.expected, np.array_equal)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@examples(30)
@given(made=contents())
def test_rows_are_compared_with_predictions_of_any_content(row, made):
    content, label = made
    row.put(content)
    ended = bench("npz", ["compare", "moco", "rotation", "--out", row.root / "made"])
    assert ended.status == (2 if label == "harmful" else 0), ended.err


DETECTIONS = {
    "ids": np.array(["a", "b"]),
    "classes": np.array(["cat", "dog"]),
    "counted": np.array([0, 1]),
    "box": np.array([[1, 1, 10, 10], [5, 5, 20, 20], [1, 1, 9, 9]], dtype=np.float32),
    "score": np.array([0.9, 0.5, 0.2], dtype=np.float32),
    "label": np.array([0, 1, 1], dtype=np.int16),
    "image": np.array([0, 1, 0], dtype=np.int32),
    "true_box": np.array([[1, 1, 10, 10], [5, 5, 20, 20]], dtype=np.float32),
    "true_class": np.array([0, 1], dtype=np.int16),
    "true_image": np.array([0, 1], dtype=np.int32),
    "true_difficult": np.array([False, False]),
}
MASKS = {
    "ids": np.array(["a", "b"]),
    "classes": np.array(["background", "cat"]),
    "confusion": np.array([[[5, 1], [0, 3]], [[7, 0], [2, 0]]]),
}
CHOICES = {
    "ids": np.array(["a", "b"]),
    "predicted": np.array([1, 0]),
    "label": np.array([1, 2], dtype=np.int16),
}
MIXED = {
    "AP50": DETECTIONS,
    "AP50_area": DETECTIONS,
    "mIoU": MASKS,
    "mAP": BASE,
    "mAP_step": BASE,
    "mAP_samples": {**BASE, "scores": BASE["scores"][None]},
    "top1": CHOICES,
}
ALWAYS_WRONG = (
    np.array("x"),
    np.array([[[["x"]]]]),
    np.array([{}], dtype=object),
    np.array([1j]),
    np.full((1, 1, 1, 1), np.nan),
    np.zeros(2, [("a", "i4")]),
)


@examples(200)
@given(data=st.data())
def test_arrays_of_every_metric(data):
    """An array that does not fit is refused; one of another type with the same values is not."""
    name = data.draw(st.sampled_from(sorted(MIXED)))
    arrays = dict(MIXED[name])
    metric = registry.get(name)
    needed = data.draw(st.sampled_from(["ids", *metric.arrays]))
    weights = statistics.weights(len(arrays["ids"]))

    def values():
        every = registry.resampled_values(metric, arrays, weights)
        return every, registry.per_class(metric, arrays)

    def same(one, other):
        return np.array_equal(one[0], other[0], equal_nan=True) and one[1] == other[1]

    expected = values()
    number = arrays[needed].dtype.kind in "iuf"
    kind = data.draw(st.sampled_from(["absent", "wrong", "wider", "fewer"]))
    note(f"{name} {needed} {kind}")
    if kind == "absent":
        del arrays[needed]
        label = "harmful"
    elif kind == "wrong":
        wrong = ALWAYS_WRONG[:-1] if needed == "ids" else ALWAYS_WRONG  # whose kind tells nothing
        arrays[needed] = data.draw(st.sampled_from(wrong))
        label = "harmful"
    elif kind == "fewer":
        arrays[needed] = arrays[needed][:-1]
        label = "harmful"
        if name.startswith("AP50") and needed == "counted":
            return  # fewer classes count, which is another statement
    else:
        arrays[needed] = arrays[needed].astype("longdouble" if number else "U200")
        label = "harmless"
        if arrays[needed].dtype.kind == "U" and needed == "true_difficult":
            label = "harmful"
    check(label, attempt("npz", values, refusals=(ValueError,)), expected, same)
