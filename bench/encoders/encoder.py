"""The encoder: what every method hands to every task."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import timm
import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from bench.data.color import rgb_to_lab
from bench.encoders.backbone import channels_first, make_backbone, timm_names
from bench.encoders.pretraining import Pretraining
from bench.encoders.transformer import TransformerStages
from bench.errors import UserError
from bench.runtime import regular
from bench.runtime.files import LARGEST, atomic_write

FEW = 5  # missing weights that a message names
# Input of a branch -> its channels.
INPUT_CHANNELS = {"rgb": 3, "L": 1, "ab": 2, "above_diagonal": 3, "below_diagonal": 3}


class Encoder(nn.Module):
    """A timm backbone that takes RGB in [0, 1] and derives its own input from it.

    Several inputs make as many disjoint branches, each with its share of the backbone's channels.
    Their maps are concatenated, so that every encoder of a backbone has the same channels.

    Args:
        backbone: name of a timm model with stage-wise features.
        inputs: one for each branch. "rgb" is normalized as the timm model's weights expect. "L" and
            "ab" are channels of Lab, as L / 50 - 1 and ab / 110. "above_diagonal" and
            "below_diagonal" are normalized RGB on one side of the diagonal and 0 elsewhere.

    Attributes:
        branches: the networks, one for each input.
        branch_channels: of each stage of one branch, fine to coarse.
        channels: of each stage over all branches, fine to coarse.
        strides: of each stage, in input pixels.
        pretraining: the history of its weights.
        samples: images of what its method learned, a uint8 grid (3, H, W), if there are any.
        origin: where weights from elsewhere come from, and how they were read.
    """

    def __init__(self, backbone: str, inputs: tuple[str, ...] = ("rgb",)) -> None:
        super().__init__()
        self.backbone = backbone
        self.inputs = inputs
        self.branches = nn.ModuleList(
            make_backbone(backbone, INPUT_CHANNELS[name], len(inputs)) for name in inputs
        )
        info: Any = self.branches[0].feature_info
        self.branch_channels: tuple[int, ...] = tuple(info.channels())
        self.channels = tuple(count * len(inputs) for count in self.branch_channels)
        self.strides: tuple[int, ...] = tuple(info.reduction())
        self.pretraining = Pretraining()
        self.samples: Tensor | None = None
        self.origin: dict[str, Any] = {}
        config: Any = timm.get_pretrained_cfg(backbone)
        self.set_normalization(config.mean, config.std)

    @property
    def is_isotropic(self) -> bool:
        """Whether all of several maps have one stride, as those of a plain transformer."""
        return len(self.strides) > 1 and len({*self.strides}) == 1

    def set_normalization(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the mean and standard deviation of RGB by which "rgb" is normalized."""
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Map RGB in [0, 1], float (B, 3, H, W), to one map per stage, fine to coarse.

        Stage s is (B, channels[s], ceil(H / strides[s]), ceil(W / strides[s])).
        """
        branches = self.forward_branches(rgb)
        if len(branches) == 1:
            return branches[0]
        return [torch.cat(stage, 1) for stage in zip(*branches, strict=True)]

    def forward_branches(self, rgb: Tensor) -> list[list[Tensor]]:
        """The maps of every branch before concatenation; `branch_channels` channels each."""
        maps = []
        for name, branch in zip(self.inputs, self.branches, strict=True):
            view = self._input(name, rgb).to(memory_format=torch.channels_last)
            maps.append(channels_first(branch(view), branch))
        return maps

    def with_embedding(self, rgb: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """The maps, and the model's own global vector (B, D) where it has one, of one pass."""
        branches = list(self.branches)
        if len(branches) != 1 or not isinstance(branches[0], TransformerStages):
            return self(rgb), None
        return branches[0].with_embedding(self._input(self.inputs[0], rgb))

    def visible_tokens(self, rgb: Tensor, kept: Tensor) -> Tensor:
        """The tokens of some patches, of a plain transformer: see `TransformerStages`."""
        branch = self.branches[0]
        assert isinstance(branch, TransformerStages)
        return branch.visible_tokens(self._input(self.inputs[0], rgb), kept)

    def _input(self, name: str, rgb: Tensor) -> Tensor:
        """The input of one branch, (B, INPUT_CHANNELS[name], H, W)."""
        if name == "L":
            return rgb_to_lab(rgb)[:, :1] / 50 - 1
        if name == "ab":
            return rgb_to_lab(rgb)[:, 1:] / 110
        normalized = (rgb - self.mean) / self.std
        return normalized if name == "rgb" else normalized * side_mask(name, rgb)

    def weights_sha256(self) -> str:
        """Digest of the backbone's name, of the inputs, and of every weight and buffer.

        Raises:
            UserError: its state has something else, such as packed weights of a quantized layer.
        """
        state = hashlib.sha256(f"{self.backbone} {self.inputs}".encode())
        for name, tensor in sorted(self.state_dict().items()):
            if not isinstance(tensor, Tensor):
                raise UserError(
                    f"{self.backbone}: '{name}' of its state is a {type(tensor).__name__}, not a "
                    "tensor: its weights cannot be recognized; give the model as it was before it "
                    "was quantized"
                )
            array = tensor.detach().cpu().contiguous()
            state.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
            state.update(array.view(-1).view(torch.uint8).numpy().tobytes())
        return state.hexdigest()

    def save(self, path: Path) -> None:
        """Write weights, history and samples to a safetensors file, atomically."""
        state = {name: t.detach().cpu().contiguous() for name, t in self.state_dict().items()}
        if self.samples is not None:
            state["samples"] = self.samples
        metadata = {
            "backbone": self.backbone,
            "inputs": " ".join(self.inputs),
            "pretraining": json.dumps(asdict(self.pretraining)),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, save(state, metadata))


