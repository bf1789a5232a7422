"""Faster R-CNN of torchvision on any encoder, as a network to fine-tune: protocol "fpn".

There is a feature pyramid over the stages of stride 4 and more, and two linear layers as the head;
a transformer's pyramid is made of its last map (Li et al. 2022, ViTDet). Batch norm is trained
everywhere and shared by all processes. The encoder normalizes its input itself: the detector does
not. Protocol "c4" is in `faster_rcnn_c4`.

Inside, boxes are (x1, y1, x2, y2) in continuous pixels from 0, so that VOC's inclusive (1, 1, 1, 1)
is (0, 0, 1, 1).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.transforms.v2 import functional as transforms

from bench.config.schema import FineTuning, Positive, Rate, Side
from bench.data.voc import ObjectAnnotation
from bench.encoders.encoder import Encoder
from bench.training.finetuning import FineTunedNetwork

MIN_LINES = 64  # for the objects of a training image; more where an image has more
RATIOS = (0.5, 1.0, 2.0)  # of anchors, height / width (Ren et al. 2015, section 3.1.1)
ANCHOR = 8  # anchor side in strides: 32 pixels at stride 4 (Lin et al. 2017, section 4.1)
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
    """`fpn` only: a training image's longest side, smallest and largest, in shares of `size`."""
    shortest_sides: tuple[Side, ...] = ()
    """`c4` only: an image's shortest side, drawn from these in training, the last in testing;
    shorter where the longest side would be above `size`."""
    channels: Positive = 256
    """Of the pyramid."""
    hidden: Positive = 1024
    """Of the pyramid's head."""
    proposals: Positive = 1000
    """Kept of each image for the head; `c4` keeps twice as many in training."""
    regions: Positive = 512
    """Sampled of each image for the head's loss."""
    statistics_batches: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Batches after training by which batch norms get their statistics; 0 keeps running ones."""

    @field_validator("shortest_sides")
    @classmethod
    def _ascending_sides(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError("must be ascending")
        return value

    @field_validator("scale")
    @classmethod
    def _scale_fits(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] <= value[1] <= 1:
            raise ValueError("must be ascending, and at most 1: the image must fit its square")
        return value

    @model_validator(mode="after")
    def _sides_of_c4(self) -> Self:
        if (self.protocol == "c4") != bool(self.shortest_sides):
            raise ValueError('shortest_sides is for protocol "c4", which needs at least one')
        return self

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The settings without newer keys at their default, as older records have them."""
        settings: dict[str, Any] = serialize(self)
        newer = ("shortest_sides", "statistics_batches")
        return {k: v for k, v in settings.items() if v or k not in newer}


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
        self.statistics_batches = settings.statistics_batches
        self.objects = [[entry for entry in own if not entry.difficult] for own in objects]
        self.lines = max([MIN_LINES, *map(len, self.objects)])
        # torchvision places anchors by whole strides.
        stride = encoder.strides[-1] * (COARSER if encoder.is_isotropic else 1)
        self.side = -(-settings.size // stride) * stride
        self.class_indices = {name: k + 1 for k, name in enumerate(classes)}  # 0 is background
        self.network: FasterRCNN = _pyramid(encoder, settings, len(classes) + 1)
        self.network.transform = _NoTransform()
        heads = self.network.roi_heads
        heads.subsample = repeat_regions(heads.subsample, settings.regions)
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
        lines = object_lines(self.objects[label], self.class_indices, self.lines)
        lines[:, 1:] *= factor
        if torch.rand(()) < 0.5:
            width = round(image.shape[-1] * factor)
            padded[..., :width] = padded[..., :width].flip(-1)
            lines[:, [1, 3]] = width - lines[:, [3, 1]]
        return padded, lines

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Sum of the four losses of Ren et al. 2015: two of the proposals, two of the head."""
        images, objects = batch
        losses: dict[str, Tensor] = self.network(images.float() / 255, targets_of(objects))
        return torch.stack(list(losses.values())).sum()

    def detect(self, image: Tensor) -> Boxes:
        """Detections in an image, uint8 (3, H, W): `boxes` as VOC's, `labels` from 0, `scores`."""
        padded, factor = fit(image, self.side, self.settings.size)
        with torch.inference_mode():
            (detections,) = self.network((padded[None].float() / 255).to(self.encoder.mean.device))
        boxes = detections["boxes"] / factor
        limit = torch.tensor([image.shape[-1], image.shape[-2]] * 2, device=boxes.device)
        inside = (boxes[:, :2] < limit[:2]).all(1)  # not in the black padding
        return {
            "boxes": inclusive(boxes[inside].clamp(min=0).minimum(limit)),
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


def object_lines(
    objects: Sequence[ObjectAnnotation], classes: Mapping[str, int], count: int
) -> Tensor:
    """Objects of an image as a tensor of one size for all images.

    Args:
        objects: at most `count`.
        classes: name -> number from 1.
        count: of lines.

    Returns:
        float (count, 5): class and box in pixels of the image; class 0 for none.
    """
    lines = torch.zeros(count, 5)
    for line, entry in zip(lines, objects, strict=False):
        line[0] = classes[entry.name]
        line[1:] = torch.tensor(entry.box) - torch.tensor([1.0, 1.0, 0.0, 0.0])
    return lines


def targets_of(objects: Tensor) -> list[Boxes]:
    """What torchvision's parts take, of lines (B, L, 5), without boxes scaled to nothing."""
    targets = []
    for lines in objects:
        lines = lines[lines[:, 0] > 0]
        lines = lines[(lines[:, 3:] > lines[:, 1:3]).all(1)]
        targets.append({"labels": lines[:, 0].long(), "boxes": lines[:, 1:]})
    return targets


def inclusive(boxes: Tensor) -> Tensor:
    """Boxes (n, 4) as VOC has them; one that is thinner than a pixel gets that pixel."""
    boxes = boxes + boxes.new_tensor([1.0, 1.0, 0.0, 0.0])
    boxes[:, 2:] = boxes[:, 2:].maximum(boxes[:, :2])
    return boxes


def repeat_regions(
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
        # As many before suppression as detectron2 has.
        rpn_pre_nms_top_n_train=2 * settings.proposals,
        rpn_pre_nms_top_n_test=2 * settings.proposals,
        rpn_post_nms_top_n_train=settings.proposals,
        rpn_post_nms_top_n_test=settings.proposals,
        box_batch_size_per_image=settings.regions,
        box_detections_per_img=MAX_DETECTIONS,
        box_score_thresh=MIN_SCORE,
    )
