"""Suites, `--set` and what is beside records in TOML or JSON: the same suite, or one line."""

import copy
import json
import math
import tempfile
import tomllib
from pathlib import Path

import pytest
from fuzz import mutations
from fuzz.harness import NO_FILES, attempt, bench, check, examples, write
from fuzz.mutations import TEXTS, WRONG, drop, get, leaves, nested, put, starts, tables
from hypothesis import given, note
from hypothesis import strategies as st
from made_up import calibrate, save

from bench.config import loader, settings
from bench.config.loader import to_toml
from bench.results import audit
from bench.statistics import calibration

SMOKE = loader.load("smoke").model_dump(mode="json", exclude_none=True)
TEXT = to_toml(SMOKE)
PLUGINS = (("recipes",), ("tasks",))  # sections that plug-ins check by themselves
OPTIONAL = (
    *(("warmup",), ("milestones",), ("precision",), ("betas",), ("test",), ("validation",)),
    *(
        ("images_per_class",),
        ("damaged",),
        ("folder",),
        ("masks",),
        ("classes",),
        ("min_positives",),
        ("synthetic",),
    ),
)
NUMBERS = (float("nan"), float("inf"), -math.inf, 10**30, -(10**30), -1, -0.5, 2**53 + 1)


def same(one, other):
    return one == other and one.sha256 == other.sha256


def resolved(suite):
    """The suite and what its plug-ins make of their sections."""
    own = [settings.task_settings(suite, name) for name in sorted(suite.tasks)]
    return suite, own + [settings.recipe(suite, name) for name in sorted(suite.recipes)]


SECTIONS = tables(SMOKE)
VALUES = [path for path in leaves(SMOKE) if not starts(path, PLUGINS)]
OWN = [path for path in leaves(SMOKE) if starts(path, PLUGINS)]
REQUIRED = [path for path in VALUES if (path[-1],) not in OPTIONAL and isinstance(path[-1], str)]


def toml(data):
    """The text of a suite, which may have what JSON does not."""
    text = to_toml(data)
    for json_, toml_ in (("-Infinity", "-inf"), ("Infinity", "inf"), ("NaN", "nan")):
        text = text.replace(json_, toml_)
    return text


@st.composite
def suites(draw):
    """The text of a suite, and its label."""
    kind = draw(
        st.sampled_from(
            [
                *("drop", "retype", "number", "unknown", "deep", "date", "text", "cut", "own"),
                *("comment", "order", "indent", "bom", "twice", "null", "extends", "long key"),
            ]
        )
    )
    note(kind)
    if kind == "drop":
        path = draw(st.sampled_from(REQUIRED))
        note(str(path))
        return toml(drop(SMOKE, path)), "harmful"
    if kind in ("retype", "number"):
        path = draw(st.sampled_from(VALUES))
        old = get(SMOKE, path)
        wrong = NUMBERS if kind == "number" else (*WRONG[:2], True, "x", 0.5, [])
        value = draw(
            st.sampled_from([v for v in wrong if type(v) is not type(old) or kind == "number"])
        )
        if isinstance(old, float) and value == 0.5:
            value = "0.5"
        if path == ("synthetic", "seed") and isinstance(value, int) and abs(value) <= 2**53:
            value = "0"
        note(f"{path} {value}")
        return toml(put(SMOKE, path, value)), "harmful"
    if kind == "own":  # of a task or a recipe
        path = draw(st.sampled_from(OWN))
        value = draw(
            st.sampled_from([{"x": 1}, [[{"x": 1}]], float("nan"), float("inf"), -(10**9)])
        )
        note(f"{path} {value}")
        return toml(put(SMOKE, path, value)), "harmful"
    if kind == "unknown":
        table = draw(st.sampled_from([p for p in SECTIONS if p not in (("recipes",), ("tasks",))]))
        key = draw(st.sampled_from(["x", "", "a b", "Views", "é", "view", "x" * 3000, "a.b"]))
        if table == ("datasets",):
            key = "x"
        return toml(put(SMOKE, (*table, key), draw(st.sampled_from([1, "x", []])))), "harmful"
    if kind == "deep":
        table = draw(st.sampled_from(SECTIONS))
        depth = draw(st.sampled_from([40, 200]))
        changed = put(SMOKE, (*table, "x"), nested(depth, draw(st.booleans())))
        return toml(changed), "harmful"
    if kind == "date":
        value = draw(
            st.sampled_from(["1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", "0x7fg", "1__0"])
        )
        path = draw(
            st.sampled_from(
                [path for path in VALUES if len(path) == 2 and path[0] == "pretraining"]
            )
        )
        return toml(put(SMOKE, path, "DATE")).replace('"DATE"', value), "harmful"
    if kind == "text":
        path = draw(
            st.sampled_from([("name",), ("backbone", "name"), ("pretraining", "optimizer")])
        )
        value = draw(st.sampled_from([t for t in TEXTS if t != "x"]))
        label = "harmless" if path == ("backbone", "name") else "harmful"
        return toml(put(SMOKE, path, value)), label if label == "harmful" else "other"
    if kind == "cut":
        opening = [place for place, letter in enumerate(TEXT) if letter == '"'][::2]
        return TEXT[: draw(st.sampled_from(opening)) + 1], "harmful"
    if kind == "comment":
        comment = draw(st.sampled_from(["# x\n", "# \u202e é\n", "\n\n", "#\t[x]\n", "\r\n"]))
        lines = TEXT.splitlines(keepends=True)
        place = draw(st.integers(0, len(lines)))
        return "".join([*lines[:place], comment, *lines[place:]]), "harmless"
    if kind == "order":
        keys = draw(st.permutations([k for k in SMOKE]))
        return toml({key: SMOKE[key] for key in keys}), "harmless"
    if kind == "indent":
        space = draw(st.sampled_from([" ", "\t", "    "]))
        return "".join(f"{space}{line}\n" for line in TEXT.splitlines()), "harmless"
    if kind == "bom":
        wrap = draw(st.sampled_from(["utf-16", "utf-32", "cp500"]))
        return TEXT.encode(wrap), "harmful"
    if kind == "twice":
        line = draw(st.sampled_from([x for x in TEXT.splitlines() if " = " in x or x[:1] == "["]))
        return TEXT.replace(f"{line}\n", f"{line}\n{line}\n", 1), "harmful"
    if kind == "null":
        place = draw(st.integers(0, len(TEXT)))
        odd = draw(st.sampled_from([b"\0", b"\xff", b"\xc3\x28", b"\x7f"]))
        return TEXT[:place].encode() + odd + TEXT[place:].encode(), "harmful"
    if kind == "extends":
        base = draw(
            st.sampled_from(["nosuch", "own.toml", "../x.toml", "/dev/zero.toml", "a\0.toml"])
        )
        wrong = draw(
            st.sampled_from([f'"{base}"'.replace("\0", "\\u0000"), "1", "[]", "{}", "true"])
        )
        return f"extends = {wrong}\n{TEXT}", "harmful"
    key = ".".join(["x"] * draw(st.sampled_from([40, 5_000])))
    value = draw(st.sampled_from(["1", "[" * 5_000 + "]" * 5_000, "{a=" * 500 + "1" + "}" * 500]))
    return f"{key} = {value}\n{TEXT}", "harmful"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("suites")


