"""docs/checkpoints.md lists the layouts that are read and refused, in their order."""

from pathlib import Path

from bench.encoders.checkpoint.layouts import LAYOUTS

PAGE = Path(__file__).parents[2] / "docs" / "checkpoints.md"


def test_every_layout_is_listed():
    lines = PAGE.read_text().partition("## Layouts")[2].splitlines()
    read = [f"| {one.name} | {one.source} | {one.license} |" for one in LAYOUTS if not one.refuse]
    refused = [f"| {one.name} | {one.refuse} |" for one in LAYOUTS if one.refuse]
    table = [line for line in lines if line.startswith("| ") and " --- " not in line]
    assert table == [table[0], *read, table[1 + len(read)], *refused]
