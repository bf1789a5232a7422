"""The command line as records have it."""

import pytest

from bench.commands.request import recorded_command


@pytest.mark.parametrize(
    ("argument", "recorded"),
    [
        ("/home/someone/cache", "cache"),
        ("--out=/home/someone/out", "--out=out"),
        ("/home/someone/flip.py,rotation,/elsewhere/turn.py", "flip.py,rotation,turn.py"),
        ("results/local", "results/local"),
        ("pretraining.views=64", "pretraining.views=64"),
    ],
)
def test_a_record_names_no_folder_of_somebodys_machine(argument, recorded):
    assert recorded_command(["run", argument]) == ("bench", "run", recorded)
