"""ImageNet: supervised weights, the reference from which gaps are measured."""

from typing import ClassVar

from bench.encoders.encoder import Encoder
from bench.encoders.imagenet import imagenet_encoder
from bench.training.context import Context


class ImageNet:
    """The published weights of the suite's backbone, trained on ImageNet's labels."""

    reference: ClassVar[str] = "Russakovsky et al. 2015, https://arxiv.org/abs/1409.0575"
    version: ClassVar[int] = 1
    datasets: ClassVar[tuple[str, ...]] = ()
    reference_row: ClassVar[bool] = True

    def pretrain(self, context: Context) -> Encoder:
        """Load the weights; nothing is trained."""
        return imagenet_encoder(context.backbone, context)