def side_mask(side: str, images: Tensor) -> Tensor:
    """Mask of one side of the diagonal of images (..., H, W): 1 on that side, else 0; (H, W).

    The diagonal runs from the upper left corner to the lower right one, of oblong images too. A
    pixel on it belongs to neither side.

    Args:
        side: "above_diagonal" or "below_diagonal".
        images: any tensor of that size.
    """
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) + 0.5)[:, None] * width
    columns = (torch.arange(width, device=images.device) + 0.5)[None] * height
    inside = columns > rows if side == "above_diagonal" else columns < rows
    return inside.to(images.dtype)


def load_encoder(path: Path, backbone: str) -> Encoder:
    """Read an encoder that `Encoder.save` wrote.

    Raises:
        UserError: the file is none, or contains another backbone.
    """
    hint = "delete it and run again"
    try:
        regular.check(path, LARGEST)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        pretraining = TypeAdapter(Pretraining).validate_json(metadata["pretraining"])
        own = metadata["backbone"]
        inputs = tuple(metadata["inputs"].split())
        if not inputs or not INPUT_CHANNELS.keys() >= {*inputs}:
            raise ValueError(inputs)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        raise UserError(f"{path}: not an encoder's file; {hint}") from None
    if own != backbone:
        raise UserError(f"{path}: has a {own}, not a {backbone}; {hint}")
    encoder = Encoder(backbone, inputs)
    encoder.samples = state.pop("samples", None)
    try:
        encoder.load_state_dict(state)
    except RuntimeError:
        raise UserError(f"{path}: its weights do not fit a {backbone}; {hint}") from None
    encoder.pretraining = pretraining
    return encoder


def encoder_of(backbone: str, weights: Mapping[str, Tensor], what: str) -> Encoder:
    """An encoder of a backbone with weights by timm's names; others than its own do not count.

    Args:
        backbone: name of a timm model.
        weights: of the whole model, or of all but its classifier.
        what: what the weights are, for a message.

    Raises:
        UserError: a weight is missing or of another shape.
    """
    encoder = Encoder(backbone)
    branch: Any = encoder.branches[0]
    names = timm_names(backbone, branch)
    missing = [theirs for theirs in names.values() if theirs not in weights]
    if missing:
        few = ", ".join(missing[:FEW])
        raise UserError(f"{what}: {len(missing)} of {len(names)} weights are missing: {few}")
    try:
        branch.load_state_dict({own: weights[theirs] for own, theirs in names.items()})
    except RuntimeError as error:
        raise UserError(
            f"{what}: do not fit {backbone}: {str(error).splitlines()[-1].strip()}"
        ) from None
    return encoder
