"""Faster R-CNN as MoCo's released configuration on detectron2: protocol "c4".

Proposals come from the map of stride 16; the last stage with one more normalization is the head (He
et al. 2020, appendix A; github.com/facebookresearch/moco, detection/configs, on top of detectron2's
defaults, detectron2/config/defaults.py, at commit 02b5c4e2). Constants without another source are
from there. torchvision's parts are kept where they compute the same: box coding, and the matching
and sampling of anchors and regions. Anchors, pooling, proposals, losses, detections and initial
weights are written anew, since detectron2 differs there.

An image is scaled by its shortest side and flipped half of the time. A batch is padded below and to
the right to its largest image, over all processes, with the color that the encoder normalizes to 0.
Nothing is padded to whole strides. A test image is alone: padding would change the features at its
borders. Batch norm is trained everywhere, over all processes. Difficult objects are trained on.

What changed is listed in docs/protocols.md: a batch is padded as one, and regions are repeated
where an image has too few, so that the number of processes does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import batched_nms, clip_boxes_to_image, nms, roi_align
from torchvision.transforms.v2 import functional as transforms

from bench.data.voc import ObjectAnnotation
from bench.encoders.encoder import Encoder
from bench.encoders.surgery import LastStage, split_last_stage
from bench.evaluation.faster_rcnn import (
    MAX_DETECTIONS,
    MIN_SCORE,
    RATIOS,
    Boxes,
    DetectionSettings,
    inclusive,
    object_lines,
    repeat_regions,
    targets_of,
)
from bench.runtime import distributed
from bench.training.finetuning import FineTunedNetwork
from bench.training.trainer import Objective

ANCHORS = (32, 64, 128, 256, 512)  # square roots of their areas, pixels
ANCHORS_PER_IMAGE = 256  # sampled for the loss of the proposals
ANCHOR_OVERLAPS = (0.7, 0.3)  # with an object: at least for foreground, below for background
BEFORE = {"training": 12, "testing": 6}  # proposals before suppression, for each kept in testing
AFTER = {"training": 2, "testing": 1}  # and after it
PROPOSAL_OVERLAP = 0.7  # above which a proposal is suppressed
REGION_OVERLAP = 0.5  # with an object: at least for foreground
FOREGROUND = 0.25  # of the regions, at most
DETECTION_OVERLAP = 0.5  # above which a detection is suppressed
POOLED = 14  # positions of a region, both ways
PROPOSAL_STD = 0.01  # of initial weights: convolutions of the proposals, and classes
BOX_STD = 0.001  # and boxes


def resized(image: Tensor, shortest: int, longest: int) -> Tensor:
    """An image, uint8 (3, H, W), scaled by its shortest side, or less by its longest.

    Args:
        image: uint8 (3, H, W).
        shortest: side after scaling, pixels.
        longest: side after scaling, at most.
    """
    height, width = image.shape[-2:]
    scale = shortest / min(height, width)
    scale *= min(1.0, longest / (scale * max(height, width)))
    shape = [max(1, int(side * scale + 0.5)) for side in (height, width)]
    scaled: Tensor = transforms.resize(image, shape, antialias=True)
    return scaled


class C4Detector(FineTunedNetwork):
    """Faster R-CNN with a copy of the encoder's last stage as its head, to fine-tune.

    Args:
        encoder: all but its last stage is copied as the trunk.
        settings: of the task.
        objects: of every image of the training split.
        classes: names, in order.

    Raises:
        UserError: the encoder has no last stage of its own stride.
    """

    def __init__(
        self,
        encoder: Encoder,
        settings: DetectionSettings,
        objects: Sequence[Sequence[ObjectAnnotation]],
        classes: Sequence[str],
    ) -> None:
        trunk, last_stage = split_last_stage(encoder)
        super().__init__(trunk, settings.frozen)
        # As part of the head, it is trained on a frozen trunk too (Goyal et al. 2019).
        last_stage.requires_grad_(True)
        self.settings = settings
        self.statistics_batches = settings.statistics_batches
        self.objects = [[entry for entry in own if not entry.crowd] for own in objects]
        self.lines = max(1, *map(len, self.objects))
        self.class_indices = {name: k + 1 for k, name in enumerate(classes)}  # 0 is background
        stride = trunk.strides[-1]
        self.proposals = _Proposals(trunk.channels[-1], stride, settings.proposals)
        self.regions = _Regions(last_stage, stride, len(classes) + 1, settings.regions)

    def objectives(self) -> dict[str, Objective]:
        """One loss for all; biases have weight decay, norms have none, as detectron2 has it."""
        ((name, objective),) = super().objectives().items()
        layers = [m for m in self.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        biases = {p for layer in layers for p in layer.parameters() if p.ndim == 1}
        return {name: replace(objective, decayed=biases)}

    def transform(self, image: Tensor, label: int) -> tuple[Tensor, Tensor, Tensor]:
        """An image, scaled and mirrored half of the time, and its objects.

        Args:
            image: uint8 (3, H, W).
            label: its position in the training split.

        Returns:
            uint8 (3, size, size), size being the longest side; the image's own height and width in
            its upper left; and float (L, 5): class and box, class 0 for none; L suffices for every
            training image.
        """
        sides = self.settings.shortest_sides
        scaled = resized(image, sides[int(torch.randint(len(sides), ()))], self.settings.size)
        lines = object_lines(self.objects[label], self.class_indices, self.lines)
        height, width = scaled.shape[-2:]
        lines[:, [1, 3]] *= width / image.shape[-1]
        lines[:, [2, 4]] *= height / image.shape[-2]
        lines[:, 1:] = clip_boxes_to_image(lines[:, 1:], (height, width))
        if torch.rand(()) < 0.5:
            scaled = scaled.flip(-1)
            lines[:, [1, 3]] = width - lines[:, [3, 1]]
        longest = self.settings.size
        square = F.pad(scaled, (0, longest - width, 0, longest - height))
        return square, torch.tensor([height, width]), lines

    def loss(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Sum of the four losses of Ren et al. 2015: two of the proposals, two of the head."""
        images, sizes, objects = batch
        largest = distributed.gather(sizes.amax(0).tolist())
        height, width = (max(sides) for sides in zip(*largest, strict=True))
        rgb = self._on_mean_color(images[..., :height, :width], sizes)
        maps = self.encoder(rgb)[-1].float()
        targets = targets_of(objects)
        shown = ImageList(rgb, [(int(h), int(w)) for h, w in sizes.tolist()])
        boxes, losses = self.proposals(shown, {"0": maps}, targets)
        losses |= self.regions({"0": maps}, boxes, shown.image_sizes, targets)[1]
        return torch.stack(list(losses.values())).sum()

    def detect(self, image: Tensor) -> Boxes:
        """Detections in an image, uint8 (3, H, W): `boxes` as VOC's, `labels` from 0, `scores`."""
        scaled = resized(image, self.settings.shortest_sides[-1], self.settings.size)
        height, width = scaled.shape[-2:]
        with torch.inference_mode():
            rgb = (scaled[None].float() / 255).to(self.encoder.mean.device)
            maps = {"0": self.encoder(rgb)[-1]}
            boxes, _ = self.proposals(ImageList(rgb, [(height, width)]), maps)
            (detections,), _ = self.regions(maps, boxes, [(height, width)])
        ratios = (image.shape[-1] / width, image.shape[-2] / height) * 2
        boxes = detections["boxes"] * detections["boxes"].new_tensor(ratios)
        return {
            "boxes": inclusive(clip_boxes_to_image(boxes, image.shape[-2:])),
            "labels": detections["labels"] - 1,
            "scores": detections["scores"],
        }

    def _on_mean_color(self, images: Tensor, sizes: Tensor) -> Tensor:
        """RGB in [0, 1] of padded images, with the mean of the encoder's normalization outside."""
        height, width = (torch.arange(side, device=images.device) for side in images.shape[-2:])
        inside = (height < sizes[:, :1])[:, None, :, None] & (width < sizes[:, 1:])[:, None, None]
        return torch.where(inside, images.float() / 255, self.encoder.mean)


