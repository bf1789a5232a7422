"""Small networks that a pretext task puts on an encoder."""

from __future__ import annotations

from torch import Tensor, nn


class Classifier(nn.Module):
    """Logits from a stage's map: global average, then one linear layer.

    Args:
        channels: of the stage.
        classes: how many logits.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, channels, h, w) to logits (B, classes)."""
        logits: Tensor = self.linear(features.mean((2, 3)))
        return logits