@examples(300)
@given(made=suites())
def test_a_suite_of_any_content(place, made):
    text, label = made
    path = write(place / "own.toml", text)
    result = attempt("toml", lambda: resolved(loader.load(str(path))))
    if label != "other":
        check(label, result, resolved(loader.load("smoke")))


@pytest.mark.parametrize("spoil", NO_FILES)
def test_a_suite_that_is_no_file(place, spoil):
    path = place / "none.toml"
    spoil(path)
    result = attempt("toml", lambda: loader.load(str(path)))
    check("harmful", result, None)


@st.composite
def overrides(draw):
    """A `--set`, and its label."""
    dotted = {path: ".".join(path) for path in VALUES if all(isinstance(p, str) for p in path)}
    path = draw(st.sampled_from(sorted(dotted)))
    old = get(SMOKE, path)
    kind = draw(st.sampled_from(["same", "wrong", "wrong", "wrong", "syntax", "key", "lines"]))
    space = draw(st.sampled_from(["", " ", "\t"]))
    if kind == "same":
        return f"{space}{dotted[path]}{space}={space}{json.dumps(old)}", "harmless"
    if kind == "wrong":
        wrong = ["nan", "inf", "-inf", "1e400", "1979-05-27", "[[1]]", "{x=1}", "-" + "9" * 30]
        wrong += ["9" * 5_000, "[" * 5_000, "[" * 100 + "]" * 100, "{a=" * 100 + "1" + "}" * 100]
        value = draw(st.sampled_from(wrong))
        if isinstance(old, str):  # what is no TOML is a word
            value = draw(st.sampled_from(["1", "nan", "[]", "{}", "true", "1979-05-27", "{x=1}"]))
        return f"{dotted[path]}={value}", "harmful"
    if kind == "syntax":
        return draw(
            st.sampled_from(["", "=", "x", "=1", "x.=1", ".x=1", "..=1", " = ", "a b=1"])
        ), "harmful"
    if kind == "key":
        odd = [
            "x" * 10_000,
            ".".join("x" * 5_000),
            "datasets",
            "name.x",
            f"{dotted[path]}.x",
            "\0",
            "é",
        ]
        return f"{draw(st.sampled_from(odd))}=1", "harmful"
    return f"{dotted[path]}=1\n{draw(st.sampled_from(['x', dotted[path]]))} = 2", "harmful"


