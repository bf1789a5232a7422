"""Faster R-CNN of torchvision on any encoder, as a network to fine-tune.

There are two protocols. "fpn" has a feature pyramid over the stages of stride 4 and more, and two
linear layers as the head; a transformer's pyramid is made of its last map (Li et al. 2022, ViTDet).
"c4" has proposals from the map of stride 16, and the last stage with one more normalization as the
head (He et al. 2020, MoCo, appendix A). Batch norm is trained everywhere and shared by all
processes. The encoder normalizes its input itself: the detector does not.

Inside, boxes are (x1, y1, x2, y2) in continuous pixels from 0, so that VOC's inclusive (1, 1, 1, 1)
is (0, 0, 1, 1).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.transforms.v2 import functional as transforms

from bench.config.schema import FineTuning, Positive, Rate
from bench.data.voc import ObjectAnnotation
from bench.encoders.encoder import Encoder
from bench.encoders.surgery import split_last_stage
from bench.training.finetuning import FineTunedNetwork

MIN_LINES = 64  # for the objects of a training image; more where an image has more
RATIOS = (0.5, 1.0, 2.0)  # of anchors, height / width (Ren et al. 2015, section 3.1.1)
ANCHOR = 8  # anchor side in strides: 32 pixels at stride 4 (Lin et al. 2017, section 4.1)
C4_ANCHORS = (32, 64, 128, 256, 512)  # pixels, detectron2's base configuration of C4
COARSER = 2  # the last level of a transformer's pyramid, in strides of its map
MAX_DETECTIONS = 100  # of an image, as COCO counts them
MIN_SCORE = 0.05  # of a detection in both protocols (detectron2's TEST.SCORE_THRESH_TEST)

Boxes = dict[str, Tensor]  # `boxes` (n, 4), `labels` (n,), and of detections `scores` (n,)


class DetectionSettings(FineTuning):
    """Settings of a task that detects."""

    dataset: str = "voc"
    protocol: Literal["fpn", "c4"]
    """A feature pyramid, or one map of stride 16 with the last stage in the head."""
    metric: Literal["AP50", "AP50_exact", "AP50_area"] = "AP50"
    """The main score: 11-point average precision as VOC 2007, as released evaluators round its
    recalls or exactly, or the area as VOC 2010."""
    scale: tuple[Rate, Rate] = (1.0, 1.0)
    """A training image's longest side, smallest and largest, in shares of `size`."""
    channels: Positive = 256
    """Of the pyramid."""
    hidden: Positive = 1024
    """Of the pyramid's head."""
    proposals: Positive = 1000
    """Kept of each image for the head."""
    regions: Positive = 512
    """Sampled of each image for the head's loss."""


