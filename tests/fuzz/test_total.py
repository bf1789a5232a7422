"""The number of inputs, where the whole suite ran."""

import pytest
from fuzz.harness import FOLDER, INPUTS, executed


def test_enough_inputs_were_executed(request):
    modules = {item.path for item in request.session.items if item.path.parent == FOLDER}
    if modules < {*FOLDER.glob("test_*.py")}:
        pytest.skip("only a part of the suite runs")
    assert sum(executed.values()) >= INPUTS
