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
        ("bench run --suite ti", ["tiny"]),
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


def test_what_a_library_raises_over_the_arguments_is_one_line(bench, monkeypatch):
    def broken(*arguments):
        raise ValueError("no number")

    monkeypatch.setattr(typer.core.TyperGroup, "parse_args", broken)
    shown = bench("list")
    assert shown.status == 2
    assert shown.err == "bench: the arguments cannot be read: ValueError: no number\n"


def test_what_a_command_raises_is_not_of_the_arguments(bench, monkeypatch):
    def broken(kind):
        raise ValueError("a fault of ours")

    monkeypatch.setattr("bench.commands.list.lines", broken)
    with pytest.raises(ValueError, match="a fault of ours"):
        bench("list")
