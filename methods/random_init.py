"""Random init: the untrained backbone, the baseline of every method with the same input."""

from typing import ClassVar

from bench.encoders.encoder import Encoder
from bench.training.context import Context


class RandomInit:
    """timm's own initialization, drawn from the cell's seed."""

    reference: ClassVar[str] = "He et al. 2015, https://arxiv.org/abs/1502.01852"
    version: ClassVar[int] = 1
    datasets: ClassVar[tuple[str, ...]] = ()
    inputs: ClassVar[tuple[str, ...]] = ("rgb",)
    untrained: ClassVar[bool] = True

    def pretrain(self, context: Context) -> Encoder:
        """Draw the weights; nothing is trained."""
        return Encoder(context.backbone.name, self.inputs)
