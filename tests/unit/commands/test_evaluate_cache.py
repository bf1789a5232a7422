"""The cache folder of `bench.evaluate`."""

from pathlib import Path

import pytest

from bench.commands import evaluate as module
from bench.commands.request import CACHE


@pytest.mark.parametrize(
    ("variable", "argument", "expected"),
    [
        ("/a", None, Path("/a")),
        ("/a", "/b", Path("/b")),
        ("", None, CACHE),
    ],
)
def test_the_cache_is_that_of_the_command_line(monkeypatch, variable, argument, expected):
    requests = []
    monkeypatch.setenv("SSL_GAP_CACHE", variable)
    monkeypatch.setattr(module, "run", lambda request, reporter: requests.append(request))
    module.evaluate("rotation", "voc_cls", "smoke", cache=argument)
    assert requests[0].cache == expected