class _Anchors(nn.Module):
    """Boxes of five sizes and three ratios about the upper left of each position."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride
        sizes = torch.tensor([(s / r**0.5, s * r**0.5) for s in ANCHORS for r in RATIOS])
        self.cell: Tensor
        self.register_buffer("cell", torch.cat([-sizes, sizes], 1) / 2, persistent=False)

    def forward(self, images: ImageList, maps: Sequence[Tensor]) -> list[Tensor]:
        """The same for every image: (H * W * 15, 4) of one map (B, C, H, W), row by row."""
        (grid,) = (one.shape[-2:] for one in maps)
        rows, columns = (self.stride * torch.arange(n, device=self.cell.device) for n in grid)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        anchors = (torch.stack([x, y, x, y], -1)[:, :, None] + self.cell).reshape(-1, 4)
        return [anchors] * len(images.image_sizes)


class _ProposalHead(RPNHead):  # type: ignore[misc] # it has no types
    """torchvision's, initialized alike; boxes are decoded in single precision."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        logits, deltas = super().forward(x)
        return [part.float() for part in logits], [part.float() for part in deltas]


class _Proposals(RegionProposalNetwork):  # type: ignore[misc] # likewise
    """Regions that may have an object, from one map.

    Args:
        channels: of the map.
        stride: of the map, pixels.
        kept: of each image in testing.
    """

    def __init__(self, channels: int, stride: int, kept: int) -> None:
        super().__init__(
            _Anchors(stride),
            _ProposalHead(channels, len(ANCHORS) * len(RATIOS)),
            *ANCHOR_OVERLAPS,
            batch_size_per_image=ANCHORS_PER_IMAGE,
            positive_fraction=0.5,
            pre_nms_top_n={mode: kept * times for mode, times in BEFORE.items()},
            post_nms_top_n={mode: kept * times for mode, times in AFTER.items()},
            nms_thresh=PROPOSAL_OVERLAP,
        )

    def filter_proposals(
        self,
        proposals: Tensor,
        objectness: Tensor,
        image_shapes: list[tuple[int, int]],
        num_anchors_per_level: list[int],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The best proposals of each image, cut at its border, and their logits.

        Args:
            proposals: (B, N, 4).
            objectness: logits, (B * N, 1).
            image_shapes: without padding.
            num_anchors_per_level: one number.
        """
        logits = objectness.detach().reshape(len(proposals), -1)
        logits, best = logits.topk(min(self.pre_nms_top_n(), logits.shape[1]), dim=1)
        kept = []
        for own, order, scores, shape in zip(proposals, best, logits, image_shapes, strict=True):
            boxes = clip_boxes_to_image(own[order], shape)
            visible = (boxes[:, 2:] > boxes[:, :2]).all(1)
            boxes, scores = boxes[visible], scores[visible]
            first = nms(boxes, scores, self.nms_thresh)[: self.post_nms_top_n()]
            kept.append((boxes[first], scores[first]))
        return [boxes for boxes, _ in kept], [scores for _, scores in kept]

    def compute_loss(
        self,
        objectness: Tensor,
        pred_bbox_deltas: Tensor,
        labels: list[Tensor],
        regression_targets: list[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Cross-entropy and L1 of the sampled anchors, over as many as are to be sampled."""
        masks = self.fg_bg_sampler(labels)
        positive, negative = (torch.where(torch.cat(mask))[0] for mask in masks)
        sampled = torch.cat([positive, negative])
        total = ANCHORS_PER_IMAGE * len(labels)
        entropy = F.binary_cross_entropy_with_logits(
            objectness.flatten()[sampled], torch.cat(labels)[sampled], reduction="sum"
        )
        expected = torch.cat(regression_targets)[positive]
        distance = F.l1_loss(pred_bbox_deltas[positive], expected, reduction="sum")
        return entropy / total, distance / total


class _Pool(nn.Module):
    """Regions pooled from one map, on average from every position in them (ROIAlignV2).

    Args:
        stride: of the map, pixels.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(
        self, maps: Mapping[str, Tensor], boxes: list[Tensor], image_shapes: object
    ) -> Tensor:
        (one,) = maps.values()
        pooled: Tensor = roi_align(one, boxes, POOLED, 1 / self.stride, aligned=True)
        return pooled


class _Head(nn.Module):
    """The last stage on regions, normalized, averaged over positions."""

    def __init__(self, stage: LastStage) -> None:
        super().__init__()
        self.stage = stage
        self.norm = nn.BatchNorm2d(stage.channels)

    def forward(self, regions: Tensor) -> Tensor:
        averaged: Tensor = self.norm(self.stage(regions)).mean((2, 3))
        return averaged


class _Predictor(nn.Module):
    """Logits of the classes, and a box for each; that of the background is not used."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classes = nn.Linear(channels, classes)
        self.boxes = nn.Linear(channels, 4 * classes)
        for layer, std in ((self.classes, PROPOSAL_STD), (self.boxes, BOX_STD)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        return self.classes(regions).float(), self.boxes(regions).float()


class _Regions(RoIHeads):  # type: ignore[misc] # likewise
    """Classes and boxes of regions.

    Args:
        stage: the encoder's last.
        stride: of the map that it takes, pixels.
        classes: how many, with the background.
        count: of regions, sampled of each image for the loss.
    """

    def __init__(self, stage: LastStage, stride: int, classes: int, count: int) -> None:
        super().__init__(
            _Pool(stride),
            _Head(stage),
            _Predictor(stage.channels, classes),
            fg_iou_thresh=REGION_OVERLAP,
            bg_iou_thresh=REGION_OVERLAP,
            batch_size_per_image=count,
            positive_fraction=FOREGROUND,
            bbox_reg_weights=None,  # 10, 10, 5, 5
            score_thresh=MIN_SCORE,
            nms_thresh=DETECTION_OVERLAP,
            detections_per_img=MAX_DETECTIONS,
        )
        self.subsample = repeat_regions(super().subsample, count)

    def forward(
        self,
        features: dict[str, Tensor],
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
        targets: list[Boxes] | None = None,
    ) -> tuple[list[Boxes], dict[str, Tensor]]:
        """Detections in evaluation mode, losses in training mode."""
        if not self.training:
            logits, boxes = self._predict(features, proposals)
            return self.detections(logits, boxes, proposals, image_shapes), {}
        proposals, _, labels, deltas = self.select_training_samples(proposals, targets)
        logits, boxes = self._predict(features, proposals)
        return [], region_losses(logits, boxes, torch.cat(labels), torch.cat(deltas))

    def detections(
        self,
        logits: Tensor,
        boxes: Tensor,
        proposals: list[Tensor],
        image_shapes: list[tuple[int, int]],
    ) -> list[Boxes]:
        """The best detections of each image that do not overlap another one of their class.

        Args:
            logits: (R, C), the background first.
            boxes: coded, (R, 4 * C).
            proposals: of each image, R in all.
            image_shapes: height and width of each.
        """
        counts = [len(own) for own in proposals]
        likelihood = logits.softmax(1).split(counts)
        decoded = self.box_coder.decode(boxes, proposals).split(counts)
        found = []
        for own, shares, shape in zip(decoded, likelihood, image_shapes, strict=True):
            region, label = torch.where(shares > self.score_thresh)
            region, label = region[label > 0], label[label > 0]
            at, score = clip_boxes_to_image(own[region, label], shape), shares[region, label]
            best = batched_nms(at, score, label, self.nms_thresh)[: self.detections_per_img]
            best = best[(at[best, 2:] > at[best, :2]).all(1)]
            found.append({"boxes": at[best], "labels": label[best], "scores": score[best]})
        return found

    def _predict(
        self, features: dict[str, Tensor], proposals: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        pooled = self.box_roi_pool(features, proposals, None)
        predictions: tuple[Tensor, Tensor] = self.box_predictor(self.box_head(pooled))
        return predictions


def region_losses(
    logits: Tensor, boxes: Tensor, labels: Tensor, deltas: Tensor
) -> dict[str, Tensor]:
    """Cross-entropy, and L1 of the foreground's boxes, both over all R regions.

    Args:
        logits: (R, C), the background first.
        boxes: coded, (R, 4 * C).
        labels: (R,), 0 for the background.
        deltas: the true boxes, coded, (R, 4).
    """
    foreground = torch.where(labels > 0)[0]
    predicted = boxes.reshape(len(labels), -1, 4)[foreground, labels[foreground]]
    distance = F.l1_loss(predicted, deltas[foreground], reduction="sum")
    return {
        "classes": F.cross_entropy(logits, labels),
        "boxes": distance / max(1, len(labels)),
    }
