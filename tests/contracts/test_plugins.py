import sys
import types

import pytest

from bench import plugins
from bench.errors import UserError


def test_all_is_every_file():
    assert {"imagenet", "random_init", "rotation", "supervised"} <= {
        *plugins.select("methods", "all")
    }
    assert "voc_cls" in plugins.select("tasks", "all")


def test_a_request_keeps_its_order_without_repeats():
    assert plugins.select("methods", "rotation, imagenet,rotation") == ["rotation", "imagenet"]


def test_an_unknown_name_gets_the_near_ones():
    with pytest.raises(UserError, match="unknown method 'rotatoin': did you mean rotation"):
        plugins.select("methods", "rotatoin")
    with pytest.raises(UserError, match="unknown task 'zzz': there are voc_cls"):
        plugins.select("tasks", "zzz")
    with pytest.raises(UserError, match="no methods given"):
        plugins.select("methods", ",")


def test_what_the_source_says_is_what_the_class_says():
    for kind in ("methods", "tasks"):
        for name in plugins.names(kind):
            cls = plugins.load(kind, name)
            for key, value in plugins.describe(kind, name).constants.items():
                assert getattr(cls, key) == value


def test_the_code_digest_sees_code_and_not_comments(tmp_path):
    from bench.runtime.fingerprint import code_digest

    path = tmp_path / "m.py"

    def digest(text):
        path.write_text(text)
        return code_digest([path])

    plain = digest("def f(x):\n    return x + 1\n")
    assert digest('"""Doc."""\n\n\ndef f(x):\n    "doc"\n    return (x + 1)  # why\n') == plain
    assert digest("def f(x):\n    return x + 2\n") != plain


def test_a_plugin_that_says_too_little_or_breaks_is_named(monkeypatch, tmp_path):
    silent = types.ModuleType("bench.methods.silent")
    silent.Silent = type("Silent", (), {"__module__": silent.__name__, "datasets": ()})
    monkeypatch.setitem(sys.modules, silent.__name__, silent)
    with pytest.raises(UserError, match=r"silent\.py: Silent says no `reference`"):
        plugins.load("methods", "silent")

    def broken(name):
        raise NameError("name 'nn' is not defined")

    monkeypatch.setattr(plugins, "source", lambda kind, name: tmp_path / f"{name}.py")
    monkeypatch.setattr(plugins.importlib, "import_module", broken)
    with pytest.raises(UserError, match=r"odd\.py: cannot be imported \(NameError: name 'nn'"):
        plugins.load("methods", "odd")
