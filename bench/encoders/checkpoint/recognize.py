"""Which layout a file has, and the encoder's part of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor

from bench.encoders.checkpoint.layouts import LAYOUTS, Layout
from bench.encoders.checkpoint.read import Contents
from bench.encoders.checkpoint.renames import StateDict
from bench.errors import UserError, one_line

# What DistributedDataParallel, torch.compile and Lightning's modules put before every name.
WRAPPERS = ("module.", "_orig_mod.", "model.")
NO_WEIGHT = "n_averaged"  # the counter of torch.optim.swa_utils.AveragedModel, beside `module.`
SHOWN = 5  # names in a message


@dataclass(frozen=True)
class Selection:
    """The encoder's part of a file, under the file's own names.

    Attributes:
        layout: the entry of the table that fits.
        key: of the state dict in the file; "" is the file itself.
        prefix: that was taken off the names, wrappers apart.
        state: what remains, heads dropped.
        names: of the whole state dict, wrappers taken off.
        dropped: names of `names` that are not in `state`.
        others: encoders that are in the file too, as the requests that take them.
    """

    layout: Layout
    key: str
    prefix: str
    state: StateDict
    names: tuple[str, ...]
    dropped: tuple[str, ...]
    others: tuple[str, ...]


def select(contents: Contents, key: str | None = None, prefix: str | None = None) -> Selection:
    """The encoder's part of a file by the first layout that fits.

    Args:
        contents: of the file.
        key: the entry with the state dict, instead of the layout's.
        prefix: of the encoder's names, instead of the layout's.

    Raises:
        UserError: the layout is one that cannot be loaded, or the file has no such entry, no such
            prefix, or no weights.
    """
    tree, path = contents.tree, contents.path
    if key is not None and state_dict_at(tree, key) is None:
        entries = ", ".join(one_line(entry) or "''" for entry in _entries(tree))
        raise UserError(f"{path}: has no weights at key '{key}'; there are {entries or 'none'}")
    for layout in LAYOUTS:
        if not (fnmatchcase(path.name, layout.file) and _beside(tree, layout)):
            continue
        if layout.refuse:
            if any(_selection(tree, layout, entry, None) for entry in layout.keys):
                raise UserError(f"{path}: {layout.refuse}")
            continue
        places = layout.keys if key is None else (key,)
        # A request takes another part of a layout; it does not make a file one of that layout.
        if prefix is not None and "" not in layout.prefixes:
            own = (_selection(tree, layout, place, None) for place in (*places, *layout.keys))
            if not any(own):
                continue
        for place in places:
            if selection := _selection(tree, layout, place, prefix):
                return selection
    raise _nothing_fits(contents, key, prefix)


def _selection(
    tree: Mapping[str, Any], layout: Layout, key: str, prefix: str | None
) -> Selection | None:
    """The encoder's part of the state dict at `key`; None if the layout does not fit it."""
    state = state_dict_at(tree, key)
    if state is None:
        by_entries = layout.beside and not layout.has  # of files that are refused without weights
        return Selection(layout, key, "", {}, (), (), ()) if by_entries and layout.refuse else None
    whole = unwrapped(state)
    if not _has(whole, layout.also):
        return None
    for candidate in layout.prefixes if prefix is None else (_as_prefix(prefix, state),):
        kept = unwrapped(
            {n.removeprefix(candidate): t for n, t in whole.items() if n.startswith(candidate)}
        )
        if kept and _has(kept, layout.has):
            heads = {name for name in kept if fits_any(name, layout.drop)}
            encoder = {name: tensor for name, tensor in kept.items() if name not in heads}
            dropped = [name for name in whole if not name.startswith(candidate)]
            dropped += [f"{candidate}{name}" for name in kept if name in heads]
            others = tuple(_others(tree, key, candidate, whole, encoder))
            return Selection(layout, key, candidate, encoder, tuple(whole), tuple(dropped), others)
    return None


def state_dict_at(tree: Mapping[str, Any], key: str) -> StateDict | None:
    """The tensors by name at a dotted key; None if there are none."""
    node: Any = tree
    for part in () if not key else (key,) if key in tree else key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    if not isinstance(node, Mapping):
        return None
    tensors = {n: t for n, t in node.items() if isinstance(n, str) and isinstance(t, Tensor)}
    return tensors or None


