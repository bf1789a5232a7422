"""A fully convolutional network on any encoder, as a network to fine-tune."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from bench.config.schema import FineTuning, Positive
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
    scale: tuple[float, float]
    """Size of a training image in shares of its own, smallest and largest."""
    channels: Positive = 256
    """Of the dilated convolutions."""


class Segmenter(FineTunedNetwork):
    """An encoder and a head that labels every pixel.

    Args:
        encoder: becomes part of the network.
        settings: of the task. "fcn" dilates the last stage to stride 16 and adds two 3x3
            convolutions of dilation 6 (He et al. 2020, MoCo, appendix A); "fcn32s" scores the last
            stage by one linear layer (Long et al. 2015, section 4.1). Both enlarge bilinearly.
        masked: the training list.
        labels: how many, background included.
    """

    def __init__(
        self, encoder: Encoder, settings: SegmentationSettings, masked: MaskSplit, labels: int
    ) -> None:
        super().__init__(encoder, settings.frozen)
        self.settings, self.masked = settings, masked
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
        """A part of an image scaled at random, maybe mirrored, and its mask.

        Returns:
            uint8 (3, size, size), black beside the image, and int64 (size, size), 255 there.
        """
        masks, size = self.masked.masks, self.settings.size
        mask = torch.from_numpy(read_mask(Path(masks.root) / masks.files[label]))[None]
        low, high = self.settings.scale
        factor = low + (high - low) * float(torch.rand(()))
        shape = [max(1, round(side * factor)) for side in image.shape[-2:]]
        image = transforms.resize(image, shape, antialias=True)
        mask = transforms.resize(mask, shape, InterpolationMode.NEAREST_EXACT)
        pad = [max(0, size - shape[1]), max(0, size - shape[0])]
        image = F.pad(image, (0, pad[0], 0, pad[1]))
        mask = F.pad(mask, (0, pad[0], 0, pad[1]), value=VOID)
        top, left = (int(torch.randint(s - size + 1, ())) for s in image.shape[-2:])
        image, mask = (x[:, top : top + size, left : left + size] for x in (image, mask))
        if torch.rand(()) < 0.5:
            image, mask = image.flip(-1), mask.flip(-1)
        return image.contiguous(), mask[0].long()

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy over the pixels that count, in all processes."""
        images, masks = batch
        logits = self._label(images.float() / 255)
        counted = distributed.average((masks != VOID).sum()).clamp(min=1)
        total = F.cross_entropy(logits.float(), masks, ignore_index=VOID, reduction="sum")
        return total / counted

    def segment(self, image: Tensor) -> Tensor:
        """The label of every pixel of an image, uint8 (3, H, W), as int64 (H, W)."""
        with torch.inference_mode():
            logits = self._label((image[None].float() / 255).to(self.encoder.mean.device))
        return finite(logits)[0].argmax(0)

    def _label(self, rgb: Tensor) -> Tensor:
        """Logits (B, labels, H, W) of RGB in [0, 1].

        Black is added below and to the right up to whole strides: otherwise the coarse map would
        be laid over the image a little too small.
        """
        height, width = rgb.shape[-2:]
        stride = self.encoder.strides[-1]
        whole = F.pad(rgb, (0, -width % stride, 0, -height % stride))
        coarse = self.head(self.encoder(whole)[-1])
        fine = F.interpolate(coarse, size=whole.shape[-2:], mode="bilinear", align_corners=False)
        return fine[..., :height, :width]
