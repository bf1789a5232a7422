"""Weights from elsewhere as methods: what each kind of spec reads."""

from __future__ import annotations

import copy
import functools
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

import timm
import torch
from safetensors.torch import save
from torch import nn

from bench import plugins, specs
from bench.encoders import supervision
from bench.encoders.backbone import timm_names
from bench.encoders.checkpoint.huggingface import weights_of
from bench.encoders.checkpoint.load import Loaded, load
from bench.encoders.checkpoint.traps import has_cifar_stem
from bench.encoders.encoder import Encoder, encoder_of
from bench.encoders.module_encoder import ModuleEncoder, encoder_around
from bench.encoders.promises import maps_of
from bench.encoders.transformer import ANY_SIZE, TransformerStages, is_transformer
from bench.errors import UserError, one_line
from bench.runtime import switches
from bench.runtime.device import seed_everything
from bench.runtime.files import atomic_write
from bench.runtime.fingerprint import digest
from bench.specs import Spec

FIXED_BATCH = (2, 3, 64, 64)  # whose outputs are part of a model's identity


class Reading(Protocol):
    """What a reader is handed: a run's context, which notes the files that were read."""

    def read_file(self, path: Path, name: str = "") -> Path:
        """Note that a file is read."""


def method(spec: Spec) -> type:
    """The method of a spec.

    Raises:
        UserError: weights of this kind cannot be read.
    """
    if spec.kind not in READERS:
        raise UserError(f"{spec}: {spec.kind}: cannot be read; known are {', '.join(READERS)}")
    read = READERS[spec.kind]

    class Weights:
        """Weights from elsewhere; nothing is trained."""

        reference: ClassVar[str] = str(spec)
        version: ClassVar[int] = specs.VERSION
        datasets: ClassVar[tuple[str, ...]] = ()
        inputs: ClassVar[tuple[str, ...]] = ("rgb",)
        reference_row: ClassVar[bool] = spec.is_reference

        def pretrain(self, context: Reading) -> Encoder:
            """Read the weights."""
            return read(spec, context)

    return Weights


def _timm(spec: Spec, context: Reading) -> Encoder:
    """A model of timm with its published weights."""
    if not timm.is_model(spec.target):
        raise UserError(f"{spec}: timm has no such model")
    return published(spec.target)


def published(name: str) -> Encoder:
    """A model of timm with its published weights, through the Hugging Face hub, cached there.

    Args:
        name: of the model, with a tag or without.

    Raises:
        UserError: the weights are not available, or do not fit.
    """
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as error:  # the hub's client raises errors of several libraries
        raise UserError(
            f"the weights of {name} are not in the Hugging Face cache and cannot be downloaded "
            f"({type(error).__name__}): connect, or copy the cache of a machine that is"
        ) from error
    encoder = encoder_of(name.partition(".")[0], model.state_dict(), f"timm:{name}")
    config: Any = timm.get_pretrained_cfg(name)
    encoder.set_normalization(config.mean, config.std)
    encoder.origin = {
        "weights": f"timm:{name.partition('.')[0]}.{config.tag}",
        "trained_on": supervision.of_tag(str(config.tag), name),
        "license": config.license or "",
    }
    return encoder


def _file(spec: Spec, context: Reading) -> Encoder:
    """A file in any layout of `checkpoint.layouts`."""
    return from_file(spec, context.read_file(Path(spec.target)))


def from_file(spec: Spec, path: Path) -> Encoder:
    """The encoder of a file, with its own input contract.

    Args:
        spec: the model and the options.
        path: of the file.

    Raises:
        UserError: the file cannot be read or used, or does not have every parameter of the model.
    """
    return _encoder(spec, _load(spec, path))


def _load(spec: Spec, path: Path) -> Loaded:
    """The model of a file as a spec asks for it; a transformer takes images of any size."""
    heads = spec.option("heads")
    if heads and not (heads.isdecimal() and int(heads)):
        raise UserError(f"{spec}: heads: must be a number of attention heads")
    return load(
        path,
        spec.backbone,
        spec.option("key") or None,
        spec.option("prefix") or None,
        spec.option("mean") or None,
        spec.option("std") or None,
        allow_missing=bool(spec.option(specs.MISSING)),
        **(ANY_SIZE if is_transformer(spec.backbone) else {}),
        **({"num_heads": int(heads)} if heads else {}),
    )


def _module(spec: Spec, context: Reading) -> Encoder:
    """A network that a Python program makes, see `ModuleEncoder`."""
    return copy.deepcopy(made_by_program(spec))


@functools.cache
def made_by_program(spec: Spec) -> Encoder:
    """The encoder of a `py:` or `hub:` spec, made once in a process.

    Raises:
        UserError: there is no such function, or it makes no network.
    """
    make: Callable[[], object] | None
    if spec.kind == "hub":
        if not spec.option(specs.TRUSTED):
            raise UserError(
                f"{spec}: would download a repository and run its code; if you trust its author, "
                "add --trust-remote-code"
            )
        repository, _, name = spec.target.rpartition(":")
        make = functools.partial(torch.hub.load, repository, name, trust_repo=True)
    else:
        path, _, name = spec.target.rpartition(":")
        make = getattr(plugins.module_of(Path(path)), name, None)
        if not callable(make):
            raise UserError(f"{path}: has no function {name}")
    try:
        with switches.owned():
            seed_everything(0)  # weights that a file does not have, such as a new head's
            module = make()
    except UserError:
        raise
    except Exception as error:  # whatever a program raises
        raise UserError(f"{spec}: {type(error).__name__}: {one_line(str(error))}") from error
    if not isinstance(module, nn.Module):
        raise UserError(f"{spec}: returns a {type(module).__name__}, not a torch.nn.Module")
    return encoder_around(module.cpu().eval(), spec.label)