def unwrapped(state: StateDict) -> StateDict:
    """A state dict without the wrappers that all its names share, however many."""
    while wrapper := _shared_wrapper(state):
        state = {n.removeprefix(wrapper): t for n, t in state.items() if n != NO_WEIGHT}
    return state


def _shared_wrapper(state: StateDict) -> str:
    """The wrapper with which all names begin; empty if there is none."""
    names = [name for name in state if name != NO_WEIGHT]
    wrappers = (w for w in WRAPPERS if names and all(name.startswith(w) for name in names))
    return next(wrappers, "")


def fits_any(name: str, patterns: Iterable[str]) -> bool:
    """Whether a whole name fits one of several patterns."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _has(state: StateDict, patterns: tuple[str, ...]) -> bool:
    """Whether each pattern, or one of its alternatives, fits some name."""
    return all(any(fits_any(name, p.split("|")) for name in state) for p in patterns)


def _beside(tree: Mapping[str, Any], layout: Layout) -> bool:
    """Whether the file has the entries that the layout asks for."""
    return all(any(_entry(tree, e) for e in entry.split("|")) for entry in layout.beside)


def _entry(tree: Mapping[str, Any], entry: str) -> bool:
    name, equals, text = entry.partition("=")
    value = tree.get(name)
    return isinstance(value, str) and value == text if equals else name in tree


def _as_prefix(prefix: str, state: StateDict) -> str:
    """A prefix as a user wrote it, without wrappers that are off by then, with its last dot."""
    shortened = unwrapped(state).keys() != state.keys()
    while shortened and prefix.startswith(WRAPPERS):
        prefix = prefix.split(".", 1)[1]
    return f"{prefix}." if prefix and not prefix.endswith(".") else prefix


def _entries(tree: Mapping[str, Any]) -> list[str]:
    """The dotted keys at which there are tensors; each mapping is visited once."""
    entries = []
    visited: set[int] = set()
    waiting: list[tuple[str, Any]] = [("", tree)]
    while waiting:
        key, node = waiting.pop(0)
        if id(node) in visited:
            continue
        visited.add(id(node))
        if state_dict_at(node, ""):
            entries.append(key)
        for name, inner in node.items():
            if isinstance(inner, Mapping) and isinstance(name, str) and name != "optimizer":
                waiting.append((f"{key}.{name}" if key else name, inner))
    return entries


def _others(
    tree: Mapping[str, Any], key: str, prefix: str, whole: StateDict, encoder: StateDict
) -> Iterator[str]:
    """The requests that take other encoders of the file with the same names."""
    probe = next(iter(encoder), None)
    if probe is None:
        return
    for name in whole:
        other = name.removesuffix(probe)
        if name.endswith(f".{probe}") and other != prefix and _under(other, encoder, whole):
            yield f"prefix={one_line(other)}"
    for entry in _entries(tree):
        state = {} if entry == key else unwrapped(state_dict_at(tree, entry) or {})
        if _under(prefix, encoder, state):
            yield f"key={one_line(entry)}"


def _under(prefix: str, encoder: StateDict, state: StateDict) -> bool:
    """Whether a state dict has all names of an encoder under a prefix."""
    return all(f"{prefix}{name}" in state for name in encoder)


def _nothing_fits(contents: Contents, key: str | None, prefix: str | None) -> UserError:
    """The error for a file without weights, or without those that were asked for."""
    entries = _entries(contents.tree)
    if not entries:
        return UserError(f"{contents.path}: has no weights by name, only {_some(contents.tree)}")
    if key is None and prefix is None:
        return UserError(
            f"{contents.path}: fits no known layout; say which of its entries has the encoder: "
            f"{' or '.join(f'key={one_line(entry)}' for entry in entries[:SHOWN])}"
        )
    first = key if key is not None else entries[0]
    names = unwrapped(state_dict_at(contents.tree, first) or {})
    return UserError(
        f"{contents.path}: no name at key '{one_line(first)}' has the prefix '{prefix}'; there are "
        f"{first_parts(names)}"
    )


def first_parts(names: Iterable[str]) -> str:
    """What comes before the first dot of some names, as a message lists it."""
    return _some(sorted({f"{name.split('.')[0]}." for name in names if "." in name}) or names)


def _some(names: Iterable[str]) -> str:
    listed = [one_line(name) for name in names]
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more if listed else "nothing"
