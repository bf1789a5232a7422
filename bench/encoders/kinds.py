"""Kinds of backbone, as methods declare them; read from timm's source, without importing torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# timm's modules of plain transformers: all tokens of one stride, and position embeddings that are
# resampled to any image size.
TRANSFORMERS = ("vision_transformer", "deit", "eva")


@dataclass(frozen=True)
class Kind:
    """A kind of backbone that a method may declare.

    Attributes:
        words: what these are, in the plural.
        example: one to train.
        smallest: one for contract tests.
    """

    words: str
    example: str
    smallest: str


KINDS = {
    "transformer": Kind("plain transformers", "vit_tiny_patch16_224", "test_vit"),
    "convolutional": Kind("convolutional networks", "resnet18", "test_resnet"),
}


def kind_of(backbone: str) -> str:
    """The kind of a timm model: what is no plain transformer counts as convolutional.

    Args:
        backbone: name of the model, without a tag.
    """
    return "transformer" if backbone in _transformers() else "convolutional"


@cache
def _transformers() -> frozenset[str]:
    """The functions of timm's modules of plain transformers; models are made by those."""
    spec = find_spec("timm")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "models"
    texts = ((folder / f"{name}.py").read_text(encoding="utf-8") for name in TRANSFORMERS)
    return frozenset(name for text in texts for name in re.findall(r"^def (\w+)\(", text, re.M))
