"""What mkdocs adds to the pages of docs/: pages that are elsewhere, and pages made of the code.

The site has the layout of the repository, without the level of docs/. A link from a page to a file
of the repository leads to that file's page, on the site as on GitHub. Nothing that is made here is
in the repository.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from click.testing import CliRunner
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page
from pydantic import BaseModel

import bench.metrics
from bench import cli, plugins
from bench.config import loader, schema
from bench.results import record

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "results/reference"
SUITES = ROOT / "bench/config/suites"
# What the site has from outside of docs/, by its place in the repository.
ELSEWHERE = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md"),
    *("results/reference/**/*.*", "results/literature/*.*"),
)
# Files to which pages link, and which the site shows as they are.
TEXTS = (
    *("CITATION.cff", "bench/statistics/model.py"),
    "bench/statistics/rank_correlation.py",
)
LANGUAGES = {".py": "python", ".toml": "toml", ".cff": "yaml"}
# Places on the site that are other ones than in the repository.
MOVED = {"README.md": "get-started.md", "methods": "methods.md", "results/reference": "results.md"}
CACHE = "~/.cache/ssl-gap"  # in the help, for the folder of whoever builds the site
LINK = re.compile(r"(?<=\]\()[^)\s#]+")
NUMBER = re.compile(r"\[(\d+)\](?= \[)")  # of a source, before its link; else one link of both
SUITE: tuple[type[BaseModel], ...] = (
    *(schema.Suite, schema.Backbone, schema.Synthetic),
    *(schema.ImageFolder, schema.Voc, schema.VocMasks, schema.Coco),
    *(schema.Recipe, schema.FineTuning),
)
RECORD: tuple[type[BaseModel], ...] = (
    *(record.Record, record.EncoderFacts, record.HyperparameterFacts, record.Provenance),
)
PYTHON = ("evaluate", "load_results", "PretextTask", "Task", "Encoder")


def place(path: str) -> str:
    """The place on the site of a file of the repository."""
    if Path(path).suffix in LANGUAGES and not path.startswith("results/"):
        return str(Path(path.removeprefix("bench/config/")).with_suffix(".md"))
    return MOVED.get(path, path.removeprefix("docs/"))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the other pages, and put their names in the places that `nav` has for them."""
    for pattern in ELSEWHERE:
        for path in sorted(ROOT.glob(pattern)):
            where = place(str(path.relative_to(ROOT)))
            files.append(File.generated(config, where, abs_src_path=str(path)))
    pages: dict[str, dict[str, str]] = {
        "methods": {f"methods/{n}.md": plugin_page("methods", n) for n in plugins.names("methods")},
        "tasks": {f"tasks/{n}.md": plugin_page("tasks", n) for n in plugins.names("tasks")},
        "suites": {f"suites/{name}.md": suite_page(name) for name in loader.names()},
        "reference": dict(reference_pages()),
    }
    for made in pages.values():
        for where, content in made.items():
            files.append(File.generated(config, where, content=content))
    for where in TEXTS:
        text = f"# {where}\n\n{code(ROOT / where)}"
        hidden = InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, place(where), content=text, inclusion=hidden))
    boards = sorted(REFERENCE.glob("*/LEADERBOARD.md"))
    named: dict[str, list[Any]] = {group: list(made) for group, made in pages.items()}
    named["leaderboards"] = [{f.parent.name: str(f.relative_to(ROOT))} for f in boards]
    for section in config.nav or []:
        for title, items in section.items() if isinstance(section, dict) else []:
            if isinstance(items, list):
                section[title] = [new for item in items for new in named.get(str(item), [item])]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files of the repository lead to their pages."""
    if page.file.abs_src_path is None:  # made here
        return markdown
    folder = Path(page.file.abs_src_path).parent

    def moved(link: re.Match[str]) -> str:
        path = os.path.relpath(folder / link[0], ROOT)
        if not (ROOT / path).exists():
            return link[0]
        return os.path.relpath(place(path), Path(page.file.src_uri).parent)

    return LINK.sub(moved, NUMBER.sub(r"\\[\1\\]", markdown))


def on_post_build(config: MkDocsConfig) -> None:
    """Put the files beside the web pages of leaderboards that link to them as they are."""
    for path in REFERENCE.glob("*/LEADERBOARD.md"):
        shutil.copy(path, Path(config.site_dir) / path.relative_to(ROOT))


def code(path: Path) -> str:
    """A file as a block of code."""
    return f"````{LANGUAGES[path.suffix]}\n{path.read_text()}````\n"


def folded(title: str, text: str) -> str:
    """A text that is shown on a click."""
    lines = ["    " + line if line else "" for line in text.splitlines()]
    return "\n".join([f'??? note "{title}"', "", *lines, ""])


def plugin_page(kind: plugins.Kind, name: str) -> str:
    """The page of a method or a task: its docstring, images, settings and code."""
    described, cls = plugins.describe(kind, name), plugins.load(kind, name)
    path = ROOT / kind / f"{name}.py"
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    text = re.sub(r"docs/(\w+\.md)", r"[docs/\1](../\1)", text)
    facts = {"reference": described.constants["reference"], "version": described.version}
    if kind == "tasks":
        facts |= {"main score": cls.metric, "data sets": ", ".join(cls.dataset_kinds)}
    else:
        facts |= {"input": ", ".join(described.inputs)}
        facts |= {"backbones": described.backbones} if described.backbones else {}
    first, *others = [f"| {key} | {value} |" for key, value in facts.items()]
    parts = [f"# {name}", text, "\n".join([first, "| --- | --- |", *others])]
    parts += images(kind, name, cls)
    if described.has_settings:
        parts += ["## Keys", f"Of `[{'recipes' if kind == 'methods' else 'tasks'}.{name}]`."]
        parts.append(fields(cls.Settings, heading=False))
    return "\n\n".join([*parts, folded(f"{kind}/{name}.py", code(path))])


def images(kind: plugins.Kind, name: str, cls: Any) -> list[str]:
    """What a method generates or networks predict in `mini`, with its docstring's words for it."""
    found = f"voc_cls/{name}/samples.png" if kind == "methods" else f"{name}/*/predictions.png"
    paths = [path.relative_to(ROOT) for path in sorted((REFERENCE / "mini").glob(found))]
    if not paths:
        return []
    of_class = getattr(cls, "visualize", None)
    legend = (inspect.getdoc(of_class) if of_class else "The last images are predictions") or ""
    shown = [f"![{path.stem}](../{path})" for path in paths]
    if kind == "tasks":
        shown = [
            f"`{path.parent.name}`:\n\n{image}" for path, image in zip(paths, shown, strict=True)
        ]
    heading = f"## {paths[0].stem.capitalize()}"
    return [heading, f"Suite `mini`. {legend.partition(chr(10))[0]}", *shown]


