"""The documentation site is built without a warning, and every link in it leads somewhere."""

import importlib.util
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from bench import plugins
from bench.config import loader

ROOT = Path(__file__).parents[2]
LINKS = {"href", "src"}


class Html(HTMLParser):
    """The links of a page, and the places to which others can lead."""

    def __init__(self, path):
        super().__init__()
        self.links, self.anchors, self.loaded = set(), set(), set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors |= {found.get("id"), found.get("name")}
        self.links |= {found[key] for key in LINKS & found.keys()}
        if tag in ("script", "img", "link", "iframe"):
            self.loaded |= {found[key] for key in LINKS & found.keys()}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, and what mkdocs said."""
    if not all(map(importlib.util.find_spec, ("mkdocs", "material", "mkdocstrings"))):
        pytest.skip("mkdocs is not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stderr


@pytest.fixture(scope="module")
def pages(site):
    return {path: Html(path) for path in sorted(site[0].rglob("*.html"))}


def test_it_is_built_without_a_warning(site):
    assert "Documentation built" in site[1]
    assert "WARNING" not in site[1]


def test_every_method_task_suite_and_leaderboard_has_a_page(site):
    expected = [f"methods/{name}" for name in plugins.names("methods")]
    expected += [f"tasks/{name}" for name in plugins.names("tasks")]
    expected += [f"suites/{name}" for name in loader.names()]
    boards = (ROOT / "results/reference").glob("*/LEADERBOARD.md")
    expected += [str(path.with_suffix("").relative_to(ROOT)) for path in boards]
    for name in expected:
        assert (site[0] / name / "index.html").exists(), name


def test_every_link_and_anchor_leads_somewhere(site, pages):
    broken = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            below = site[0] if parts.path.startswith("/") else path.parent
            target = Path(os.path.normpath(below / unquote(parts.path).lstrip("/")))
            target = target if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            anchors = pages[target].anchors if target in pages else {""}
            if not target.exists() or unquote(parts.fragment) not in {"", *anchors}:
                broken.append((str(path.relative_to(site[0])), link))
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(pages):
    loaded = {link for page in pages.values() for link in page.loaded}
    assert {link for link in loaded if urlsplit(link).netloc} == set()


def test_no_page_names_the_folder_of_its_builder(pages):
    for path in pages:
        assert str(Path.home()) not in path.read_text(), path


def test_the_help_of_every_command_is_there(site):
    text = (site[0] / "reference/command-line/index.html").read_text()
    for words in ("run", "cache prune", "data get"):
        assert f"Usage: bench {words} [OPTIONS]" in text
