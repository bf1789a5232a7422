"""Repositories of the Hugging Face hub: which timm model they are, and where the weights are.

Nothing of a repository is run: `config.json`, `preprocessor_config.json` and the weights are
downloaded. Imports no torch.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.encoders import supervision
from bench.errors import UserError, one_line
from bench.specs import SETTINGS_BESIDE

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
SHARDED = "model.safetensors.index.json"
# Width of a transformer -> the size in timm's names (timm: models/vision_transformer.py).
SIZES = {192: "tiny", 384: "small", 768: "base", 1024: "large", 1280: "huge", 1536: "giant"}
# transformers' model_type -> timm's name, from size and patch (transformers: configuration files).
VITS = {
    "vit": "vit_{size}_patch{patch}_224",
    "vit_mae": "vit_{size}_patch{patch}_224",
    "dinov2": "vit_{size}_patch{patch}_dinov2",
    "dinov2_with_registers": "vit_{size}_patch{patch}_reg4_dinov2",
    "dinov3_vit": "vit_{size}_patch{patch}_dinov3",
}
# Blocks of each stage -> timm's ResNet, by kind of block (He et al. 2016, table 1).
RESNETS = {
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
    ("bottleneck", (3, 4, 23, 3)): "resnet101",
    ("bottleneck", (3, 8, 36, 3)): "resnet152",
}


class AbsentError(UserError):
    """A repository does not have a file."""


def resolved(repository: str) -> dict[str, str]:
    """The timm model of a repository, its commit in the hub or the cache, and what it trained on.

    Raises:
        UserError: it cannot be had, or is none of the kinds that are read.
    """
    path = _download(repository, "config.json")
    config = _config(repository, path.parent.name)
    arch = arch_of(config)
    if not arch:
        kind = one_line(str(config.get("model_type")))[:40]
        known = ", ".join([*VITS, "resnet", "timm's own"])
        raise UserError(
            f"hf:{repository}: is a model of type {kind}; those of {known} are read; for another "
            "layout of docs/checkpoints.md, download the file and use file:"
        )
    own = config.get("pretrained_cfg")
    tag = str(own.get("tag", "")) if isinstance(own, dict) else ""
    source = supervision.of_config(config) or supervision.of_tag(tag)
    heads = config.get("num_attention_heads")
    own_heads = {"heads": str(heads)} if config.get("model_type") in VITS and heads else {}
    arch = arch.partition(".")[0]
    return {"arch": arch, "revision": path.parent.name, "trained_on": source, **own_heads}


def _config(repository: str, revision: str) -> Mapping[str, Any]:
    """The config.json of a repository at a commit; empty if it has none of names and values."""
    path = _download(repository, "config.json", revision)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"hf:{repository}: config.json cannot be read ({error})") from None
    return config if isinstance(config, dict) else {}


def arch_of(config: Mapping[str, Any]) -> str:
    """The timm model that a config.json describes; empty if none is known.

    Args:
        config: of timm (`architecture`) or transformers (`model_type` and sizes).
    """
    kind = str(config.get("model_type", ""))
    own = config.get("architecture")
    if isinstance(own, str) and kind in ("", "timm_wrapper"):
        return own
    if kind == "resnet":
        depths = config.get("depths")
        blocks = tuple(depths) if isinstance(depths, list) else ()
        return RESNETS.get((str(config.get("layer_type")), blocks), "")
    size = SIZES.get(config.get("hidden_size", 0), "")
    patch = config.get("patch_size")
    if kind not in VITS or not size or not isinstance(patch, int):
        return ""
    return VITS[kind].format(size=size, patch=patch)


def weights_of(repository: str, revision: str, needs_input: bool = True) -> Path:
    """The file of weights of a repository at a commit, the settings of the input beside it.

    Args:
        repository: OWNER/REPO.
        revision: the commit.
        needs_input: whether the settings of the input are needed.

    Raises:
        UserError: there is none, it is in several parts, or one of the files cannot be had.
    """
    from huggingface_hub.errors import EntryNotFoundError

    for name in WEIGHTS:
        try:
            path = _download(repository, name, revision)
        except EntryNotFoundError:
            continue
        if needs_input:
            _download_input(repository, revision)
        return path
    raise UserError(
        f"hf:{repository}: has none of {', '.join(WEIGHTS)}; where the weights are in several "
        f"parts ({SHARDED}), save them as one file and use file:"
    )


def _download_input(repository: str, revision: str) -> None:
    """Have a repository's settings of the input beside its weights, if it has any.

    Raises:
        UserError: whether it has any cannot be known.
    """
    from huggingface_hub import _CACHED_NO_EXIST, try_to_load_from_cache

    if "pretrained_cfg" in _config(repository, revision):
        return  # of timm: it has the input
    name = SETTINGS_BESIDE[0]
    found = try_to_load_from_cache(repository, name, revision=revision)
    if not isinstance(found, str) and found is not _CACHED_NO_EXIST:
        with contextlib.suppress(AbsentError):
            _download(repository, name, revision)


def _download(repository: str, name: str, revision: str | None = None) -> Path:
    """A file of a repository, from the cache or the hub."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repository, name, revision=revision))
    except LocalEntryNotFoundError as error:
        problem = (
            f"is not in the Hugging Face cache and cannot be downloaded ({type(error).__name__})"
        )
        hint = "connect, or copy the cache of a machine that is"
        raise UserError(f"hf:{repository}: {name} {problem}: {hint}") from None
    except EntryNotFoundError:
        if name in WEIGHTS:
            raise
        raise AbsentError(f"hf:{repository}: has no {name}") from None
    except Exception as error:  # the hub's client raises errors of several libraries
        text = one_line(str(error).strip().split("\n")[0])
        raise UserError(f"hf:{repository}: {text or type(error).__name__}") from None