@examples(250)
@given(made=overrides())
def test_an_override_of_any_content(made):
    text, label = made
    result = attempt("--set", lambda: resolved(loader.load("smoke", [text])))
    check(label, result, resolved(loader.load("smoke")))


@examples(30)
@given(made=overrides(), dry=st.booleans())
def test_a_command_with_an_override(place, made, dry):
    text, label = made
    out = place / "out"
    arguments = ["run", "--methods", "random_init", "--tasks", "voc_cls", "--suite", "smoke"]
    arguments += ["--out", out, "--cache", place / "cache", "--dry-run", "--set", text]
    temporary = Path(tempfile.gettempdir()) / "tmp"  # a plan keeps what it resolves there
    ended = bench("--set", arguments, out, place / "cache", temporary)
    assert ended.status == (2 if label == "harmful" else 0), ended.err
    assert not out.exists()


class Beside:
    """A folder of records with the other files that leaderboards read."""

    def __init__(self, folder):
        save(folder, "rotation", 0.8)
        calibrate(folder)
        self.folder = folder / "made"
        self.toml = self.folder / calibration.FILE
        self.text = self.toml.read_text()
        self.tables = tomllib.loads(self.text)
        self.known = self.read()
        self.audit = {
            "suite": "made",
            "pretraining": {"fingerprint": "a", "num_images": 5},
            "tests": {"voc_test": {"fingerprint": "d", "num_images": 120}},
            "thresholds": {"hash": "x", "bits": 8, "side": 32, "difference": 1.5},
            "duplicates": [
                {
                    **{"split": "voc_test", "test": "a", "pretraining": "b", "mirrored": False},
                    **{"bits": 3, "difference": 0.5},
                }
            ],
        }

    def read(self):
        return calibration.read(self.folder, "made", "a" * 64)


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    return Beside(tmp_path_factory.mktemp("beside"))


@examples(80)
@given(data=st.data())
def test_a_calibration_of_any_content(beside, data):
    section = beside.tables["uncertainty"]
    every = leaves(section)
    kind = data.draw(st.sampled_from(["drop", "retype", "number", "unknown", "cut", "comment"]))
    path = data.draw(st.sampled_from(every))
    label = "harmful"
    if kind == "drop":
        path = data.draw(
            st.sampled_from([p for p in every if p[-1] != "interaction" and isinstance(p[-1], str)])
        )
        changed = drop(section, path)
    elif kind == "retype":
        changed = put(section, path, data.draw(st.sampled_from([*WRONG[:3], True])))
    elif kind == "number":
        numbers = [p for p in every if isinstance(get(section, p), int | float)]
        value = data.draw(st.sampled_from([math.nan, math.inf, -1.0, 1e9, -5, 2**60]))
        changed = put(section, data.draw(st.sampled_from(numbers)), value)
        if changed == section or (path[-1] == "version" and value == 2**60):
            return
    elif kind == "unknown":
        changed = put(section, data.draw(st.sampled_from([("x",), ("tasks", "voc_cls", "x")])), 1)
    else:
        changed = section
    text = toml({"uncertainty": changed})
    if kind == "cut":
        opening = [place for place, letter in enumerate(text) if letter == '"'][::2]
        text = text[: data.draw(st.sampled_from(opening)) + 1]
    if kind == "comment":
        text = f"# x\n{text}\n\n[other]\nx = 1\n"
        label = "harmless"
    note(f"{kind} {path}")
    write(beside.toml, text)
    check(label, attempt("toml", beside.read), beside.known)


@examples(80)
@given(data=st.data())
def test_an_audit_of_any_content(beside, data):
    path = beside.folder / audit.FILE
    write(path, json.dumps(beside.audit))
    expected = audit.read(beside.folder)
    every = leaves(beside.audit)
    kind = data.draw(st.sampled_from(["drop", "retype", "number", "unknown", "cut", "space"]))
    place = data.draw(st.sampled_from(every))
    note(f"{kind} {place}")
    changed = copy.deepcopy(beside.audit)
    if kind == "drop":
        changed = drop(changed, place)
    elif kind == "retype":
        changed = put(changed, place, data.draw(st.sampled_from(WRONG)))
    elif kind == "number":
        numbers = [p for p in every if type(get(changed, p)) in (int, float)]
        value = data.draw(st.sampled_from([math.nan, math.inf, -1.0, -5, -(10**400)]))
        changed = put(changed, data.draw(st.sampled_from(numbers)), value)
    elif kind == "unknown":
        changed["x"] = data.draw(st.sampled_from([1, None, {}]))
    text = json.dumps(changed, indent=data.draw(st.sampled_from([None, 2])))
    if kind == "cut":
        text = data.draw(mutations.cuts(text, 1))
    write(path, text)
    result = attempt("json", lambda: audit.read(beside.folder))
    path.unlink()
    check("harmless" if kind == "space" else "harmful", result, expected)
