"""CSV files of published numbers: the same page, or one line."""

import csv
import io

import pytest
from fuzz import mutations
from fuzz.harness import NO_FILES, attempt, bench, check, examples, write
from hypothesis import given, note
from hypothesis import strategies as st

from bench.reporting import literature

HEAD = list(literature.Number.model_fields)
ROWS = [
    [
        "rotation",
        "VOC07",
        "mAP",
        "54.4",
        "net",
        "ImageNet",
        "fine",
        "a, b",
        "https://a.b/c",
        "verified",
        "",
    ],
    [
        "jigsaw",
        "VOC07",
        "mAP",
        "53.2",
        "net",
        "",
        "fine",
        'c "d"',
        "https://a.b/d",
        "unverified",
        "x; y",
    ],
    [
        "jigsaw",
        "VOC12",
        "mAP",
        "100.0",
        "net",
        "none",
        "fine",
        "e",
        "https://a.b/e",
        "verified",
        "z",
    ],
]


def text_of(rows, head=HEAD, **options):
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n", **options)
    writer.writerows([head, *rows])
    return stream.getvalue()


TEXT = text_of(ROWS)


@st.composite
def files(draw):
    """The bytes of a CSV file, and their label."""
    kind = draw(
        st.sampled_from(
            [
                "value",
                "url",
                "status",
                "empty",
                "cells",
                "head",
                "twice",
                "cut",
                "bytes",
                "quotes",
                "ends",
            ]
        )
    )
    rows = [list(row) for row in ROWS]
    row = rows[draw(st.integers(0, len(rows) - 1))]
    note(kind)
    if kind == "value":
        row[3] = draw(
            st.sampled_from(
                [
                    "",
                    "x",
                    "nan",
                    "inf",
                    "-1",
                    "100.1",
                    "1e1",
                    "101",
                    " 5",
                    "5 ",
                    "5.",
                    ".5",
                    "\u0665",
                    "5\n",
                    "9" * 500,
                ]
            )
        )
    elif kind == "url":
        row[8] = draw(
            st.sampled_from(
                ["", "http://a", "javascript:x", "https://", "https://a b", " https://a"]
            )
        )
    elif kind == "status":
        row[9] = draw(st.sampled_from(["", "Verified", "x", "conflicting", "verified "]))
    elif kind == "empty":
        row[draw(st.sampled_from([0, 1, 2, 4, 6, 7]))] = ""
    elif kind == "cells":
        change = draw(
            st.sampled_from([lambda r: r.pop(), lambda r: r.append("x"), lambda r: r.clear()])
        )
        change(row)
    elif kind == "head":
        head = draw(
            st.sampled_from([HEAD[:-1], HEAD[::-1], [*HEAD, "x"], [], [h.upper() for h in HEAD]])
        )
        return text_of(rows, head), "harmful"
    elif kind == "twice":
        rows.append(list(row))
    elif kind == "cut":
        line = draw(st.integers(0, 2))
        whole = TEXT.splitlines(keepends=True)
        part = draw(mutations.cuts(whole[line + 1].rstrip("\n,"), 3))
        return "".join(whole[: line + 1]) + (part or "x"), "harmful"
    elif kind == "bytes":
        odd = [b"\xff", b"\xc3\x28", b"\0,\0", b'"', b"x", b"\xfe\xff"]
        return TEXT.encode() + draw(st.sampled_from(odd)), "harmful"
    elif kind == "quotes":
        return text_of(rows, quoting=csv.QUOTE_ALL), "harmless"
    else:
        ends = draw(st.sampled_from(["\r\n", "\n"]))
        return TEXT.replace("\n", ends), "harmless"
    return text_of(rows), "harmful"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("csv")


def page(place):
    return literature.markdown(literature.read_all(place))


@examples(120)
@given(made=files())
def test_a_csv_file_of_any_content(place, made):
    write(place / "net.csv", TEXT)
    expected = page(place)
    content, label = made
    write(place / "net.csv", content)
    check(label, attempt("csv", lambda: page(place)), expected)


@pytest.mark.parametrize("spoil", NO_FILES)
def test_what_is_no_file(place, spoil):
    spoil(place / "net.csv")
    try:
        check("harmful", attempt("csv", lambda: page(place)), None)
        ended = bench("csv", ["literature", "--check", "--out", place])
        assert ended.status == 2
    finally:
        write(place / "net.csv", TEXT)
