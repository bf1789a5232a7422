"""docs/results.md: every estimate in its tables is that of a leaderboard, for the row it names."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/results.md").read_text()
ESTIMATE = r"-?\d+\.\d \[-?\d+\.\d, -?\d+\.\d\]"
NAME = re.compile(r"`([\w-]+)`")


def claims():
    """Suite, row and estimate of every cell; the suite is that of the heading or the table."""
    suite = ""
    for line in PAGE.splitlines():
        named = re.match(r"(?:## .*\(|\| `)(mini|tiny)[`)]", line)
        suite = named[1] if named else "" if line.startswith("## ") else suite
        if not line.startswith("| ") or named:
            continue
        first, *cells = line.strip("| ").split(" | ")
        row = NAME.search(first)
        for cell in cells:
            for own, estimate in re.findall(rf"(?:`([\w-]+)` )?({ESTIMATE})", cell):
                yield suite, own or row[1], estimate


CLAIMS = list(claims())


def test_the_page_has_tables_of_both_suites():
    assert {suite for suite, *_ in CLAIMS} == {"mini", "tiny"}
    assert len(CLAIMS) > 300


@pytest.mark.parametrize("suite", ["mini", "tiny"])
def test_every_estimate_is_on_the_leaderboard(suite):
    board = (ROOT / f"results/reference/{suite}/LEADERBOARD.md").read_text().splitlines()
    lines = {
        name: [line for line in board if f"`{name}`" in line or line.startswith(f"| {name} ")]
        for name in {name for _, name, _ in CLAIMS}
    }
    for where, name, estimate in CLAIMS:
        if where == suite:
            assert any(estimate in line for line in lines[name]), f"{name}: {estimate}"
