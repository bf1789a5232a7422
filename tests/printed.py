"""The commands that pages print, in the order in which a reader meets them."""

import re
import shlex
from pathlib import Path

import typer
from markdown_it import MarkdownIt

from bench import cli

COMMANDS = typer.main.get_command(cli.app)
FILE = re.compile(r"`(\w+\.(?:py|toml))`")  # by which a text introduces a block of code
SUFFIX = {"python": ".py", "toml": ".toml"}
RUN = re.compile(r"(?:bench [a-z-]|cp |torchrun )")


def blocks(text):
    """The fenced code of a page: (language, code)."""
    return [(t.info, t.content) for t in MarkdownIt().parse(text) if t.type == "fence"]


def steps(text):
    """What a reader does: ("run", command), ("write", (file, content)) and ("python", code).

    A command in a sentence is a ("mention", command).
    """
    name = ""
    for token in MarkdownIt().enable("table").parse(text):
        if token.type == "inline":
            named = FILE.findall(token.content)
            name = named[-1] if named else ""
            calls = re.findall(r"`(bench [a-z-][^`]*)`", token.content)
            yield from (("mention", call) for call in calls)
        elif token.type == "fence" and token.info in ("", "sh"):
            parts = [part for line in token.content.splitlines() for part in line.split("&&")]
            yield from (("run", part.strip()) for part in parts if RUN.match(part.strip()))
        elif token.type == "fence" and Path(name).suffix == SUFFIX.get(token.info, "none"):
            yield "write", (name, token.content)
        elif token.type == "fence" and token.info == "python":
            yield "python", token.content


def words(command):
    """The words of a command, without its comment."""
    return shlex.split(command, comments=True)


def parse(call):
    """Parse a call of `bench` without running it; a name alone only names the command."""
    name, *rest = words(call)[1:]
    if name.startswith("-"):
        return COMMANDS.make_context("bench", [name], resilient_parsing=True)
    command = COMMANDS.get_command(typer.Context(COMMANDS), name)
    assert command is not None, f"no command {name}"
    return command.make_context(name, rest, resilient_parsing=not rest)
