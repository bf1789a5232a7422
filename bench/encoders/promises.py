"""The promises of an encoder, checked once: sizes of its maps, finite, repeatable, image by image.

A task that is handed an encoder that breaks one of them computes a wrong score without an error.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import timm
import torch
from torch import Tensor

from bench.encoders.encoder import Encoder
from bench.errors import UserError, message

SIDE = 128  # of the images that are tried, pixels
LOW = 96  # height of one more image: another number of rows must not change the channels
TOLERANCE = 0.01  # of a map's largest value: GPUs add up in other orders for other batches
COLORS = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
STRIDE_TOLERANCE = 0.25  # of a stride: convolutions without padding lose positions at the edge


def check_promises(encoder: Any, name: str) -> None:
    """Check what `Encoder` promises, by four passes over two random images.

    Neither random state nor the encoder changes.

    Args:
        encoder: on any device, in any mode; it is checked in evaluation mode.
        name: what to call it in a message.

    Raises:
        UserError: it breaks a promise.
    """
    if not isinstance(encoder, Encoder):
        raise UserError(f"{name}: its encoder is a {type(encoder).__name__}, not an Encoder")
    if not hasattr(encoder, "mean") or not hasattr(encoder, "origin"):
        raise UserError(f"{name}: its encoder does not call `super().__init__`")
    device = encoder.mean.device
    training = {module: module.training for module in encoder.modules()}
    encoder.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            images, maps = _try_images(encoder)
            if maps is not None:
                _check_maps(encoder, images, maps, name)
    finally:
        for module, mode in training.items():
            module.training = mode


def check_trainable(encoder: Encoder, name: str) -> None:
    """Refuse to fine-tune an encoder whose maps carry no gradient: only the head would learn.

    Args:
        encoder: on any device; it does not change.
        name: what to call it in a message.

    Raises:
        UserError: its maps are computed under `torch.no_grad`, detached, or of no weights.
    """
    own = copy.deepcopy(encoder).requires_grad_(True).eval()
    with torch.enable_grad():
        _, maps = _try_images(own)
    if maps is not None and not any(m.requires_grad for m in maps):
        raise UserError(
            f"{name}: its maps carry no gradient (torch.no_grad, detach, or no weights), so that "
            "fine-tuning would train the head alone"
        )


def _try_images(encoder: Encoder) -> tuple[Tensor, Sequence[Tensor] | None]:
    """Two random images and their maps; no maps if the encoder wants a size that nobody knows."""
    config: Any = timm.get_pretrained_cfg(encoder.backbone, allow_unregistered=True)
    for side in (SIDE, *(config.input_size[1:2] if config else ())):
        generator = torch.Generator().manual_seed(0)
        images = torch.rand(2, 3, side, side, generator=generator).to(encoder.mean.device)
        with suppress(Exception):  # whatever a network of one input size raises
            return images, encoder(images)
    return images, None


def _check_maps(encoder: Encoder, images: Tensor, maps: Sequence[Tensor], name: str) -> None:
    _check_kinds(maps, images, name)
    _check_sizes(encoder, maps, images, name)
    _check_finite(maps, name)
    again = maps_of(encoder, images, name)
    _check_sizes(encoder, again, images, name)
    if not _near(maps, again):
        raise UserError(f"{name}: its encoder gives other maps when it is called again")
    alone = maps_of(encoder, images[:1], name)
    _check_sizes(encoder, alone, images[:1], name)
    if not _near([m[:1] for m in maps], alone):
        raise UserError(f"{name}: its encoder's maps of an image depend on the rest of the batch")
    _check_differ(encoder, images, maps, name)
    _check_oblong(encoder, images[:1, :, :LOW], name)


def maps_of(encoder: Encoder, images: Tensor, name: str) -> Sequence[Tensor]:
    """What an encoder returns for images.

    Args:
        encoder: of any class.
        images: RGB in [0, 1], float (B, 3, H, W).
        name: what to call it in a message.

    Raises:
        UserError: it raises an exception, or what it returns are no dense maps of floats.
    """
    try:
        maps: Sequence[Tensor] = encoder(images)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever somebody's code raises
        promise = ", which must take any number of images," if len(images) == 1 else ""
        raise UserError(
            f"{name}: its encoder{promise} fails on {_described(images)}: {message(error)}"
        ) from error
    _check_kinds(maps, images, name)
    return maps


def _described(images: Tensor) -> str:
    """How many images there are, and of what size."""
    count = "1 image" if len(images) == 1 else f"{len(images)} images"
    return f"{count} of {images.shape[2]} x {images.shape[3]}"


def _check_differ(encoder: Encoder, images: Tensor, maps: Sequence[Tensor], name: str) -> None:
    """Refuse maps that are the same for every image: no score of theirs means anything.

    Two random images may have the same maps, of hard decisions for example; those of one color
    then have others. An untrained network tells all of them apart.
    """
    if not all(torch.equal(m[0], m[1]) for m in maps):
        return
    colors = torch.tensor(COLORS, dtype=images.dtype, device=images.device)
    plain = colors[:, :, None, None].expand(-1, -1, *images.shape[2:]).contiguous()
    others = maps_of(encoder, plain, name)
    if all(bool((other == m[:1]).all()) for m, other in zip(maps, others, strict=True)):
        raise UserError(f"{name}: its encoder gives the same maps for different images")


def _check_sizes(encoder: Encoder, maps: Sequence[Tensor], images: Tensor, name: str) -> None:
    """Compare the maps with `channels` and `strides`."""
    channels = tuple(encoder.channels)
    strides = tuple(encoder.strides)
    if not len(maps) == len(channels) == len(strides):
        raise UserError(
            f"{name}: its encoder returns {len(maps)} maps, but declares {len(channels)} channels "
            f"and {len(strides)} strides"
        )
    for stage, (m, count, stride) in enumerate(zip(maps, channels, strides, strict=True)):
        sizes = zip(m.shape[2:], images.shape[2:], strict=False)
        fits = m.ndim == 4 and len(m) == len(images) and m.shape[1] == count
        fits = fits and (images.shape[2] != images.shape[3] or m.shape[2] == m.shape[3])
        if fits and all(_has_stride(size, side, stride) for size, side in sizes):
            continue
        raise UserError(
            f"{name}: stage {stage} of its encoder is {tuple(m.shape)} for {_described(images)}, "
            f"not ({len(images)}, {count}, h, w) at stride {stride}; a map in the order "
            "(B, h, w, C) must be permuted to (B, C, h, w)"
        )


def _has_stride(size: int, side: int, stride: int) -> bool:
    """Whether so many positions along a side have a stride."""
    return size == -(-side // stride) or abs(side / size - stride) <= STRIDE_TOLERANCE * stride


def _check_kinds(maps: Any, images: Tensor, name: str) -> None:
    """Refuse maps that are no dense tensors of floats: nothing can be averaged or trained."""
    if not isinstance(maps, Sequence) or not maps:
        kind = "no maps" if isinstance(maps, Sequence) else f"a {type(maps).__name__}"
        raise UserError(f"{name}: its encoder returns {kind}, not a list of maps")
    for stage, m in enumerate(maps):
        if not isinstance(m, Tensor) or m.layout != torch.strided or not m.is_floating_point():
            kind = f"{m.dtype}, {m.layout}" if isinstance(m, Tensor) else type(m).__name__
            raise UserError(
                f"{name}: stage {stage} of its encoder is {kind}; return dense maps of floats"
            )
        if m.is_meta or not m.numel():
            place = "on the device meta" if m.is_meta else tuple(m.shape)
            raise UserError(
                f"{name}: stage {stage} of its encoder is {place} for {_described(images)}: it has "
                "no values"
            )


def _check_finite(maps: Sequence[Tensor], name: str) -> None:
    for stage, m in enumerate(maps):
        if not bool(m.isfinite().all()):
            raise UserError(f"{name}: stage {stage} of its encoder has values that are not finite")


def _check_oblong(encoder: Encoder, image: Tensor, name: str) -> None:
    """Compare the maps of an oblong image, unless the encoder takes none."""
    try:
        maps = encoder(image)
    except Exception:  # whatever a network of one input size raises
        return
    _check_sizes(encoder, maps, image, name)


def _near(maps: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether maps agree but for rounding."""
    return all(
        bool((m.float() - other.float()).abs().max() <= TOLERANCE * m.float().abs().max())
        for m, other in zip(maps, others, strict=True)
    )