def identity(encoder: Encoder, name: str) -> str:
    """What identifies an encoder: the digest of its weights and of its outputs on fixed images.

    Args:
        encoder: on the CPU, in evaluation mode.
        name: what to call it in a message.

    Raises:
        UserError: it fails on them, or returns no maps of floats.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        maps = maps_of(encoder, torch.rand(FIXED_BATCH, generator=generator), name)
        outputs = [[round(float(m.mean()), 4), round(float(m.std()), 4)] for m in maps]
    return digest([encoder.weights_sha256(), outputs])


def _hf(spec: Spec, context: Reading) -> Encoder:
    """A repository of the Hugging Face hub, in a layout of timm or transformers."""
    needs_input = not spec.option("mean")
    path = context.read_file(weights_of(spec.target, spec.option("revision"), needs_input))
    encoder = from_file(spec, path)
    encoder.origin["trained_on"] = spec.option("trained_on")
    return encoder


def _encoder(spec: Spec, loaded: Loaded) -> Encoder:
    """The encoder of a model that was loaded, with its own input contract."""
    encoder = Encoder(loaded.arch)
    if is_transformer(loaded.arch):
        encoder.branches[0] = TransformerStages(loaded.module)
    elif has_cifar_stem(loaded.module):
        encoder = ModuleEncoder(loaded.module, loaded.arch)
        encoder.backbone = f"{loaded.arch}-cifar"  # other strides, so another network
    else:
        encoder = encoder_of(loaded.arch, loaded.module.state_dict(), str(spec))
    contract = loaded.contract
    encoder.set_normalization(contract.mean, contract.std)
    encoder.origin = {
        "layout": loaded.layout.name,
        "key": loaded.key,
        "prefix": loaded.prefix,
        "matched": len(loaded.matched),
        "missing": list(loaded.missing),
        "unexpected": list(loaded.unexpected),
        "reshaped": list(loaded.reshaped),
        "dropped": len(loaded.dropped),
        "mean": list(contract.mean),
        "std": list(contract.std),
        "input": contract.origin,
        "notes": list(loaded.notes),
    }
    return encoder


def warnings(encoder: Encoder) -> Iterator[str]:
    """What a reader must know of a row before believing its score."""
    origin = encoder.origin
    if text := supervision.warning(origin.get("trained_on", "")):
        yield text
    if missing := len(origin.get("missing", ())):
        total = missing + origin["matched"]
        yield f"{missing} of {total} tensors were not in its file and are as initialized"
    if unexpected := len(origin.get("unexpected", ())):
        yield f"{unexpected} tensors of its file are not in the encoder"


def export(encoder: Encoder, path: Path) -> int:
    """Write the weights of an encoder by timm's names, for `file:` and every other reader.

    Args:
        encoder: of one branch that takes RGB.
        path: a .safetensors file, or a .pth of `{"arch", "state_dict", "pretrained_cfg"}`.

    Returns:
        How many tensors there are.

    Raises:
        UserError: it is no plain timm model, or the name has another suffix.
    """
    if tuple(encoder.inputs) != ("rgb",) or not encoder.branches:
        inputs = ", ".join(encoder.inputs)
        raise UserError(f"its encoder takes {inputs}: no plain timm model, which takes RGB, does")
    branch = encoder.branches[0]
    names = timm_names(encoder.backbone, branch)
    state = {
        names[own]: tensor.detach().cpu().contiguous()
        for own, tensor in branch.state_dict().items()
    }
    normalization = {key: getattr(encoder, key).flatten().tolist() for key in ("mean", "std")}
    if path.suffix == ".safetensors":
        metadata = {"architecture": encoder.backbone, "pretrained_cfg": json.dumps(normalization)}
        content = save(state, metadata)
    elif path.suffix in (".pth", ".pt"):
        buffer = io.BytesIO()
        whole = {"arch": encoder.backbone, "state_dict": state, "pretrained_cfg": normalization}
        torch.save(whole, buffer)
        content = buffer.getvalue()
    else:
        raise UserError(f"{path}: must end in .safetensors or .pth")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, content)
    return len(state)


def how_read(encoder: Encoder) -> Iterator[tuple[str, str]]:
    """How the weights of an encoder were read: a word and what there is to say, in order."""
    origin = encoder.origin
    channels = dict.fromkeys(encoder.channels)
    several = len(channels) > 1
    counts = ", ".join(map(str, encoder.channels if several else channels))
    yield "backbone", f"{encoder.backbone}, {len(encoder.channels)} stages of {counts} channels"
    if not origin:
        return
    for key in ("weights", "trained_on", "license"):
        if origin.get(key):
            yield key.replace("_", " "), origin[key]
    if "layout" not in origin:
        return
    where = [f"{key} {origin[key]}" for key in ("key", "prefix") if origin[key]]
    yield "layout", ", ".join([origin["layout"], *where])
    yield "tensors", f"{origin['matched']} matched, {origin['dropped']} dropped"
    for key in ("missing", "unexpected", "reshaped", "notes"):
        for text in origin[key]:
            yield key.removesuffix("s"), text
    mean, std = (" ".join(f"{value:g}" for value in origin[key]) for key in ("mean", "std"))
    yield "input", f"mean {mean}, std {std}, from {origin['input']}"


READERS = {"timm": _timm, "file": _file, "hf": _hf, "hub": _module, "py": _module}
