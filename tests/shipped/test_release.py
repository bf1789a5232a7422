"""What a release says of itself in several places."""

import re
import tomllib
from pathlib import Path

import bench

ROOT = Path(__file__).parents[2]


def test_a_version_is_the_same_everywhere():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited and cited[1] == declared == bench.__version__


def test_the_changelog_has_the_released_version_or_what_is_not_released():
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased" or headings[0].startswith(bench.__version__)
