"""Supervised ImageNet weights: the ceiling that gaps are measured from."""

from typing import ClassVar

from bench.encoders.encoder import Encoder, imagenet_encoder
from bench.training.context import Context


class ImageNet:
    """The published weights of the suite's backbone, trained on ImageNet's labels."""

    reference: ClassVar[str] = "Russakovsky et al. 2015, https://arxiv.org/abs/1409.0575"
    reads: ClassVar[tuple[str, ...]] = ()

    def pretrain(self, context: Context) -> Encoder:
        """Load the weights; nothing is trained here."""
        backbone = context.suite.backbone
        return imagenet_encoder(backbone.name, backbone.imagenet)
