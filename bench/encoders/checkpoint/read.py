"""Files of weights, opened without running anything that is in them.

PyTorch's own formats (zip, and the one of before 1.6) are opened by `torch.load` with
`weights_only`, which builds tensors and plain containers and calls nothing else.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from bench.errors import UserError, one_line
from bench.runtime.fingerprint import file_digest

HEAD = 512  # bytes from which a format is told
# How a file of before PyTorch 1.6 begins: a pickled integer (torch/serialization.py).
OLD_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
LONGEST_NAME = 80  # characters of what a message quotes from a file
MOST_NAMES = 5  # that a message lists

DCP = "convert it: python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE.pth"
# Names of files that hold a part of the weights -> what to do.
PARTS = {
    "*.distcp": f"is a part of a distributed checkpoint; {DCP} (FOLDER is the one that it is in)",
    "*.rank_*.pth": (
        "is one rank's shard of an FSDP run (DINOv2); use eval/ITERATION/teacher_checkpoint.pth of "
        "the same run, or gather the shards and save one state dict"
    ),
    "*-?????-of-?????.*": (
        "is one shard of several; load the model with its library and save it with "
        "max_shard_size larger than the model"
    ),
    "*.index.json": "lists shards and has no weights; save the model as one file",
}
# Modules that a refused pickle names -> what to do.
UNSAFE = {
    "lightly_train": (
        "it is a lightly-train checkpoint with pickled modules; take "
        "exported_models/exported_last.pt of the same run, or export it: "
        "lightly-train export part=model format=package_default checkpoint=FILE out=FILE.pt"
    ),
    "torch.distributed": (
        "it is a shard of a distributed run; gather the shards and save one state dict"
    ),
}
# What settings of omegaconf are pickled as (solo-learn and others save them beside the weights).
# These names get `_Setting`, so neither omegaconf nor anything else is imported or called.
SETTINGS = (
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
    *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata"),
    *("omegaconf.nodes.AnyNode", "omegaconf.nodes.StringNode", "omegaconf.nodes.IntegerNode"),
    *("omegaconf.nodes.FloatNode", "omegaconf.nodes.BooleanNode", "omegaconf.nodes.PathNode"),
    *("typing.Any", "collections.defaultdict"),
    *("builtins.dict", "builtins.list", "builtins.int", "builtins.float", "builtins.str"),
    "builtins.bool",
)
SAVE_STATE = "save the model's state_dict() instead"
MODEL_SETTINGS = "pretrained_cfg"  # entry with the settings of a model of timm


@dataclass(frozen=True)
class Contents:
    """What a file of weights holds.

    Attributes:
        path: of the file.
        tree: entries by name; values are tensors, containers of tensors, or settings.
        sha256: of the file's bytes.
        settings: the model's own, `pretrained_cfg` of timm, where the file has them.
    """

    path: Path
    tree: Mapping[str, Any]
    sha256: str
    settings: Mapping[str, Any]


class _Setting:
    """The place of a setting that is not read; it forgets all that a pickle gives it."""

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...

    def __setitem__(self, key: object, value: object) -> None: ...


def read(path: Path) -> Contents:
    """The contents of a .pth, .pt, .ckpt or .safetensors file.

    Nothing that is pickled in the file runs. Beside tensors and plain containers it may hold
    `argparse.Namespace` and numpy scalars, as many training scripts save them.

    Raises:
        UserError: it is no such file, only a part of the weights, damaged, or has anything else.
    """
    refuse_parts(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            head = stream.read(HEAD)
        sha256 = file_digest(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    kind = _kind(path, head, size)
    tree = _read_safetensors(path) if kind == "safetensors" else _read_torch(path, kind, size)
    if not isinstance(tree, Mapping) or not all(isinstance(name, str) for name in tree):
        raise UserError(f"{path}: holds a {type(tree).__name__}, not weights by name; {SAVE_STATE}")
    settings = _settings(path) if kind == "safetensors" else tree.get(MODEL_SETTINGS)
    return Contents(path, tree, sha256, settings if isinstance(settings, Mapping) else {})


def refuse_parts(path: Path) -> None:
    """Refuse a folder, and a file that has a part of the weights alone."""
    if path.is_dir():
        if any(path.glob("*.distcp")):
            raise UserError(f"{path}: is a distributed checkpoint; {DCP}")
        raise UserError(f"{path}: is a folder; name the file in it that has the weights")
    for pattern, advice in PARTS.items():
        if fnmatchcase(path.name, pattern):
            raise UserError(f"{path}: {advice}")


def _kind(path: Path, head: bytes, size: int) -> str:
    """The format of a file by its first bytes: "zip", "old" or "safetensors"."""
    if not head:
        raise UserError(f"{path}: is empty")
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and 2 <= length <= size - 8:  # its first byte may be any, a pickle's too
        return "safetensors"
    if head.startswith(b"PK"):
        return "zip"
    if head[:1] == b"\x80" and head[2 : 2 + len(OLD_MAGIC)] == OLD_MAGIC:
        return "old"
    if head[:1] == b"\x80":
        raise UserError(
            f"{path}: is a plain pickle, which can run any code and is never opened; convert it to "
            "a state dict where it came from (DeepMind's BYOL: ajtejankar/byol-convert)"
        )
    if head[8:9] == b"{" and length < 10**9:
        raise UserError(f"{path}: is truncated; copy or download it again")
    raise UserError(f"{path}: {_not_weights(head)}")


def _not_weights(head: bytes) -> str:
    """What a file is that has no weights, by its first bytes."""
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer of Git LFS, not the file itself: git lfs pull"
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")) or head[257:262] == b"ustar":
        return "is an archive; unpack it and name the file with the weights"
    if head.lstrip()[:1] == b"<":
        return "is a web page, probably of a failed download; download it again"
    if b"\0" not in head and _is_text(head):
        return "is a text file, not weights"
    return "is no .pth, .pt, .ckpt or .safetensors file, or it is damaged"


def _is_text(head: bytes) -> bool:
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start > len(head) - 4  # the last character may be cut
    return True


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: {_damaged(str(error))}") from None
    return tensors


def _settings(path: Path) -> Any:
    """The settings among the metadata of a .safetensors file."""
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(MODEL_SETTINGS, "")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _read_torch(path: Path, kind: str, size: int) -> Any:
    if kind == "zip":
        _check_zip(path, size)
    with torch.serialization.safe_globals(_allowed()):
        try:
            tree = torch.load(path, map_location="cpu", weights_only=True, mmap=kind == "zip")
        except pickle.UnpicklingError as error:
            raise UserError(f"{path}: {_refusal(path, str(error))}") from None
        except Exception as error:  # whatever a damaged file makes of its own reader
            raise UserError(f"{path}: {_damaged(str(error))}") from None
    _check_sizes(path, tree, size)
    return tree


def _check_zip(path: Path, size: int) -> None:
    """Refuse zips that are damaged, no checkpoints, or larger inside than outside."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError):
        raise UserError(f"{path}: is truncated or damaged; copy or download it again") from None
    names = [part.filename for part in parts]
    if any(fnmatchcase(name, "*/code/*") or name.endswith("constants.pkl") for name in names):
        raise UserError(f"{path}: is TorchScript, which has code; {SAVE_STATE}")
    if not any(name.endswith("data.pkl") for name in names):
        raise UserError(f"{path}: is a zip or numpy archive without weights of PyTorch")
    if sum(part.file_size for part in parts) > size:
        raise UserError(
            f"{path}: its parts are larger than the file; save it uncompressed, as torch.save does"
        )


