"""Records: a changed one is set aside by name, and no other row has another number."""

import copy
import json
import math

import pytest
from fuzz import mutations
from fuzz.harness import NO_FILES, REFUSED, attempt, bench, examples, nothing, one_line, write
from fuzz.mutations import NAMES, NUMBERS, TEXTS, WRONG, drop, get, leaves, nested, put, starts
from hypothesis import given, note
from hypothesis import strategies as st
from made_up import calibrate, save

from bench.reporting import csv, leaderboard, publish
from bench.results import storage

RECORD = "made/voc_cls/moco/seed0.json"

# What decides no number: any plain value, or any value of the same type, may be there.
FREE_TABLES = (("environment",), ("hyperparameters", "selected"))
FREE_TEXTS = (
    *(("created",), ("error",), ("warnings",), ("excluded_classes",), ("hyperparameters", "split")),
    *(("provenance", "method_code"), ("provenance", "task_code"), ("encoder", "weights_sha256")),
)
FREE_NUMBERS = (
    *(("peak_memory_mb",), ("encoder", "parameters"), ("pretraining", "seconds")),
    ("hyperparameters", "num_settings"),
)
REQUIRED = (
    *(("suite",), ("suite_sha256",), ("suite_settings",), ("method",), ("method_version",)),
    *(("task",), ("task_version",), ("seed",), ("status",), ("metric",), ("created",)),
    *(("value",), ("encoder",), ("encoder", "backbone"), ("encoder", "weights_sha256")),
    *(("encoder", "parameters"), ("predictions",), ("predictions", "file"), ("checksum",)),
    *(("predictions", "sha256"), ("suite_settings", "name"), ("suite_settings", "pretraining")),
    *(("suite_settings", "datasets", "pretraining"), ("suite_settings", "backbone", "name")),
)
PLACES = (("suite",), ("method",), ("task",), ("predictions", "file"), ("samples",))
# Tables of a fixed set of keys.
FIXED = ((), ("encoder",), ("predictions",), ("provenance",), ("hyperparameters",))
FIXED += (("suite_settings",), ("suite_settings", "pretraining"), ("suite_settings", "backbone"))


class Board:
    """A folder of records, one of which is changed; the leaderboard without it."""

    def __init__(self, root):
        self.root = root / "out"
        self.cache = root / "cache"
        for method, quality in {"imagenet": 2.0, "rotation": 0.8, "random_init": 0.2}.items():
            save(self.root, method, quality)
        calibrate(self.root)
        self.without = self.numbers()
        save(self.root, "moco", 1.2)
        self.path = self.root / RECORD
        self.content = self.path.read_bytes()
        self.arrays = self.path.with_suffix(".npz").read_bytes()
        self.data = json.loads(self.content)
        self.whole = self.numbers()
        (self.text,) = {storage.read(self.path).model_dump_json()}

    def load(self):
        return leaderboard.load(self.root / "made", self.cache)

    def numbers(self, loaded=None):
        """The CSV of the leaderboard, less the columns that describe a record."""
        lines = csv.rows((loaded or self.load()).tables)
        kept = [k for k in lines[0] if k not in DESCRIBING]
        return [{key: line[key] for key in kept} for line in lines]

    def restore(self):
        write(self.path, self.content)
        write(self.path.with_suffix(".npz"), self.arrays)

    def check(self, kind, label):
        """Try the folder as it is."""

        def result():
            loaded = self.load()
            texts = publish.texts(loaded, with_plots=False)
            assert all(texts.values())
            return loaded

        loaded = attempt(kind, result, self.cache)
        assert loaded is not REFUSED, "the rest of the leaderboard is lost"
        if label == "harmful":
            assert [problem.path for problem in loaded.problems] == [self.path]
            assert one_line(str(loaded.problems[0]))
            assert self.numbers(loaded) == self.without
        else:
            assert not loaded.problems, str(loaded.problems[0])
            assert self.numbers(loaded) == self.whole


DESCRIBING = {"seconds", "warnings", "parameters", "num_settings", "excluded_classes", "error"}
DESCRIBING |= {"peak_memory_mb", "commit", "created", "selected"}


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    return Board(tmp_path_factory.mktemp("records"))


def sealed(data):
    """The record as its maker could have written it: with the checksum of what it has."""
    data = copy.deepcopy(data)
    if isinstance(data, dict) and data.get("checksum"):
        data["checksum"] = storage._checksum(data)
    return json.dumps(data, indent=1)


