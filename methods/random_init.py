"""The untrained backbone: the floor that every method must leave."""

from typing import ClassVar

from bench.encoders.encoder import Encoder
from bench.training.context import Context


class RandomInit:
    """timm's own initialization, drawn from the cell's seed."""

    reference: ClassVar[str] = "He et al. 2015, https://arxiv.org/abs/1502.01852"
    reads: ClassVar[tuple[str, ...]] = ()

    def pretrain(self, context: Context) -> Encoder:
        """Draw the weights and leave them."""
        return Encoder(context.suite.backbone.name)
