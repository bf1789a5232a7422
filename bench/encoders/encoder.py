"""The encoder: what every method hands to every task."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.data.color import rgb_to_lab
from bench.encoders.backbone import imagenet_weights, make_backbone
from bench.errors import UserError

# What a part of an encoder may see of an image -> how many channels that has.
INPUT_CHANNELS = {"rgb": 3, "l": 1, "ab": 2, "above": 3, "below": 3}


@dataclass(frozen=True)
class Pretraining:
    """What an encoder's pretraining took and reached.

    Attributes:
        views_seen: images that went through the encoder, every view counted.
        seconds: wall time of the training loop, over all its runs.
        logged: the pretext's own measures, averaged over the last tenth of the run.
    """

    views_seen: int = 0
    seconds: float = 0.0
    logged: dict[str, float] = field(default_factory=dict)


class Encoder(nn.Module):
    """A timm backbone that takes RGB in [0, 1] and owns what it sees of it.

    Several sights make as many disjoint parts, each with its share of the backbone's channels;
    their maps are concatenated, so that every encoder of a backbone has the same channels.

    Args:
        backbone: name of a timm model with stage-wise features.
        sees: what each part sees: "rgb", normalized as the timm model's weights expect; "l" or
            "ab", the channels of Lab, as L / 50 - 1 and ab / 110; "above" or "below" the
            image's diagonal from upper left to lower right, normalized RGB, the rest 0.

    Attributes:
        channels: of each stage, fine to coarse, over all parts.
        strides: of each stage, in input pixels.
        pretraining: how its weights came about.
        samples: images of what was learned, a uint8 grid (3, H, W), if its method makes any.
    """

    def __init__(self, backbone: str, sees: tuple[str, ...] = ("rgb",)) -> None:
        super().__init__()
        self.backbone, self.sees = backbone, sees
        self.branches = nn.ModuleList(make_backbone(backbone, INPUT_CHANNELS[s], len(sees)) for s in sees)
        info: Any = self.branches[0].feature_info
        self.branch_channels: tuple[int, ...] = tuple(info.channels())
        self.channels = tuple(count * len(sees) for count in self.branch_channels)
        self.strides: tuple[int, ...] = tuple(info.reduction())
        self.pretraining = Pretraining()
        self.samples: Tensor | None = None
        config: Any = timm.get_pretrained_cfg(backbone)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1))

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Map RGB in [0, 1], float (B, 3, H, W), to one map per stage, fine to coarse.

        Stage s is (B, channels[s], ceil(H / strides[s]), ceil(W / strides[s])).
        """
        maps = self.forward_branches(rgb)
        return maps[0] if len(maps) == 1 else [torch.cat(s, 1) for s in zip(*maps, strict=True)]

    def forward_branches(self, rgb: Tensor) -> list[list[Tensor]]:
        """The maps of every part before they are concatenated; `branch_channels` channels each."""
        seen = (self._see(sight, rgb) for sight in self.sees)
        return [
            list(part(view.to(memory_format=torch.channels_last)))
            for part, view in zip(self.branches, seen, strict=True)
        ]

    def _see(self, sight: str, rgb: Tensor) -> Tensor:
        if sight == "l":
            return rgb_to_lab(rgb)[:, :1] / 50 - 1
        if sight == "ab":
            return rgb_to_lab(rgb)[:, 1:] / 110
        view = (rgb - self.mean) / self.std
        return view if sight == "rgb" else view * side_mask(sight, rgb)

    def weights_sha256(self) -> str:
        """Digest of the backbone's name, of what it sees, and of every weight and buffer."""
        state = hashlib.sha256(f"{self.backbone} {self.sees}".encode())
        for name, tensor in sorted(self.state_dict().items()):
            array = tensor.detach().cpu().contiguous()
            state.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
            state.update(array.view(-1).view(torch.uint8).numpy().tobytes())
        return state.hexdigest()

    def save(self, path: Path) -> None:
        """Write weights, history and samples to a safetensors file, atomically."""
        state = {name: t.detach().cpu().contiguous() for name, t in self.state_dict().items()}
        if self.samples is not None:
            state["samples"] = self.samples
        about = {
            "backbone": self.backbone,
            "sees": " ".join(self.sees),
            "pretraining": json.dumps(asdict(self.pretraining)),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file(state, partial, metadata=about)
        partial.replace(path)


def side_mask(side: str, images: Tensor) -> Tensor:
    """1 where a pixel of (..., H, W) lies "above" or "below" the diagonal, else 0; (H, W).

    The diagonal runs from the upper left corner to the lower right one, of oblong images too; a
    pixel on it is neither.
    """
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) + 0.5)[:, None] * width
    columns = (torch.arange(width, device=images.device) + 0.5)[None] * height
    return ((columns > rows) if side == "above" else (columns < rows)).to(images.dtype)


def load_encoder(path: Path, backbone: str) -> Encoder:
    """Read an encoder that `Encoder.save` wrote.

    Raises:
        UserError: the file is not one, or holds another backbone.
    """
    mend = "delete it and run again"
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        history = Pretraining(**json.loads(about["pretraining"]))
        sees = tuple(about["sees"].split())
        if not INPUT_CHANNELS.keys() >= {*sees}:
            raise ValueError(sees)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        raise UserError(f"{path}: not an encoder's file; {mend}") from None
    if about["backbone"] != backbone:
        raise UserError(f"{path}: holds a {about['backbone']}, not a {backbone}; {mend}")
    encoder = Encoder(backbone, sees)
    encoder.samples = state.pop("samples", None)
    try:
        encoder.load_state_dict(state)
    except RuntimeError:
        raise UserError(f"{path}: its weights do not fit a {backbone}; {mend}") from None
    encoder.pretraining = history
    return encoder


def imagenet_encoder(backbone: str, source: str) -> Encoder:
    """A backbone with its ImageNet weights; see `imagenet_weights`."""
    encoder = Encoder(backbone)
    state = imagenet_weights(backbone, source)
    body = encoder.branches[0].state_dict()
    unknown = sorted(body.keys() - state.keys())
    if unknown:
        raise UserError(f"the ImageNet weights of {backbone} lack {unknown[0]}")
    encoder.branches[0].load_state_dict({name: state[name] for name in body})
    return encoder
