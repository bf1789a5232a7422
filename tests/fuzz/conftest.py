"""Every test of this folder is of the fuzz suite, whose inputs are counted."""

import pytest
from fuzz.harness import FOLDER, INPUTS, executed


def pytest_collection_modifyitems(items):
    """Mark the tests of this folder, and let the one that counts be the last."""
    for item in items:
        if item.path.parent == FOLDER:
            item.add_marker(pytest.mark.fuzz)
            item.add_marker(pytest.mark.nightly)
    items.sort(key=lambda item: item.path.parent == FOLDER and item.path.stem == "test_total")


def pytest_terminal_summary(terminalreporter):
    """Print how many inputs of each kind were executed."""
    if executed:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(executed.items()))
        total = sum(executed.values())
        terminalreporter.write_line(f"fuzz: {total:,} inputs (at least {INPUTS:,}): {kinds}")
