"""Changes of a tree of tables, lists and values, each with its label."""

import copy

from hypothesis import strategies as st

WRONG = ({"x": 1}, [["x"]], [{}], {"x": {"y": [None]}})  # of no leaf's type
NUMBERS = (float("nan"), float("inf"), float("-inf"), 10**30, -(10**30), 1e308, -1.0, -5)
NAMES = ("", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "x\0y", "x\ny", "a" * 5000, "\x1b[2J")
TEXTS = (
    "",
    "x",
    "é",
    "中文",
    "a" * 5000,
    "\x1b[2J",
    "<script>",
    "| a | b |",
    "x\ny",
    "\0",
    "\u202e",
)


def leaves(value, path=()):
    """The paths of all leaves of a tree."""
    if isinstance(value, dict) and value:
        return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
    if isinstance(value, list | tuple) and value:
        return [leaf for key, item in enumerate(value) for leaf in leaves(item, (*path, key))]
    return [path]


def tables(value, path=()):
    """The paths of all tables of a tree, its root too."""
    if not isinstance(value, dict):
        return []
    return [path, *(below for key, item in value.items() for below in tables(item, (*path, key)))]


def get(tree, path):
    """What is at a path."""
    for key in path:
        tree = tree[key]
    return tree


def put(tree, path, value):
    """A copy of a tree with another value at a path; made if it is not there."""
    changed = copy.deepcopy(tree)
    if not path:
        return value
    get(changed, path[:-1])[path[-1]] = value
    return changed


def drop(tree, path):
    """A copy of a tree without what is at a path."""
    changed = copy.deepcopy(tree)
    del get(changed, path[:-1])[path[-1]]
    return changed


def nested(depth, list_=False):
    """A value of some depth."""
    value = 1
    for _ in range(depth):
        value = [value] if list_ else {"a": value}
    return value


def starts(path, prefixes):
    """Whether a path is at or below one of some others."""
    return any(path[: len(prefix)] == prefix for prefix in prefixes)


@st.composite
def cuts(draw, content, ends=1):
    """Bytes that end too early."""
    return content[: draw(st.integers(0, len(content) - ends))]
