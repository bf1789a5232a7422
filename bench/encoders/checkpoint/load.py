"""A file of weights as a timm model with every parameter from the file, or a refusal."""

from __future__ import annotations

import contextlib
import difflib
import io
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from bench.encoders.backbone import make_backbone, timm_names
from bench.encoders.checkpoint.layouts import Layout
from bench.encoders.checkpoint.normalization import InputContract, input_contract
from bench.encoders.checkpoint.read import read
from bench.encoders.checkpoint.recognize import Selection, first_parts, select
from bench.encoders.checkpoint.renames import StateDict
from bench.encoders.checkpoint.traps import (
    cifar_stem,
    fitting_arguments,
    left_out_biases,
    missing_registers,
    notes_of,
)
from bench.encoders.transformer import is_transformer
from bench.errors import UserError, one_line

CLASSIFIERS = (
    *("fc.weight", "head.weight", "classifier.weight", "classifier.2.weight"),
    *("heads.head.weight", "head.fc.weight", "head.l.weight"),
)
SHOWN = 5  # names in a message
COUNTER = "num_batches_tracked"  # of batch norms; files of before PyTorch 0.4.1 have none


@dataclass(frozen=True)
class Loaded:
    """A timm model with somebody's weights, and how they got there.

    Attributes:
        module: the model without a classifier, in evaluation mode; `pretrained_cfg` has its input.
        arch: its name in timm.
        layout: of the file.
        key: of the state dict in the file; "" is the file itself.
        prefix: that was taken off the names, wrappers apart.
        matched: names of the model that the file has.
        missing: names of the model that the file lacks or has in another shape; none unless that
            was allowed.
        unexpected: names that the model lacks; none unless that was allowed.
        reshaped: names whose tensors were resampled or flattened, with both shapes.
        dropped: names of the file that are no part of the encoder.
        contract: the input's mean and standard deviation, and who says so.
        sha256: of the file.
        notes: what a user should know, such as traps that no check of names can see.
    """

    module: nn.Module
    arch: str
    layout: Layout
    key: str
    prefix: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]
    dropped: tuple[str, ...]
    contract: InputContract
    sha256: str
    notes: tuple[str, ...]


def load(
    path: Path,
    arch: str,
    key: str | None = None,
    prefix: str | None = None,
    mean: Any = None,
    std: Any = None,
    allow_missing: bool = False,
    **arguments: Any,
) -> Loaded:
    """A timm model with the weights of a file in any layout of `layouts.LAYOUTS`.

    Args:
        path: of a .pth, .pt, .ckpt or .safetensors file. Nothing in it is run.
        arch: the timm model.
        key: the entry with the state dict, instead of the layout's.
        prefix: of the encoder's names, instead of the layout's.
        mean: of the input, RGB in [0, 1]; instead of the layout's.
        std: the same.
        allow_missing: load what fits and keep the rest of the model as it was initialized.
        arguments: more arguments of `timm.create_model`.

    Raises:
        UserError: the file cannot be read or used, or does not have every parameter of the model.
    """
    _check_arch(arch)
    contents = read(path)
    selection = select(contents, key, prefix)
    state, heads = _encoder_state(path, selection, arch)
    module, needed = _create(arch, selection.layout, state, arguments)
    rest = _rest_of_head(module, arch, state)
    state = {name: tensor for name, tensor in state.items() if name not in rest}
    heads = [*heads, *rest]
    stem = cifar_stem(module, state, selection.layout.stem_padding)
    match = _fit(path, module, arch, state, selection)
    if not allow_missing or not match.fitting:
        _refuse_half(path, arch, selection, match)
    _check_named(path, contents.tree.get("arch"), arch)
    _check_values(path, match.fitting)
    module.load_state_dict(match.fitting, strict=False)
    contract = input_contract(contents, selection.layout, arch, mean, std)
    _set_input(module, contract)
    return Loaded(
        module=module.eval(),
        arch=arch,
        layout=selection.layout,
        key=selection.key,
        prefix=selection.prefix,
        matched=tuple(match.fitting),
        missing=(*match.missing, *match.misshapen),
        unexpected=match.unexpected,
        reshaped=match.reshaped,
        dropped=(*selection.dropped, *heads),
        contract=contract,
        sha256=contents.sha256,
        notes=(
            *stem,
            *_classifier_note((*selection.dropped, *heads)),
            *notes_of(module, arch, selection, state, contract, needed),
        ),
    )