@st.composite
def changes(draw, data):
    """A record's text, and its label."""
    every = [path for path in leaves(data) if path not in (("checksum",), ("schema",))]
    strict = [path for path in every if not starts(path, FREE_TABLES)]
    strict = [p for p in strict if not starts(p, (("recipe",), ("task_settings",)))]
    strict = [path for path in strict if get(data, path) != {}]
    numbers = [p for p in every if isinstance(get(data, p), float | int)]
    kind = draw(
        st.sampled_from(
            [
                *("drop", "retype", "number", "name", "unknown", "deep", "unsealed", "value"),
                *("free text", "free number", "free table", "space", "order", "again"),
            ]
        )
    )
    if kind == "drop":
        return edit(data, draw(st.sampled_from(REQUIRED)), None, "harmful", drop)
    if kind == "retype":
        return edit(data, draw(st.sampled_from(strict)), draw(st.sampled_from(WRONG)), "harmful")
    if kind == "number":
        number = draw(st.sampled_from(NUMBERS[:6]))
        if math.isfinite(number):
            large = (*MEASURES, *ANY_NUMBER) if number == 1e308 else MEASURES
            numbers = [path for path in numbers if not starts(path, large)]
        path = draw(st.sampled_from(numbers))
        return edit(data, path, number, "harmful")
    if kind == "name":
        return edit(data, draw(st.sampled_from(PLACES)), draw(st.sampled_from(NAMES)), "harmful")
    if kind == "unknown":
        path = (*draw(st.sampled_from(FIXED)), draw(st.sampled_from(["", "x", "Value", "value "])))
        return edit(data, path, draw(st.sampled_from([1, None, "", {}, []])), "harmful")
    if kind == "deep":
        path = draw(st.sampled_from([*every, *[(*p, "x") for p in FREE_TABLES]]))
        return edit(data, path, nested(draw(st.integers(40, 300)), draw(st.booleans())), "harmful")
    if kind == "value":
        move = draw(st.sampled_from([1e-5, -1e-5, 1.0, -1.0, 10.0]))
        return edit(data, ("value",), data["value"] + move, "harmful")
    if kind == "unsealed":
        path = draw(st.sampled_from(every))
        other = [value for value in (0, 1, "x", None, [], 0.5) if value != get(data, path)]
        changed = put(data, path, draw(st.sampled_from(other)))
        note(f"unsealed {path}: {get(changed, path)}")
        return json.dumps(changed, indent=1), "harmful"
    if kind == "free text":
        path = draw(st.sampled_from(FREE_TEXTS))
        value = draw(st.sampled_from(TEXTS))
        listed = [value] * draw(st.integers(0, 3))
        return edit(data, path, listed if path in LISTS else value, "harmless")
    if kind == "free number":
        value = draw(st.integers(0, 2**53))
        return edit(data, draw(st.sampled_from(FREE_NUMBERS)), value, "harmless")
    if kind == "free table":
        path = draw(st.sampled_from(FREE_TABLES))
        nested_ = [[], {}, [1, "x"], {"a": {"b": [1]}}]
        values = [*TEXTS, 0, -1, 0.5, True, None, *nested_]
        table = draw(st.dictionaries(st.sampled_from(KEYS), st.sampled_from(values), max_size=4))
        flat = all(value not in nested_ for value in table.values())
        commit = table.get("commit") or ""
        fits = path != ("environment",) or (flat and isinstance(commit, str))
        return edit(data, path, table, "harmless" if fits else "harmful")
    if kind == "space":
        indent = draw(st.sampled_from([None, 0, 3, "\t"]))
        around = draw(st.sampled_from(["", "\n\n", " \t\r\n "]))
        return around + json.dumps(data, indent=indent) + around, "harmless"
    if kind == "order":
        keys = draw(st.permutations(list(data)))
        return json.dumps({key: data[key] for key in keys}), "harmless"
    return json.dumps(data).replace("{", '{"metric": "mAP", ', 1), "harmless"  # a key twice, alike


def edit(data, path, value, label, change=put):
    """A record with its own checksum after a change, and the label."""
    note(f"{label}: {path}: {str(value)[:100]!r}")
    return sealed(drop(data, path) if change is drop else put(data, path, value)), label