def suite_page(name: str) -> str:
    """The page of a suite: its summary and its file."""
    path = SUITES / f"{name}.toml"
    return f"# {name}\n\n{loader.load(name).summary}.\n\n{code(path)}"


def fields(model: type[BaseModel], heading: bool = True) -> str:
    """The keys of a section or record, by mkdocstrings."""
    module = re.sub(r"^bench\.(?=methods\.|tasks\.)", "", model.__module__)
    options = {
        "members": str(list(model.model_fields)),
        "show_root_heading": str(heading).lower(),
        "show_root_toc_entry": str(heading).lower(),
    }
    lines = [f"        {key}: {value}" for key, value in options.items()]
    return "\n".join([f"::: {module}.{model.__qualname__}", "    options:", *lines])


def reference_pages() -> Iterator[tuple[str, str]]:
    """The pages of the reference by their places."""
    yield "reference/command-line.md", "\n\n".join(["# Command line", *command_line()])
    keys = "Every key of a suite's file; a task's page has those of its section."
    yield "reference/suite.md", "\n\n".join(["# Suite keys", keys, *map(fields, SUITE)])
    kept = "A record is a JSON file; the predictions are beside it (`.npz`)."
    yield "reference/record.md", "\n\n".join(["# Record", kept, *map(fields, RECORD)])
    names = [f"::: bench.{name}" for name in PYTHON]
    yield "reference/python.md", "\n\n".join(["# Python", *names])
    metrics = [f"::: bench.metrics.{name}" for name in bench.metrics.__all__]
    text = inspect.getdoc(bench.metrics) or ""
    yield "reference/metrics.md", "\n\n".join(["# Metrics", text, *metrics])


def command_line() -> Iterator[str]:
    """The help of every command, as the terminal shows it."""
    app: Any = typer.main.get_command(cli.app)
    for words in verbs(app):
        call = [*words, "--help"]
        shown = CliRunner().invoke(app, call, prog_name="bench", env={"COLUMNS": "78"})
        lines = [line.rstrip() for line in shown.output.strip("\n").splitlines()]
        text = "\n".join(lines).strip("\n")
        yield f"## {' '.join(['bench', *words])}\n\n```text\n{text}\n```"


def verbs(command: Any) -> Iterator[list[str]]:
    """The words of a command and of those below it."""
    for parameter in command.params:
        if parameter.name == "cache":
            parameter.show_default = CACHE
    yield []
    for name, below in getattr(command, "commands", {}).items():
        yield from ([name, *words] for words in verbs(below))
