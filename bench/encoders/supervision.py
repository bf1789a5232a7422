"""What published weights were trained on, as far as their names say: labels, texts or images alone.

timm's tags name data and method, as in `vit_base_patch16_224.dino` and `resnet50.a1_in1k`
(huggingface/pytorch-image-models: README.md, "Model architectures"; timm/models/_pretrained.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

IMAGES = "images alone"
# The first that is in a tag decides; what is fine-tuned saw labels, whatever came before.
TAGS = (
    (r"(^|_)ft_|swag_lc", "labels, by fine-tuning"),
    (r"swsl|wsl|fb_ssl|_ig1b|swag|jft", "hashtags or labels of other models"),
    (r"(^|_)dist\d*(in|_)|distilled|ssld|usi_", "labels, and labels of other models"),
    (
        r"clip|openai|laion|siglip|webli|dfn|datacomp|mim_m38m|mim_in2\dk|merged2b|cc12m|yfcc"
        r"|apple_pt|florence|radio|tipsv2|(^|_)pt$",
        "texts that belong to images",
    ),
    (r"dino|mae|ijepa|lvd142m|lvd1689m|sat493m|seer", IMAGES),
    (r"in1k|in21k|inw21k|in22k|in12k|inat|augreg|goog|bamboo", "labels"),
)
# Models of timm whose weights saw texts, whatever the tag.
OF_TEXTS = re.compile(
    r"clip|siglip|aimv2|vitamin|vit_pe_|beit3|radio|florence|tipsv2|_vit_\d+m|mobilenetv5"
)
# A tag of labels of ImageNet-1k alone ends in its name, and names no other images or teachers.
IMAGENET = re.compile(r"(?:[a-z0-9]+_)*in1k")
OTHER_SOURCES = re.compile(
    r"(^|_)ft_|in12k|in2[12]k|ssl|swsl|wsl|ig1b|swag|clip|openai|laion|dino|mae|jft|ijepa|mim"
    r"|dist|usi"
)
DISTILLED = re.compile(r"dist|ssld|clip|_bit$")  # in a model's name: other models' labels, or texts
CLASSIFIER = "ForImageClassification"  # transformers' name of a model with a trained classifier


def of_tag(tag: str, model: str = "") -> str:
    """What weights with a tag of timm were trained on; empty if it does not say.

    Args:
        tag: what follows the dot, as `a1_in1k`.
        model: what is in front of it.
    """
    found = next((source for pattern, source in TAGS if re.search(pattern, tag)), "")
    if OF_TEXTS.search(model) and not found.startswith("labels"):
        return "texts that belong to images"
    return found


def is_imagenet_alone(tag: str, model: str = "") -> bool:
    """Whether weights of timm were trained on the labels of ImageNet-1k and no more.

    Args:
        tag: what follows the dot in their name.
        model: what is in front of it.
    """
    alone = IMAGENET.fullmatch(tag) and not OTHER_SOURCES.search(tag)
    return bool(alone) and not DISTILLED.search(model)


def of_config(config: Mapping[str, Any]) -> str:
    """The same of a config.json of transformers: whether a classifier was trained."""
    architectures = config.get("architectures")
    names = architectures if isinstance(architectures, list) else []
    return "labels, by fine-tuning" if any(str(n).endswith(CLASSIFIER) for n in names) else ""


def warning(source: str) -> str:
    """What to say of a row, where labels or texts had a part in its weights; else empty."""
    return f"its weights saw {source}" if source not in ("", IMAGES) else ""