def _classifier_note(dropped: Iterable[str]) -> Iterator[str]:
    """Say so where the file has a classifier: labels may have trained it."""
    for name in dropped:
        if name in CLASSIFIERS:
            yield f"the file has {name}: if labels trained that, they may have trained the rest"


@dataclass(frozen=True)
class _Match:
    """How a state dict fits a model.

    Attributes:
        fitting: tensors of the model's names and shapes.
        missing: names of the model that are not in `fitting`, batch norms' counters apart.
        unexpected: names that the model lacks.
        misshapen: names of both whose shapes differ -> the name with both shapes.
        reshaped: names whose tensors were resampled, and the shapes.
    """

    fitting: StateDict
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: Mapping[str, str]
    reshaped: tuple[str, ...]


def _check_arch(arch: str) -> None:
    """Refuse what is no model of the installed timm, such as a name that it would download."""
    if ":" in arch or not timm.is_model(arch):
        near = difflib.get_close_matches(arch, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "see timm.list_models()"
        raise UserError(f"arch '{one_line(arch)}' is no model of timm {timm.__version__}; {hint}")
    try:
        timm.get_pretrained_cfg(arch)
    except RuntimeError as error:
        raise UserError(f"arch '{one_line(arch)}': {one_line(str(error))}") from None


def _check_named(path: Path, named: Any, arch: str) -> None:
    """Refuse an arch that is not what the file's own entry `arch` says it is.

    Weights of tf_efficientnet_b0 fit efficientnet_b0, whose padding is another.
    """
    own = named.partition(".")[0] if isinstance(named, str) else ""
    if own not in ("", arch) and timm.is_model(own):
        raise UserError(f"{path}: says that it is of arch {own}, not {arch}: give arch={own}")


def _encoder_state(path: Path, selection: Selection, arch: str) -> tuple[StateDict, list[str]]:
    """The selected part of the file by names that timm knows, and those of its classifier."""
    rename = selection.layout.rename
    # torch computes next to nothing with floats of eight bits.
    state = {
        name: tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor
        for name, tensor in selection.state.items()
    }
    try:
        state = rename(state) if rename else state
    except UserError as error:
        raise UserError(f"{path}: {error} ({selection.layout.name})") from None
    heads = [f"{name}.{leaf}" for name in _classifiers(arch) for leaf in ("weight", "bias")]
    heads = [name for name in heads if name in state]
    return {name: tensor for name, tensor in state.items() if name not in heads}, heads


def _classifiers(arch: str) -> tuple[str, ...]:
    """The classifiers of a timm model by name."""
    config: Any = timm.get_pretrained_cfg(arch, allow_unregistered=True)
    classifiers = getattr(config, "classifier", None) or ()
    return (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)


def _rest_of_head(module: nn.Module, arch: str, state: StateDict) -> list[str]:
    """What the file has beside a classifier where the model has nothing, as LeViT's `head.bn`."""
    parents = {name.rpartition(".")[0] for name in _classifiers(arch)} - {""}
    own = [name for name, _ in [*module.named_parameters(), *module.named_buffers()]]
    empty = [p for p in parents if not any(name.startswith(f"{p}.") for name in own)]
    return [name for name in state if any(name.startswith(f"{p}.") for p in empty)]


def _create(
    arch: str, layout: Layout, state: StateDict, arguments: Mapping[str, Any]
) -> tuple[nn.Module, dict[str, Any]]:
    """An untrained timm model without a classifier, and what the file needs beyond the arch."""
    needed = layout.arguments(state) if layout.arguments else {}
    module = _untrained(arch, {**needed, **arguments})
    if more := fitting_arguments(module, state):
        needed |= more
        module = _untrained(arch, {**needed, **arguments})
    return module, {name: value for name, value in needed.items() if name not in arguments}


def _untrained(arch: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The same weights every time; the caller's random state does not change."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module: nn.Module = timm.create_model(
                arch, pretrained=False, num_classes=0, **arguments
            )
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise UserError(f"arch '{one_line(arch)}': {one_line(str(error))}") from None
    return module


def _fit(
    path: Path, module: nn.Module, arch: str, state: StateDict, selection: Selection
) -> _Match:
    """Compare a state dict, translated by timm, with a model."""
    try:
        with _quiet():
            given = _translated(module, arch, state)
    except Exception as error:  # whatever a filter makes of names or shapes that it does not expect
        problem = missing_registers(module, arch, state)
        problem = problem or f"{type(error).__name__}: {one_line(str(error))}"
        raise UserError(
            f"{path}: does not fit {arch} ({selection.layout.name}): {problem}"
        ) from None
    target: dict[str, Tensor] = module.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in given.items()}
    same = {name: target[name].shape == shapes[name] for name in target if name in given}
    patch = "patch_embed.proj.weight"
    if patch in same and patch in state and state[patch].ndim == 4:
        same[patch] = same[patch] and state[patch].shape == target[patch].shape
    fitting = {name: given[name] for name, fits in same.items() if fits}
    misshapen = {
        name: f"{name} {tuple(state.get(name, given[name]).shape)}, not {tuple(target[name].shape)}"
        for name, fits in same.items()
        if not fits
    }
    reshaped = [
        f"{name} {tuple(state[name].shape)} -> {shapes[name]}"
        for name in fitting
        if name in state and tuple(state[name].shape) != shapes[name]
    ]
    unread = _unread(arch)
    missing = [
        name
        for name in target
        if name not in given and name not in unread and not name.endswith(COUNTER)
    ]
    unexpected = [name for name in given if name not in target]
    return _Match(
        fitting=fitting,
        missing=tuple(missing),
        unexpected=(*unexpected, *left_out_biases(module, state)),
        misshapen=misshapen,
        reshaped=tuple(reshaped),
    )


