"""A few steps of other packages' training, saved as their own code saves it.

    python tests/peer_training.py PEER IMAGES FOLDER

trains one of `CASES` on a folder of images with a folder for each class, and writes to FOLDER:

- the checkpoint, wherever the package puts it, under `Peer.file`
- `features.pt`: a batch of images and what the trained encoder itself makes of it

It is a program, since the packages change logging, signals and random states for good. Those
that are scripts of a repository (timm's train.py) are read from the folder PEER_SOURCES.
"""

import os
import runpy
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

SIZE = 64
BATCH = 16
CLASSES = 8
VIT = "vit_tiny_patch16_224"
AT_SIZE = {"img_size": SIZE}
DYNAMIC = {"dynamic_img_size": True}
VIT_AT_SIZE = {**AT_SIZE, **DYNAMIC}
CASES: dict[str, "Peer"] = {}


@dataclass(frozen=True)
class Peer:
    """One file that a package saves.

    Attributes:
        package: that saves it, as it is imported.
        train: writes the file, given the images and a folder, and returns the trained encoder.
        file: pattern of its path in the folder.
        spec: what follows the path in `file:PATH?...`.
        layout: as which it has to be recognized.
        sources: files that must be in PEER_SOURCES.
        exact: whether the encoder is timm's, or torchvision's ResNet, which computes the same
            bits; other networks of the same weights differ by rounding.
        arguments: of the timm model, to compute what the trained encoder does at `size`.
        size: of the images that its encoder is given, in pixels.
        refusal: what the message must say, where the file is not to be loaded.
    """

    package: str
    train: Callable[[Path, Path], nn.Module]
    file: str
    spec: str
    layout: str = ""
    sources: tuple[str, ...] = ()
    exact: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)
    size: int = SIZE
    refusal: str = ""


def peer(package: str, file: str, spec: str, **others: Any) -> Callable[..., Any]:
    """Registers a function under its name."""

    def register(train: Callable[[Path, Path], nn.Module]) -> Callable[[Path, Path], nn.Module]:
        CASES[train.__name__] = Peer(package, train, file, spec, **others)
        return train

    return register


