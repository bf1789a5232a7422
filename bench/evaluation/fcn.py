"""Fully convolutional network on any encoder, as a network to fine-tune."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from bench.config.schema import FineTuning, Positive, Rate
from bench.data.voc_masks import MaskSplit, read_mask
from bench.encoders.encoder import Encoder
from bench.encoders.surgery import dilate_last_stage
from bench.metrics.segmentation import VOID
from bench.runtime import distributed
from bench.training.finetuning import FineTunedNetwork, finite

DILATION = 6  # of the head's convolutions (He et al. 2020, MoCo, appendix A)


class SegmentationSettings(FineTuning):
    """Settings of a task that segments."""

    dataset: str = "voc_masks"
    head: Literal["fcn", "fcn32s"]
    """Two dilated 3x3 convolutions at stride 16, or one linear layer at stride 32."""
    scale: tuple[Rate, Rate]
    """Size of a training image in shares of its own, smallest and largest."""
    channels: Positive = 256
    """Of the dilated convolutions."""


class Segmenter(FineTunedNetwork):
    """Semantic segmentation: an encoder and a head that classifies every pixel.

    Args:
        encoder: becomes part of the network.
        settings: of the task. "fcn" dilates the last stage to stride 16 and adds two 3x3
            convolutions of dilation 6 (He et al. 2020, MoCo, appendix A). "fcn32s" has one linear
            layer on the last stage (Long et al. 2015, section 4.1). Both enlarge bilinearly.
        split: the training split.
        labels: how many, background included.
    """

    def __init__(
        self, encoder: Encoder, settings: SegmentationSettings, split: MaskSplit, labels: int
    ) -> None:
        super().__init__(encoder, settings.frozen)
        self.settings = settings
        self.split = split
        width = encoder.channels[-1]
        layers: list[nn.Module] = []
        if settings.head == "fcn":
            dilate_last_stage(encoder)
            for _ in range(2):
                layers += [
                    nn.Conv2d(width, settings.channels, 3, 1, DILATION, DILATION, bias=False),
                    nn.BatchNorm2d(settings.channels),
                    nn.ReLU(),
                ]
                width = settings.channels
        self.head = nn.Sequential(*layers, nn.Conv2d(width, labels, 1))

    def transform(self, image: Tensor, label: int) -> tuple[Tensor, Tensor]:
        """A crop of an image scaled at random, mirrored half of the time, and its mask.

        Args:
            image: uint8 (3, H, W).
            label: its position in the training split.

        Returns:
            uint8 (3, size, size), black beside the image, and int64 (size, size), 255 there.
        """
        size = self.settings.size
        path = self.split.masks.root / self.split.masks.files[label]
        mask = torch.from_numpy(read_mask(path))[None]
        smallest, largest = self.settings.scale
        scale = smallest + (largest - smallest) * float(torch.rand(()))
        height, width = (max(1, round(side * scale)) for side in image.shape[-2:])
        padding = (0, max(0, size - width), 0, max(0, size - height))
        image = transforms.resize(image, [height, width], antialias=True)
        image = F.pad(image, padding)
        mask = transforms.resize(mask, [height, width], InterpolationMode.NEAREST_EXACT)
        mask = F.pad(mask, padding, value=VOID)
        top, left = (int(torch.randint(side - size + 1, ())) for side in image.shape[-2:])
        image = image[:, top : top + size, left : left + size]
        mask = mask[:, top : top + size, left : left + size]
        if torch.rand(()) < 0.5:
            image = image.flip(-1)
            mask = mask.flip(-1)
        return image.contiguous(), mask[0].long()

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy over the evaluated pixels of all processes."""
        images, masks = batch
        logits = self._classify(images.float() / 255)
        evaluated = distributed.average((masks != VOID).sum()).clamp(min=1)
        total = F.cross_entropy(logits.float(), masks, ignore_index=VOID, reduction="sum")
        return total / evaluated

    def segment(self, image: Tensor) -> Tensor:
        """The label of every pixel of an image, uint8 (3, H, W), as int64 (H, W)."""
        with torch.inference_mode():
            logits = self._classify((image[None].float() / 255).to(self.encoder.mean.device))
        return finite(logits)[0].argmax(0)

    def _classify(self, rgb: Tensor) -> Tensor:
        """Logits (B, labels, H, W) of RGB in [0, 1].

        Black padding below and to the right fills whole strides, so that the enlarged logits are
        aligned with the image.
        """
        height, width = rgb.shape[-2:]
        stride = self.encoder.strides[-1]
        padded = F.pad(rgb, (0, -width % stride, 0, -height % stride))
        coarse = self.head(self.encoder(padded)[-1])
        fine = F.interpolate(coarse, size=padded.shape[-2:], mode="bilinear", align_corners=False)
        return fine[..., :height, :width]
