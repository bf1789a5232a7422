"""Masked autoencoder: the masked patches of an image from a quarter of its patches.

What was kept of the paper and its released code: three quarters of the patches are masked at
random. The encoder is a plain vision transformer, whose blocks are shown the visible patches alone.
A transformer decoder gets their tokens, and one learned token in each masked place. The loss is the
squared error of the masked patches, each normalized by its own mean and deviation (section 3).
Encoder and decoder have fixed 2-D sine-cosine positions, of which timm resamples the encoder's to
the grid of the crop. A transformer of rotary positions alone keeps its own.

What changed: the encoder's other weights begin as timm draws them. The suite decides on the size of
the decoder and on the crops. Patches are normalized in [0, 1], not after the mean and deviation of
ImageNet. A view of the budget is an image, of which the encoder sees a quarter.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from bench.config.schema import Positive, Recipe
from bench.data.transforms import to_unit_range
from bench.encoders.transformer import transformer_of
from bench.errors import UserError
from bench.training.context import Context
from bench.training.pretext import PretextTask
from bench.training.pretext_score import Measure, Scores, squared_errors

MASKED = 0.75  # share of the patches
SMALL = 1e-6  # added to a patch's variance
HEAD = 32  # channels of a decoder's head: 512 in 16
DEVIATION = 0.02  # of the mask token at the start
GRAY = 0.5  # of what is masked, in images that show it


class Mae(PretextTask):
    """Masked autoencoding with a plain vision transformer."""

    reference: ClassVar[str] = "He et al. 2022, https://arxiv.org/abs/2111.06377"
    version: ClassVar[int] = 1
    backbones: ClassVar[str] = "transformer"
    measure = Measure("squared error of masked patches", "the mean image")

    class Settings(Recipe):
        """The recipe, and the size of the decoder."""

        decoder_heads: Positive = 16
        """Heads of 32 channels in each block of the decoder."""
        decoder_depth: Positive = 8
        """Blocks of the decoder."""

    recipe: Settings

    def build(self, context: Context) -> None:
        """Add the decoder, and set the encoder's positions.

        Raises:
            UserError: the crop has a part of a patch.
        """
        super().build(context)
        model = transformer_of(self.encoder)
        self.patch: int = model.patch_embed.patch_size[0]
        self.side, rest = divmod(self.recipe.crop, self.patch)
        if rest or self.side < 2:
            raise UserError(
                f"recipes.{context.method}.crop = {self.recipe.crop}: must be a multiple of the "
                f"{self.patch} px of a patch of {context.backbone.name}, twice that at least"
            )
        if model.pos_embed is not None:
            height, width = model.patch_embed.grid_size
            own = model.pos_embed.requires_grad_(False).zero_()
            own[:, -height * width :] = positions(height, width, own.shape[-1])
        size = (HEAD * self.recipe.decoder_heads, self.recipe.decoder_depth)
        channels = (self.encoder.channels[-1], 3 * self.patch**2)
        self.decoder = _Decoder(*channels, *size, model.num_prefix_tokens)

    def loss(self, batch: Tensor) -> Tensor:
        """Mean squared error of masked patches; `batch` contains crops, uint8 (B, 3, H, H)."""
        rgb = to_unit_range(batch)
        kept, masked = self._draw(len(rgb), rgb.device)
        predicted = _take(self._predict(rgb, kept), masked)
        return F.mse_loss(predicted, _take(normalize(self._patches(rgb)), masked))

    def score(self, batch: Tensor) -> Scores:
        """Squared error of masked patches, or of the mean of the batch's images in their place."""
        rgb = to_unit_range(batch)
        kept, masked = self._draw(len(rgb), rgb.device)
        truth = normalize(self._patches(rgb))
        answers = (self._predict(rgb, kept), truth.mean(0).expand_as(truth), truth)
        return squared_errors(*(_take(answer, masked) for answer in answers))

    def visualize(self, batch: Tensor) -> Tensor:
        """Rows: the masked image, masked patches as predicted, the original.

        A prediction gets the mean and deviation of the patch that it is for.
        """
        rgb = to_unit_range(batch)
        kept, _ = self._draw(len(rgb), rgb.device)
        patches = self._patches(rgb)
        mean, deviation = _moments(patches)
        index = kept[:, :, None].expand(-1, -1, patches.shape[-1])
        visible = patches.gather(1, index)
        gray = torch.full_like(patches, GRAY).scatter(1, index, visible)
        predicted = (self._predict(rgb, kept) * deviation + mean).scatter(1, index, visible)
        return torch.stack([self._images(x) for x in (gray, predicted.clamp(0, 1), patches)])

    def _draw(self, images: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Numbers of the patches to keep and to mask, int64 (B, K) and (B, N - K)."""
        count = self.side**2
        order = torch.rand(images, count, device=device).argsort(1)
        kept = max(1, int(count * (1 - MASKED)))
        return order[:, :kept], order[:, kept:]

    def _predict(self, rgb: Tensor, kept: Tensor) -> Tensor:
        """Every patch, normalized, (B, N, 3 p^2), from those that are kept, (B, K)."""
        tokens = self.encoder.visible_tokens(rgb, kept)
        predicted: Tensor = self.decoder(tokens, kept, self.side)
        return predicted.float()

    def _patches(self, rgb: Tensor) -> Tensor:
        """Patches row by row, (B, N, 3 p^2), of images (B, 3, H, H)."""
        return F.pixel_unshuffle(rgb, self.patch).flatten(2).transpose(1, 2)

    def _images(self, patches: Tensor) -> Tensor:
        """The inverse of `_patches`."""
        grid = patches.transpose(1, 2).unflatten(2, (self.side, self.side))
        return F.pixel_shuffle(grid, self.patch)


class _Decoder(nn.Module):
    """A transformer from the visible patches' tokens to all patches.

    Args:
        channels: of the tokens.
        out: values of a patch.
        width: channels of the blocks.
        depth: how many blocks.
        prefix: tokens before the patches'.
    """

    def __init__(self, channels: int, out: int, width: int, depth: int, prefix: int) -> None:
        super().__init__()
        self.prefix = prefix
        self.embed = nn.Linear(channels, width)
        self.mask = nn.Parameter(torch.randn(1, 1, width) * DEVIATION)
        self.blocks = nn.Sequential(
            *(Block(width, width // HEAD, qkv_bias=True) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, out)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):  # as the released code
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor, kept: Tensor, side: int) -> Tensor:
        """Map tokens (B, P + K, D) of the patches `kept` (B, K) to all patches, (B, N, out)."""
        own, visible = self.embed(tokens).tensor_split([self.prefix], 1)
        places = self.mask.to(visible.dtype).expand(len(tokens), side**2, -1)
        places = places.scatter(1, kept[:, :, None].expand_as(visible), visible)
        places = places + positions(side, side, places.shape[-1]).to(places)
        x = self.norm(self.blocks(torch.cat([own, places], 1)))
        predicted: Tensor = self.predict(x[:, self.prefix :])
        return predicted


def positions(height: int, width: int, channels: int) -> Tensor:
    """Sines and cosines of the columns and of the rows of a grid, (height * width, channels).

    The wavelengths are those of the released code, 2 pi to 10,000 times that.

    Args:
        height: of the grid.
        width: of the grid.
        channels: a multiple of 4.
    """
    rates = 10_000.0 ** -(torch.arange(channels // 4) / (channels // 4))
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    angles = [axis.flatten()[:, None] * rates for axis in (columns, rows)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], 1)


def normalize(patches: Tensor) -> Tensor:
    """Give every patch, (B, N, values), the mean 0 and the deviation 1."""
    mean, deviation = _moments(patches)
    return (patches - mean) / deviation


def _moments(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every patch, (B, N, 1) each."""
    variance, mean = torch.var_mean(patches, -1, keepdim=True)
    return mean, (variance + SMALL).sqrt()


def _take(values: Tensor, index: Tensor) -> Tensor:
    """The rows of (B, N, values) that an index (B, K) names in each."""
    return values.take_along_dim(index[:, :, None], 1)