def views(images: Path) -> DataLoader:
    """Batches of two crops of each image, and the classes."""
    crop = v2.Compose(
        [
            v2.PILToTensor(),
            v2.RandomResizedCrop(SIZE, (0.3, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    data = torchvision.datasets.ImageFolder(str(images), lambda image: (crop(image), crop(image)))
    return DataLoader(data, BATCH, shuffle=True, drop_last=True)


def steps(module: nn.Module, loader: DataLoader, loss: Callable[[Any, Any], Any]) -> None:
    """One epoch of a plain loop, as in lightly's examples."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    for (first, second), _ in loader:
        loss(first, second).backward()
        optimizer.step()
        optimizer.zero_grad()


# --- lightly: the building blocks of its examples and benchmarks ----------------------------------


def lightly_simclr(backbone: nn.Module, width: int, images: Path) -> nn.Module:
    """lightly-ai/lightly: examples/pytorch/simclr.py."""
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead

    class SimCLR(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone
            self.projection_head = SimCLRProjectionHead(width, width, 128)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.projection_head(self.backbone(x).flatten(start_dim=1))

    model = SimCLR()
    criterion = NTXentLoss()
    steps(model, views(images), lambda first, second: criterion(model(first), model(second)))
    return model


@peer("lightly", "simclr.pth", "arch=resnet18", layout="ResNet as a sequence of children*")
def lightly_example(images: Path, folder: Path) -> nn.Module:
    resnet = torchvision.models.resnet18()
    backbone = nn.Sequential(*list(resnet.children())[:-1])
    model = lightly_simclr(backbone, 512, images)
    torch.save(model.state_dict(), folder / "simclr.pth")
    return nn.Sequential(backbone, nn.Flatten())


@peer("lightly", "dino.pth", "arch=resnet18", layout="ResNet as a sequence of children*")
def lightly_example_dino(images: Path, folder: Path) -> nn.Module:
    """lightly-ai/lightly: examples/pytorch/dino.py."""
    import copy

    from lightly.loss import DINOLoss
    from lightly.models.modules import DINOProjectionHead
    from lightly.models.utils import deactivate_requires_grad, update_momentum

    class DINO(nn.Module):
        def __init__(self, backbone: nn.Module, input_dim: int) -> None:
            super().__init__()
            self.student_backbone = backbone
            self.student_head = DINOProjectionHead(input_dim, 512, 64, 256, freeze_last_layer=1)
            self.teacher_backbone = copy.deepcopy(backbone)
            self.teacher_head = DINOProjectionHead(input_dim, 512, 64, 256)
            deactivate_requires_grad(self.teacher_backbone)
            deactivate_requires_grad(self.teacher_head)

        def student(self, x: torch.Tensor) -> torch.Tensor:
            return self.student_head(self.student_backbone(x).flatten(start_dim=1))

        def teacher(self, x: torch.Tensor) -> torch.Tensor:
            return self.teacher_head(self.teacher_backbone(x).flatten(start_dim=1))

    resnet = torchvision.models.resnet18()
    model = DINO(nn.Sequential(*list(resnet.children())[:-1]), 512)
    criterion = DINOLoss(output_dim=256, warmup_teacher_temp_epochs=5)

    def loss(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        update_momentum(model.student_backbone, model.teacher_backbone, m=0.9)
        update_momentum(model.student_head, model.teacher_head, m=0.9)
        students = [model.student(view) for view in (first, second)]
        return criterion([model.teacher(first), model.teacher(second)], students, epoch=0)

    steps(model, views(images), loss)
    torch.save(model.state_dict(), folder / "dino.pth")
    return nn.Sequential(model.teacher_backbone, nn.Flatten())


@peer("lightly", "mae.pth", f"arch={VIT}", layout="lightly's examples", arguments=AT_SIZE)
def lightly_example_mae(images: Path, folder: Path) -> nn.Module:
    """lightly-ai/lightly: examples/pytorch/mae.py."""
    from lightly.models import utils
    from lightly.models.modules import (
        MaskedVisionTransformerDecoderTIMM,
        MaskedVisionTransformerTIMM,
    )

    vit = timm.create_model(VIT, img_size=SIZE)

    class MAE(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patch_size = vit.patch_embed.patch_size[0]
            self.backbone = MaskedVisionTransformerTIMM(vit=vit)
            self.sequence_length = self.backbone.sequence_length
            self.decoder_embed = nn.Linear(vit.embed_dim, 64)
            self.decoder = MaskedVisionTransformerDecoderTIMM(
                num_patches=vit.patch_embed.num_patches,
                embed_dim=64,
                depth=1,
                num_heads=4,
                num_prefix_tokens=vit.num_prefix_tokens,
                mlp_ratio=4.0,
                proj_drop_rate=0.0,
                attn_drop_rate=0.0,
            )
            self.prediction_head = nn.Linear(64, self.patch_size**2 * 3)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            keep, mask = utils.random_token_mask(size=(len(x), self.sequence_length))
            encoded = self.decoder_embed(self.backbone.encode(images=x, idx_keep=keep))
            filled = encoded.new_zeros(len(x), self.sequence_length, encoded.shape[-1])
            filled = utils.set_at_index(filled, keep, encoded)
            decoded = self.decoder(filled, idx_mask=mask)
            predicted = self.prediction_head(utils.get_at_index(decoded, mask))
            return predicted, utils.get_at_index(utils.patchify(x, self.patch_size), mask - 1)

    model = MAE()
    steps(model, views(images), lambda first, _: nn.functional.mse_loss(*model(first)))
    torch.save(model.state_dict(), folder / "mae.pth")
    vit.reset_classifier(0)
    return vit


def lightning_steps(module: Any, images: Path, folder: Path) -> None:
    """One epoch of Lightning's trainer, with its own checkpoint."""
    import pytorch_lightning as lightning

    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, default_root_dir=folder
    )
    trainer.fit(module, views(images))


def lightning_simclr(backbone: nn.Module, width: int, online: bool) -> Any:
    """lightly-ai/lightly: examples/pytorch_lightning/simclr.py, benchmarks/imagenet."""
    import pytorch_lightning as lightning
    from lightly.loss import NTXentLoss
    from lightly.models.modules import SimCLRProjectionHead
    from lightly.utils.benchmarking import OnlineLinearClassifier

    class SimCLR(lightning.LightningModule):
        def __init__(self, batch_size_per_device: int, num_classes: int) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.backbone = backbone
            self.projection_head = SimCLRProjectionHead(width, width, 128)
            self.criterion = NTXentLoss()
            if online:
                self.online_classifier = OnlineLinearClassifier(width, num_classes)

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            (first, second), classes = batch
            features = self.backbone(torch.cat([first, second])).flatten(start_dim=1)
            loss = self.criterion(*self.projection_head(features).chunk(2))
            if not online:
                return loss
            of_classes = (features.detach(), classes.repeat(2))
            return loss + self.online_classifier.training_step(of_classes, batch_idx)[0]

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    return SimCLR(BATCH, CLASSES)


@peer("lightly", "checkpoints/*.ckpt", "arch=resnet18", layout="lightly benchmarks")
def lightly_benchmark_resnet18(images: Path, folder: Path) -> nn.Module:
    resnet = torchvision.models.resnet18()
    resnet.fc = nn.Identity()
    lightning_steps(lightning_simclr(resnet, 512, online=True), images, folder)
    return resnet


@peer(
    "lightly", "checkpoints/*.ckpt", f"arch={VIT}", layout="lightly benchmarks", arguments=AT_SIZE
)
def lightly_benchmark_vit(images: Path, folder: Path) -> nn.Module:
    from lightly.models.modules import MaskedVisionTransformerTIMM

    vit = timm.create_model(VIT, **VIT_AT_SIZE)
    wrapped = MaskedVisionTransformerTIMM(vit=vit)
    lightning_steps(lightning_simclr(wrapped, 192, online=True), images, folder)
    vit.reset_classifier(0)
    return vit


@peer(
    "lightly", "checkpoints/*.ckpt", f"arch={VIT}", layout="lightly's examples", arguments=AT_SIZE
)
def lightly_lightning_vit(images: Path, folder: Path) -> nn.Module:
    vit = timm.create_model(VIT, num_classes=0, **VIT_AT_SIZE)
    lightning_steps(lightning_simclr(vit, 192, online=False), images, folder)
    return vit


@peer(
    "lightly",
    "lightly_epoch_0.ckpt",
    "arch=resnet18",
    refusal="normalizes its input by a batch norm",
)
def lightly_ssl_train(images: Path, folder: Path) -> nn.Module:
    """The command lightly-ssl-train, whose ResNet has a batch norm before its first convolution."""
    from lightly.cli.train_cli import train_cli

    overrides = [f"input_dir={images}", "pre_trained=False", "trainer.max_epochs=1"]
    overrides += ["loader.num_workers=0", f"checkpoint_callback.dirpath={folder}"]
    overrides += [f"hydra.run.dir={folder}/hydra"]
    sys.argv = ["lightly-ssl-train", *overrides]
    train_cli()
    return nn.Identity()


# --- lightly-train --------------------------------------------------------------------------------


def lightly_train(
    model: str, method: str, images: Path, folder: Path, size: int = SIZE
) -> nn.Module:
    """lightly_train.pretrain, and the module that it pickled."""
    import lightly_train

    lightly_train.pretrain(
        out=folder / "out",
        data=images,
        model=model,
        method=method,
        epochs=1,
        batch_size=BATCH,
        num_workers=0,
        accelerator="cpu",
        loggers={"tensorboard": None},
        transform_args={"image_size": (size, size)},
    )
    checkpoint = torch.load(folder / "out" / "checkpoints" / "last.ckpt", weights_only=False)
    trained: nn.Module = checkpoint["lightly_train"]["models"]["model"]
    return trained


EXPORTED = "out/exported_models/exported_last.pt"


@peer("lightly_train", EXPORTED, "arch=resnet18", layout="ResNet of torchvision")
def lightly_train_resnet18(images: Path, folder: Path) -> nn.Module:
    model: Any = lightly_train("torchvision/resnet18", "simclr", images, folder)
    model.fc = nn.Identity()
    return model


@peer("lightly_train", EXPORTED, "arch=resnet18", layout="ResNet of torchvision")
def lightly_train_timm_resnet18(images: Path, folder: Path) -> nn.Module:
    model: Any = lightly_train("timm/resnet18", "dino", images, folder)
    model.reset_classifier(0)
    return model


@peer("lightly_train", EXPORTED, f"arch={VIT}", layout="timm", arguments=DYNAMIC)
def lightly_train_timm_vit(images: Path, folder: Path) -> nn.Module:
    model: Any = lightly_train(f"timm/{VIT}", "dino", images, folder)
    model.reset_classifier(0)
    return model


@peer(
    "lightly_train",
    EXPORTED,
    "arch=vit_small_patch14_reg4_dinov2",
    layout="DINOv2",
    exact=False,
    arguments={"img_size": 224},
    size=224,
)
def lightly_train_dinov2(images: Path, folder: Path) -> nn.Module:
    return lightly_train("dinov2/vits14-notpretrained", "dinov2", images, folder, size=56)


@peer("lightly_train", "out/checkpoints/last.ckpt", "arch=resnet18", refusal="lightly-train export")
def lightly_train_checkpoint(images: Path, folder: Path) -> nn.Module:
    return lightly_train("torchvision/resnet18", "simclr", images, folder)


# --- stable-pretraining ---------------------------------------------------------------------------


def stable_pretraining(backbone: nn.Module, width: int, images: Path, folder: Path) -> None:
    """The recipe of SimCLR, run by its Manager."""
    import lightning
    import stable_pretraining as spt
    from stable_pretraining.forward import simclr

    class Views(torch.utils.data.Dataset):
        def __init__(self) -> None:
            self.data = views(images).dataset

        def __len__(self) -> int:
            return len(self.data)

        def __getitem__(self, index: int) -> dict[str, Any]:
            pair, label = self.data[index]
            return {"views": [{"image": image, "label": label} for image in pair]}

    module = spt.Module(
        forward=simclr,
        backbone=backbone,
        projector=nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, 32)),
        simclr_loss=spt.losses.NTXEntLoss(temperature=0.5),
        optim={
            "optimizer": {"type": "SGD", "lr": 0.01},
            "scheduler": {"type": "ConstantLR"},
            "interval": "epoch",
        },
    )
    trainer = lightning.Trainer(
        max_epochs=1, accelerator="cpu", devices=1, logger=False, default_root_dir=folder
    )
    data = spt.data.DataModule(train=DataLoader(Views(), BATCH, shuffle=True, drop_last=True))
    spt.set(cache_dir=str(folder / "cache"))
    spt.Manager(trainer=trainer, module=module, data=data, seed=0)()


SAVED = "cache/runs/*/*/*/checkpoints/*.ckpt"


@peer("stable_pretraining", SAVED, "arch=resnet18", layout="stable-pretraining")
def stable_pretraining_resnet18(images: Path, folder: Path) -> nn.Module:
    from stable_pretraining.backbone import from_torchvision

    backbone = from_torchvision("resnet18")
    backbone.fc = nn.Identity()
    stable_pretraining(backbone, 512, images, folder)
    return backbone


@peer("stable_pretraining", SAVED, f"arch={VIT}", layout="stable-pretraining", arguments=AT_SIZE)
def stable_pretraining_vit(images: Path, folder: Path) -> nn.Module:
    from stable_pretraining.backbone import from_timm

    backbone = from_timm(VIT, num_classes=0, **VIT_AT_SIZE)
    stable_pretraining(backbone, 192, images, folder)
    return backbone


# --- timm and torchvision: their training scripts -------------------------------------------------

TIMM = "pytorch-image-models/train.py"
TORCHVISION = "vision/references/classification/train.py"


def script(name: str, arguments: list[str]) -> dict[str, Any]:
    """The names that a script of PEER_SOURCES defines, after it has run."""
    path = Path(os.environ["PEER_SOURCES"]) / name
    sys.path.insert(0, str(path.parent))
    sys.argv = [str(path), *arguments]
    return runpy.run_path(str(path), run_name="__main__")


def split(images: Path, folder: Path) -> Path:
    """A folder with the images as both `train` and `val`."""
    data = folder / "data"
    data.mkdir()
    for part in ("train", "val"):
        (data / part).symlink_to(images.resolve())
    return data


def of_timm(images: Path, folder: Path, arch: str, *options: str) -> nn.Module:
    """huggingface/pytorch-image-models: train.py, and what timm itself loads."""
    arguments = [
        "--data-dir",
        str(split(images, folder)),
        "--model",
        arch,
        "--num-classes",
        str(CLASSES),
    ]
    arguments += ["--epochs", "1", "--batch-size", str(BATCH), "--workers", "1", "--lr", "0.01"]
    arguments += ["--device", "cpu", "--no-prefetcher", "--output", str(folder)]
    script(TIMM, [*arguments, "--experiment", "run", *options])
    of_vit = {"img_size": SIZE} if arch == VIT else {}
    model = timm.create_model(arch, num_classes=CLASSES, **of_vit)
    timm.models.load_checkpoint(model, str(folder / "run" / "last.pth.tar"), weights_only=False)
    model.reset_classifier(0)
    return model


@peer("timm", "run/last.pth.tar", "arch=resnet18", layout="timm, trainer", sources=(TIMM,))
def timm_resnet18(images: Path, folder: Path) -> nn.Module:
    small = ["--input-size", "3", str(SIZE), str(SIZE)]
    return of_timm(images, folder, "resnet18", "--model-ema", *small)


@peer(
    "timm",
    "run/last.pth.tar",
    f"arch={VIT}",
    layout="timm, trainer",
    sources=(TIMM,),
    arguments=AT_SIZE,
)
def timm_vit(images: Path, folder: Path) -> nn.Module:
    return of_timm(
        images,
        folder,
        VIT,
        "--model-kwargs",
        f"img_size={SIZE}",
        "--img-size",
        str(SIZE),
        "--opt",
        "adamw",
    )


def of_torchvision(images: Path, folder: Path, arch: str, *options: str) -> nn.Module:
    """pytorch/vision: references/classification/train.py, and what torchvision itself loads."""
    arguments = ["--data-path", str(split(images, folder)), "--model", arch, "--epochs", "1"]
    arguments += ["--batch-size", str(BATCH), "--workers", "0", "--lr", "0.01", "--device", "cpu"]
    names = script(TORCHVISION, [*arguments, "--output-dir", str(folder), *options])
    model = torchvision.models.get_model(arch, num_classes=CLASSES)
    saved = torch.load(folder / "checkpoint.pth", weights_only=False)
    if "model_ema" in saved:
        average = names["utils"].ExponentialMovingAverage(model, decay=0.9)
        average.load_state_dict(saved["model_ema"])
        return average.module
    model.load_state_dict(saved["model"])
    return model


@peer(
    "torchvision",
    "checkpoint.pth",
    "arch=resnet18",
    layout="ResNet of torchvision",
    sources=(TORCHVISION,),
)
def torchvision_resnet18(images: Path, folder: Path) -> nn.Module:
    small = ["--train-crop-size", str(SIZE), "--val-crop-size", str(SIZE)]
    small += ["--val-resize-size", str(SIZE)]
    model: Any = of_torchvision(images, folder, "resnet18", "--model-ema", *small)
    model.fc = nn.Identity()
    return model


@peer(
    "torchvision",
    "checkpoint.pth",
    "arch=vit_base_patch32_224",
    layout="torchvision, ViT",
    sources=(TORCHVISION,),
    exact=False,
    size=224,
)
def torchvision_vit(images: Path, folder: Path) -> nn.Module:
    """The smallest that torchvision has; its images are of 224 pixels."""
    model: Any = of_torchvision(images, folder, "vit_b_32")
    model.heads = nn.Identity()
    return model


def main() -> None:
    name, images, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    torch.manual_seed(0)
    peer = CASES[name]
    encoder = peer.train(images, folder).eval()
    batch = torch.rand(4, 3, peer.size, peer.size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = encoder(batch)
    torch.save({"images": batch, "features": features}, folder / "features.pt")


if __name__ == "__main__":
    main()