def _unread(arch: str) -> set[str]:
    """Names of a timm model that its stages do not read, as a last convolution before the head."""
    if is_transformer(arch):
        return set()
    with torch.random.fork_rng(devices=[]):
        names = timm.create_model(arch, pretrained=False).state_dict().keys()
        read = timm_names(arch, make_backbone(arch)).values()
    return {*names} - {*read}


def _translated(module: nn.Module, arch: str, state: StateDict) -> StateDict:
    """A state dict by the model's own names, by timm's filter for the arch, if it has one.

    timm keeps it as `checkpoint_filter_fn` beside the function that makes the arch.
    """
    entry = timm.models.model_entrypoint(arch)
    places = [sys.modules[place] for place in (entry.__module__, type(module).__module__)]
    filters = [getattr(place, "checkpoint_filter_fn", None) for place in places]
    filter_fn = next(filter(None, filters), None)
    translated = filter_fn(dict(state), module) if filter_fn else state
    return {name: tensor for name, tensor in translated.items() if isinstance(tensor, Tensor)}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what timm's filters print and log off the terminal."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(level)


def _refuse_half(path: Path, arch: str, selection: Selection, match: _Match) -> None:
    """Refuse a state dict that does not have every tensor of the model, or has more."""
    problems = [
        ("missing", match.missing),
        ("of another shape", tuple(match.misshapen.values())),
        ("unknown to it", match.unexpected),
    ]
    texts = [f"{len(names)} {what}: {_some(names)}" for what, names in problems if names]
    if not texts:
        return
    if not match.fitting:
        parts = first_parts(selection.state)
        texts.append(f"its names begin with {parts}; if one is the encoder's, give it as prefix=")
    elif match.misshapen:
        texts.append(f"if {arch} is another network than the file's, give its own as arch=")
    where = [f"key={selection.key}"] if selection.key else []
    where += [f"prefix={selection.prefix}"] if selection.prefix else []
    read_as = ", ".join([selection.layout.name, *where])
    wanted = len(match.fitting) + len(match.misshapen) + len(match.missing)
    raise UserError(
        f"{path}: has {len(match.fitting)} of the {wanted} tensors of {arch} (read as "
        f"{one_line(read_as)}); {'; '.join(texts)}"
    )


def _check_values(path: Path, state: StateDict) -> None:
    """Refuse weights that are not finite numbers."""
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            raise UserError(f"{path}: {one_line(name)} is sparse, quantized or complex")
        if not bool(tensor.isfinite().all()):
            raise UserError(f"{path}: {one_line(name)} has values that are not finite")


def _set_input(module: Any, contract: InputContract) -> None:
    """Make a model's own record of its input that of the weights."""
    config = {**module.pretrained_cfg, "mean": contract.mean, "std": contract.std}
    module.pretrained_cfg = config
    module.default_cfg = config


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(one_line(name) for name in names[:SHOWN])
    return f"{shown} ..." if len(names) > SHOWN else shown
