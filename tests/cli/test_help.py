"""Help, version and shell completion."""

import os
import subprocess
import sys

import pytest
import typer

from bench import cli

VERBS = sorted(typer.main.get_command(cli.app).commands)

COMPLETE = """
import atexit, sys
sys.argv = ["bench"]
from bench.cli import main
atexit.register(lambda: print("torch" in sys.modules, file=sys.stderr))
main()
"""


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_every_help_has_an_example(bench, verb):
    shown = bench(*verb.split(), "--help")
    assert shown.status == 0
    text = " ".join(shown.out.split())
    assert f"Example: bench {verb or 'run'} " in text


def test_the_version_is_printed(bench):
    shown = bench("--version")
    assert (shown.status, shown.out.split()[0]) == (0, "ssl-gap")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("bench run --suite mi", ["mini"]),
        ("bench run --methods rot", ["rotation"]),
        ("bench run --methods rotation,ji", ["rotation,jigsaw"]),
        ("bench run --tasks voc_cls,voc_cls", ["voc_cls,voc_cls_finetune"]),
        ("bench audit --tasks a", ["all"]),
        ("bench run --suite ./my", []),
        ("bench data get voc20", ["voc2007", "voc2012"]),
    ],
)
def test_names_are_completed_without_torch(line, expected):
    asked = {"COMP_WORDS": line, "COMP_CWORD": "3", "_BENCH_COMPLETE": "complete_bash"}
    done = subprocess.run(
        [sys.executable, "-c", COMPLETE], capture_output=True, text=True, env=os.environ | asked
    )
    assert done.stdout.split() == expected
    assert done.stderr.strip() == "False", "torch was imported"