LISTS = {("warnings",), ("excluded_classes",)}
# Numbers of any size, and tables in which any plain number may be.
MEASURES = (("pretraining", "seconds"), ("peak_memory_mb",), ("diagnostics",))
ANY_NUMBER = (("recipe",), ("task_settings",), *FREE_TABLES)
KEYS = ("commit", "device", "dirty", "cpu", "gpu", "versions", "torch", "x", "a.b", "", "platform")
KEYS += ("python", "os", "machine", "threads", "memory", "packages", "cuda", "libraries")


@examples(350)
@given(data=st.data())
def test_a_changed_record(board, data):
    text, label = data.draw(changes(board.data))
    board.restore()
    write(board.path, text)
    board.check("record", label)


@examples(60)
@given(data=st.data())
def test_the_bytes_of_a_record(board, data):
    spoilt = data.draw(
        st.one_of(
            mutations.cuts(board.content, 2),
            st.sampled_from([b"\0", b"\xff", b"}", b"{}", b"x"]).map(lambda b: board.content + b),
            st.sampled_from([b"\xff\xfe", b"\0", b"[", b"x"]).map(lambda b: b + board.content),
            st.just(board.content.decode().encode("utf-16")),
            st.sampled_from([b"[" * 10**5, b'{"a":' * 10**5, b"1" * 10**6, b'"' * 100, b"null"]),
        )
    )
    board.restore()
    write(board.path, spoilt)
    board.check("record", "harmful")


@pytest.mark.parametrize("spoil", [*NO_FILES, nothing])
@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_no_file(board, spoil, suffix):
    board.restore()
    spoil(board.path.with_suffix(suffix))
    if spoil is nothing and suffix == ".json":
        assert board.numbers() == board.without
    else:
        board.check("record", "harmful")
    board.restore()


# Others of the same folder, and files that a leaderboard reads beside records.
@pytest.mark.parametrize("name", ["seed1.json", "seed00.json", "seedx.json", "seed0 copy.json"])
@pytest.mark.parametrize("folder", ["made/voc_cls/moco", "made/voc_cls/other", "made/x/moco"])
def test_copies_are_set_aside(board, name, folder):
    board.restore()
    copy_ = write(board.root / folder / name, board.content)
    try:
        loaded = attempt("record", board.load, board.cache)
        assert [problem.path for problem in loaded.problems] == [copy_]
        assert board.numbers() == board.whole
    finally:
        copy_.unlink()


@examples(60)
@given(data=st.data())
def test_seeds_of_one_row(board, data):
    """A second seed that contradicts the first in what all seeds share is one line, or left out."""
    board.restore()
    path = board.path.with_name("seed1.json")
    save(board.root, "moco", 1.2, seed=1)
    try:
        whole = json.loads(path.read_text())
        expected = board.numbers()
        key, value = data.draw(
            st.sampled_from(
                [
                    *(("method_version", 2), ("method_digest", "x"), ("role", "untrained")),
                    *(
                        ("recipe", {}),
                        ("task_version", 2),
                        ("task_digest", "x"),
                        ("metric", "AP50"),
                    ),
                    *(
                        ("task_settings", {}),
                        ("suite_sha256", "b" * 64),
                        ("data", {"voc_test": "x"}),
                    ),
                    *(("per_stage", [1.0]), ("per_stage", [1.0] * 3), ("per_stage", [1.0] * 5)),
                ]
            )
        )
        change = whole | {key: value}
        if key == "per_stage":
            change["selected_stage"] = 0
        write(path, sealed(change))
        loaded = attempt("record", board.load, board.cache)
        if loaded is not REFUSED:
            assert [problem.path for problem in loaded.problems] == [path]
            assert board.numbers() == board.whole
        write(path, json.dumps(whole))
        assert board.numbers() == expected
    finally:
        path.unlink()
        path.with_suffix(".npz").unlink()


@examples(40)
@given(data=st.data())
def test_a_command_beside_a_changed_record(board, data):
    text, label = data.draw(changes(board.data))
    board.restore()
    write(board.path, text)
    folders = ["--out", board.root, "--cache", board.cache]
    ended = bench("record", ["leaderboard", "--check", *folders], board.cache)
    assert (f"{board.path}: left out" in ended.err) == (label == "harmful")
    ended = bench("record", ["compare", "moco", "rotation", "--out", board.root / "made"])
    assert ended.status == (2 if label == "harmful" else 0), ended.err
