"""README, docs and every text that a user reads: length, words, links and commands."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from printed import blocks, parse

from bench.reporting import columns

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]
LEADERBOARDS = sorted((ROOT / "results/reference").glob("*/LEADERBOARD.md"))
CODE = sorted((ROOT / "bench").rglob("*.py"))
PLUGINS = sorted([*(ROOT / "methods").glob("*.py"), *(ROOT / "tasks").glob("*.py")])
LISTS = tomllib.loads((Path(__file__).parent / "phrases.toml").read_text())
AVOIDED = {
    re.compile(rf"(?<![\w/-])(?:{phrase})(?![\w/])", re.IGNORECASE): better
    for phrases in LISTS.values()
    for phrase, better in phrases.items()
}


def relative(path):
    return str(path.relative_to(ROOT))


def avoided(text):
    """The phrases of a text that the list names, each with the better one."""
    text = " ".join(text.split())
    return [f"{m[0]!r}: {better}" for p, better in AVOIDED.items() for m in p.finditer(text)]


def prose(path):
    """The texts of a Python file: docstrings and messages, not the names of keys."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.value


def sentences(text):
    """The sentences of a page's paragraphs, list items and headings; of tables each cell."""
    for token in MarkdownIt().enable("table").parse(text):
        if token.type == "inline":
            plain = "".join(
                " " if child.type in ("softbreak", "hardbreak") else child.content
                for child in token.children
                if child.type != "image"
            )
            yield from re.split(r"(?<=[.!?;])\s+", plain)


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    names = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", name.lower()).replace(" ", "-") for name in names}


def commands(text):
    """The calls of `bench` in a page's code, in blocks and in lines."""
    inline = re.findall(r"`(bench [^`]+)`", text)
    lines = [line for _, code in blocks(text) for line in code.splitlines()]
    calls = [part for line in [*lines, *inline] for part in line.split("&&")]
    return [call.strip() for call in calls if re.match(r"\s*bench [a-z-]", call)]


def test_readme_is_short():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 1300


def test_no_sentence_of_readme_has_more_than_thirty_words():
    words = {s: len(re.findall(r"[\w'`-]*\w[\w'`-]*", s)) for s in sentences(README.read_text())}
    assert {s: count for s, count in words.items() if count > 30} == {}


def test_the_phrases_are_detected():
    text = "Pictures of the test list lie beside the board; 95 % of over `random_init`, normalised."
    assert len(avoided(text)) == 7
    good = "An image of the test split; 95% of the gain over `random_init`, normalized."
    assert avoided(good) == []


@pytest.mark.parametrize("path", [*PAGES, *LEADERBOARDS], ids=relative)
def test_no_page_has_a_phrase_that_the_list_avoids(path):
    assert avoided(path.read_text()) == []


@pytest.mark.parametrize("path", [*CODE, *PLUGINS], ids=relative)
def test_no_text_in_the_code_has_a_phrase_that_the_list_avoids(path):
    assert [hit for text in prose(path) for hit in avoided(text)] == []


def test_the_glossary_has_no_phrase_that_the_list_avoids():
    for column in columns.COLUMNS:
        assert avoided(f"{column.heading} {column.help}") == [], column.key


@pytest.mark.parametrize("path", [*PAGES, ROOT / "CHANGELOG.md"], ids=relative)
def test_every_relative_link_leads_somewhere(path):
    targets = re.findall(r"\]\(([^)\s]+)\)", path.read_text())
    for target in targets:
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_every_page_of_docs_is_in_its_index():
    text = (ROOT / "docs/index.md").read_text()
    assert {p.name for p in (ROOT / "docs").glob("*.md") if f"({p.name})" not in text} == {
        "index.md"
    }


def test_code_that_names_a_page_of_docs_names_one_that_exists():
    others = [*(ROOT / "benchmarks").glob("*.*"), *(ROOT / "tests").rglob("*.py")]
    for path in [*CODE, *PLUGINS, *others]:
        for name in re.findall(r"docs/\w+\.md", path.read_text()):
            assert (ROOT / name).exists(), (path, name)


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_every_command_of_a_page_parses(path):
    calls = commands(path.read_text())
    assert path != README or len(calls) >= 5
    for call in calls:
        parse(call)


def test_the_set_up_commands_of_readme_are_those_of_ci():
    code = [code.strip() for _, code in blocks(README.read_text())]
    assert code[0] == "pip install -e . && bench run --methods all --tasks voc_cls"
    assert code[1] == "pip install -e '.[dev]' && pytest -n 2 --dist loadfile"
    assert "pip install --quiet -e '.[dev]'" in (ROOT / ".ci/run").read_text()