class Detector(FineTunedNetwork):
    """Faster R-CNN to fine-tune.

    Args:
        encoder: becomes part of the network.
        settings: of the task.
        objects: of every image of the training split.
        classes: names, in order.
    """

    def __init__(
        self,
        encoder: Encoder,
        settings: DetectionSettings,
        objects: Sequence[Sequence[ObjectAnnotation]],
        classes: Sequence[str],
    ) -> None:
        super().__init__(encoder, settings.frozen)
        self.settings = settings
        self.objects = objects
        trained = [sum(not entry.difficult for entry in own) for own in objects]
        self.lines = max([MIN_LINES, *trained])
        # torchvision places anchors by whole strides.
        stride = encoder.strides[-1] * (COARSER if encoder.is_isotropic else 1)
        self.side = -(-settings.size // stride) * stride
        self.class_indices = {name: k + 1 for k, name in enumerate(classes)}  # 0 is background
        build = _pyramid if settings.protocol == "fpn" else _c4
        self.network: FasterRCNN = build(encoder, settings, len(classes) + 1)
        self.network.transform = _NoTransform()
        heads = self.network.roi_heads
        heads.subsample = _repeat_regions(heads.subsample, settings.regions)
        self.encoder = self.network.backbone.encoder

    def transform(self, image: Tensor, label: int) -> tuple[Tensor, Tensor]:
        """An image, mirrored half of the time, in a square, and its objects.

        Args:
            image: uint8 (3, H, W).
            label: its position in the training split.

        Returns:
            uint8 (3, side, side), side being the suite's size in whole strides; and float
            (L, 5): class and box, class 0 for none; L suffices for every training image.
        """
        smallest, largest = self.settings.scale
        scale = smallest + (largest - smallest) * float(torch.rand(()))
        padded, factor = fit(image, self.side, self.settings.size * scale)
        objects = [annotation for annotation in self.objects[label] if not annotation.difficult]
        lines = torch.zeros(self.lines, 5)
        for line, annotation in zip(lines, objects, strict=False):
            line[0] = self.class_indices[annotation.name]
            line[1:] = (torch.tensor(annotation.box) - torch.tensor([1.0, 1.0, 0.0, 0.0])) * factor
        if torch.rand(()) < 0.5:
            width = round(image.shape[-1] * factor)
            padded[..., :width] = padded[..., :width].flip(-1)
            lines[:, [1, 3]] = width - lines[:, [3, 1]]
        return padded, lines

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Sum of the four losses of Ren et al. 2015: two of the proposals, two of the head."""
        images, objects = batch
        targets = []
        for lines in objects:
            lines = lines[lines[:, 0] > 0]
            lines = lines[(lines[:, 3:] > lines[:, 1:3]).all(1)]  # not scaled to nothing
            targets.append({"labels": lines[:, 0].long(), "boxes": lines[:, 1:]})
        losses: dict[str, Tensor] = self.network(images.float() / 255, targets)
        return torch.stack(list(losses.values())).sum()

    def detect(self, image: Tensor) -> Boxes:
        """Detections in an image, uint8 (3, H, W): `boxes` as VOC's, `labels` from 0, `scores`."""
        padded, factor = fit(image, self.side, self.settings.size)
        with torch.inference_mode():
            (detections,) = self.network((padded[None].float() / 255).to(self.encoder.mean.device))
        boxes = detections["boxes"] / factor
        limit = torch.tensor([image.shape[-1], image.shape[-2]] * 2, device=boxes.device)
        inside = (boxes[:, :2] < limit[:2]).all(1)  # not in the black padding
        boxes = boxes[inside].clamp(min=0).minimum(limit)
        boxes += boxes.new_tensor([1.0, 1.0, 0.0, 0.0])
        boxes[:, 2:] = boxes[:, 2:].maximum(boxes[:, :2])  # thinner than a pixel
        return {
            "boxes": boxes,
            "labels": detections["labels"][inside] - 1,
            "scores": detections["scores"][inside],
        }


def fit(image: Tensor, side: int, longest: float) -> tuple[Tensor, float]:
    """An image in the upper left of a black square, scaled by its longest side.

    Args:
        image: uint8 (3, H, W).
        side: of the square, pixels.
        longest: the image's longest side after scaling, pixels.

    Returns:
        uint8 (3, side, side), and the factor that scaled image and boxes.
    """
    height, width = image.shape[-2:]
    factor = longest / max(height, width)
    shape = [max(1, round(height * factor)), max(1, round(width * factor))]
    small = transforms.resize(image, shape, antialias=True)
    padded = F.pad(small, (0, side - small.shape[-1], 0, side - small.shape[-2]))
    return padded, factor


def _repeat_regions(
    sample: Callable[[list[Tensor]], list[Tensor]], regions: int
) -> Callable[[list[Tensor]], list[Tensor]]:
    """Repeat the sampled regions of each image in turn where there are fewer than `regions`.

    Every process then has as many, so that means and statistics over all processes are those of
    one.
    """

    def sample_and_repeat(labels: list[Tensor]) -> list[Tensor]:
        count = torch.arange(regions, device=labels[0].device)
        return [k[count % len(k)] if len(k) else k for k in sample(labels)]

    return sample_and_repeat


class _NoTransform(nn.Module):
    """The identity in place of torchvision's transform: images have the network's size already."""

    def forward(
        self, images: Tensor, targets: list[Boxes] | None = None
    ) -> tuple[ImageList, list[Boxes] | None]:
        height, width = images.shape[-2:]
        return ImageList(images, [(height, width)] * len(images)), targets

    def postprocess(self, detections: list[Boxes], sizes: Any, originals: Any) -> list[Boxes]:
        return detections


class _SimplePyramid(nn.Module):
    """An encoder and a pyramid of its last map (Li et al. 2022, section 3, "simple").

    The levels have 1/4, 1/2, 1 and 2 times the stride of the map. Deconvolutions enlarge it and
    max-pooling shrinks it. A 1x1 and a 3x3 convolution follow at each level.

    Attributes:
        strides: of every level, in pixels.
    """

    def __init__(self, encoder: Encoder, channels: int) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.channels[-1]
        half, quarter = width // 2, width // 4
        enlarge = nn.ConvTranspose2d(width, half, 2, 2)
        twice = nn.ConvTranspose2d(width, half, 2, 2)
        again = nn.ConvTranspose2d(half, quarter, 2, 2)
        scales: list[tuple[nn.Module, int]] = [
            (nn.Sequential(twice, LayerNorm2d(half), nn.GELU(), again), quarter),
            (enlarge, half),
            (nn.Identity(), width),
            (nn.MaxPool2d(2, 2), width),
        ]
        self.levels = nn.ModuleList(
            nn.Sequential(
                scale,
                nn.Conv2d(count, channels, 1, bias=False),
                LayerNorm2d(channels),
                nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                LayerNorm2d(channels),
            )
            for scale, count in scales
        )
        stride = encoder.strides[-1]
        self.strides = (stride / 4, stride / 2, float(stride), float(COARSER * stride))
        self.out_channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        last = self.encoder(images)[-1]
        return OrderedDict((str(k), level(last)) for k, level in enumerate(self.levels))


class _Pyramid(nn.Module):
    """An encoder and a feature pyramid, with the attributes that torchvision needs.

    Attributes:
        strides: of every level, in pixels.
    """

    def __init__(self, encoder: Encoder, channels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.stages = [k for k, stride in enumerate(encoder.strides) if stride >= 4]
        self.strides = tuple(float(encoder.strides[k]) for k in self.stages)
        widths = [encoder.channels[k] for k in self.stages]
        self.pyramid = FeaturePyramidNetwork(widths, channels, norm_layer=nn.BatchNorm2d)
        self.out_channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.encoder(images)
        by_name = OrderedDict((str(level), maps[k]) for level, k in enumerate(self.stages))
        levels: dict[str, Tensor] = self.pyramid(by_name)
        return levels


def _pyramid(encoder: Encoder, settings: DetectionSettings, classes: int) -> FasterRCNN:
    build = _SimplePyramid if encoder.is_isotropic else _Pyramid
    body = build(encoder, settings.channels)
    sizes = tuple((round(ANCHOR * stride),) for stride in body.strides)
    return FasterRCNN(
        body,
        rpn_anchor_generator=AnchorGenerator(sizes, (RATIOS,) * len(sizes)),
        box_roi_pool=MultiScaleRoIAlign([str(k) for k in range(len(sizes))], 7, 2),
        box_head=TwoMLPHead(settings.channels * 49, settings.hidden),
        box_predictor=FastRCNNPredictor(settings.hidden, classes),
        **_limits(settings, 2, 2),
    )


class _Trunk(nn.Module):
    """The stages of an encoder up to stride 16, with the attribute that torchvision needs."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.out_channels = encoder.channels[-1]

    def forward(self, images: Tensor) -> Tensor:
        last: Tensor = self.encoder(images)[-1]
        return last


class _Head(nn.Module):
    """The last stage on regions, normalized, averaged over positions."""

    def __init__(self, stage: nn.Module, channels: int) -> None:
        super().__init__()
        self.stage = stage
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, regions: Tensor) -> Tensor:
        averaged: Tensor = self.norm(self.stage(regions)).mean((2, 3))
        return averaged


def _c4(encoder: Encoder, settings: DetectionSettings, classes: int) -> FasterRCNN:
    trunk, last_stage = split_last_stage(encoder)
    # As part of the head, it is trained on a frozen trunk too (Goyal et al. 2019).
    last_stage.requires_grad_(True)
    return FasterRCNN(
        _Trunk(trunk),
        rpn_anchor_generator=AnchorGenerator((C4_ANCHORS,), (RATIOS,)),
        box_roi_pool=MultiScaleRoIAlign(["0"], 14, 2),
        box_head=_Head(last_stage, last_stage.channels),
        box_predictor=FastRCNNPredictor(last_stage.channels, classes),
        **_limits(settings, 12, 6),
    )


def _limits(settings: DetectionSettings, train: int, test: int) -> dict[str, float]:
    """Numbers of boxes, as torchvision names them.

    Args:
        settings: of the task.
        train: proposals before suppression as a multiple of those after it, as in detectron2.
        test: likewise, at test.
    """
    return {
        "rpn_pre_nms_top_n_train": train * settings.proposals,
        "rpn_pre_nms_top_n_test": test * settings.proposals,
        "rpn_post_nms_top_n_train": settings.proposals,
        "rpn_post_nms_top_n_test": settings.proposals,
        "box_batch_size_per_image": settings.regions,
        "box_detections_per_img": MAX_DETECTIONS,
        "box_score_thresh": MIN_SCORE,
    }