def _check_sizes(path: Path, tree: Any, size: int) -> None:
    """Refuse tensors that are larger than the file, as expanded views of little memory are."""
    for tensor in _tensors_in(tree):
        if tensor.numel() * tensor.element_size() > size:
            raise UserError(f"{path}: has a tensor {tuple(tensor.shape)}, larger than the file")


def _tensors_in(tree: Any) -> Iterator[Tensor]:
    """The tensors in nested mappings, each of which is visited once."""
    visited: set[int] = set()
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Tensor):
            yield node
        elif isinstance(node, Mapping) and id(node) not in visited:
            visited.add(id(node))
            waiting.extend(node.values())


def _allowed() -> list[Any]:
    """The globals that a pickle may name beside tensors; none of them can run code.

    Training scripts save their settings (`Namespace`, or omegaconf's, which are not read) and a
    best accuracy (a numpy scalar, whose module has two names: numpy 2 renamed it).
    """
    scalar = np.float64(0).__reduce__()[0]
    kinds = {type(np.dtype(code)) for code in "?bBhHiIlLqQefd"}
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    return [
        *(argparse.Namespace, np.dtype, *kinds),
        *((scalar, name) for name in names),
        *((_Setting, name) for name in SETTINGS),
    ]


def _refusal(path: Path, message: str) -> str:
    """What is wrong with a pickle that `torch.load` refused, and what to do."""
    names = _unsafe_globals(path, message)
    if not names:
        return _damaged(message)
    for module, advice in UNSAFE.items():
        if any(name == module or name.startswith(f"{module}.") for name in names):
            return f"{advice} (it names {_listed(names)})"
    return f"its pickle names {_listed(names)}, which could run code; {SAVE_STATE}"


def _unsafe_globals(path: Path, message: str) -> list[str]:
    """The globals of a pickle that are not allowed; nothing is run."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # it does not know the old format, which names the first one in its message
        return re.findall(r"GLOBAL (\S+)", message)[:1]


def _damaged(message: str) -> str:
    detail = f" ({_short(message)})" if message.strip() else ""
    return f"is truncated or damaged{detail}; copy or download it again"


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    shown = ", ".join(_short(name) for name in names[:MOST_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown


def _short(text: str) -> str:
    """The beginning of what a file or a library says, as one line."""
    line = one_line(text)
    return line if len(line) <= LONGEST_NAME else f"{line[:LONGEST_NAME]}..."
