"""MAE: masks, who sees what, the loss, and the encoder that remains."""

from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from bench.methods import mae
from support import Says, built

from bench.config.schema import Backbone
from bench.encoders.encoder import Encoder, load_encoder
from bench.errors import UserError
from bench.training.method import load_or_pretrain


@pytest.fixture
def on(context):
    """A context on a transformer, and crops of 64 px: 16 patches."""

    def make(name="mae", backbone="test_vit", crop=64):
        plain = context(name)
        recipes = {name: plain.suite.recipes["mae"] | {"crop": crop}}
        changes = {"recipes": recipes, "backbone": Backbone(name=backbone, imagenet="timm")}
        return replace(plain, suite=plain.suite.model_copy(update=changes))

    return make


def crops(count=6, side=64):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def test_three_quarters_are_masked_at_random(on):
    pretext = built("mae", on)
    kept, masked = pretext._draw(400, torch.device("cpu"))
    assert kept.shape == (400, 4) and masked.shape == (400, 12)
    whole = torch.cat([kept, masked], 1).sort(1).values
    assert torch.equal(whole, torch.arange(16).expand(400, 16))
    counts = kept.flatten().bincount(minlength=16)
    assert counts.min() > 60 and counts.max() < 140  # 100 each, a deviation of 9


@pytest.mark.parametrize(
    "backbone", ["test_vit", "deit_tiny_distilled_patch16_224", "vit_tiny_patch16_dinov3_qkvb"]
)
def test_blocks_are_shown_the_visible_patches_alone(backbone, on):
    """Whatever is masked may change; and a pass that keeps all patches is the plain model's."""
    pretext = built("mae", lambda name: on(name, backbone)).eval()
    rgb, other = (crops(2, 64) / 255, crops(4, 64)[2:] / 255)
    kept = torch.tensor([[3, 8, 0, 14], [1, 2, 15, 9]])
    shown = []
    model = pretext.encoder.branches[0].model
    for block in model.blocks:
        block.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0].shape[1]))
    with torch.no_grad():
        tokens = pretext.encoder.visible_tokens(rgb, kept)
        assert {*shown} == {model.num_prefix_tokens + 4}
        patches = pretext._patches(other)
        index = kept[:, :, None].expand(-1, -1, patches.shape[-1])
        changed = pretext._images(patches.scatter(1, index, pretext._patches(rgb).gather(1, index)))
        assert not torch.equal(changed, rgb)
        assert torch.equal(pretext.encoder.visible_tokens(changed, kept), tokens)
        every = torch.arange(16).expand(2, 16)
        plain = model.forward_features((rgb - pretext.encoder.mean) / pretext.encoder.std)
        torch.testing.assert_close(pretext.encoder.visible_tokens(rgb, every), plain)


def test_the_loss_is_of_masked_patches_alone(on, monkeypatch):
    """By loops over patches and pixels, without torch."""
    pretext = built("mae", on)
    kept, masked = pretext._draw(2, torch.device("cpu"))
    monkeypatch.setattr(pretext, "_draw", lambda *_: (kept, masked))
    images = crops(2)
    predicted = torch.rand(2, 16, 768)
    monkeypatch.setattr(pretext, "_predict", lambda *_: predicted)
    found = float(pretext.loss(images))
    losses = []
    for image, numbers, guesses in zip(
        images.numpy() / 255, masked.tolist(), predicted, strict=True
    ):
        for number in numbers:
            row, column = 16 * (number // 4), 16 * (number % 4)
            values = image[:, row : row + 16, column : column + 16].flatten()
            values = (values - values.mean()) / np.sqrt(values.var(ddof=1) + 1e-6)
            losses.append(((guesses[number].numpy() - values) ** 2).mean())
    assert found == pytest.approx(np.mean(losses), rel=1e-4)
    predicted.scatter_(1, kept[:, :, None].expand(-1, -1, 768), 1e6)
    assert float(pretext.loss(images)) == found, "visible patches do not count"


def test_the_decoder_puts_every_token_into_its_place(on):
    """Without blocks, it says of each patch what its own token and its own place tell."""
    decoder = mae._Decoder(8, 5, 32, 1, prefix=1)
    decoder.blocks = torch.nn.Identity()
    tokens = torch.rand(1, 3, 8)
    with torch.no_grad():
        found = decoder(tokens, torch.tensor([[2, 0]]), 2)
        visible = decoder.embed(tokens)
        mask = decoder.mask[0]
        places = torch.stack([visible[0, 2], mask[0], visible[0, 1], mask[0]])
        expected = decoder.predict(decoder.norm(places + mae.positions(2, 2, 32)))
    torch.testing.assert_close(found[0], expected)


def test_positions_are_those_of_the_paper():
    """The released code's formula, position by position."""
    found = mae.positions(3, 5, 16)
    for number, row in enumerate(found.tolist()):
        y, x = divmod(number, 5)
        expected = []
        for axis in (x, y):
            angles = [axis / 10_000 ** (k / 4) for k in range(4)]
            expected += [*np.sin(angles), *np.cos(angles)]
        assert row == pytest.approx(expected, abs=1e-6)


def test_the_encoder_has_these_positions_and_keeps_them(on):
    pretext = built("mae", on)
    own = pretext.encoder.branches[0].model.pos_embed
    assert not own.requires_grad
    assert torch.equal(own[0, 1:], mae.positions(10, 10, 64)) and not own[0, 0].any()


def test_the_trained_encoder_is_the_plain_model(on, tmp_path):
    """Its maps of whole images are those of timm's own model with its weights."""
    asked = replace(on("mae"), cache=tmp_path)
    encoder = load_or_pretrain(asked)
    (path,) = (tmp_path / "encoders").glob("mae-*.safetensors")
    assert load_encoder(path, "test_vit").weights_sha256() == encoder.weights_sha256()
    start = built("mae", on).encoder
    assert start.weights_sha256() != encoder.weights_sha256()
    options = {"num_classes": 0, "dynamic_img_size": True, "dynamic_img_pad": True}
    plain = timm.create_model("test_vit", **options).eval()
    plain.load_state_dict(encoder.branches[0].model.state_dict())
    rgb = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = plain.forward_intermediates((rgb - encoder.mean) / encoder.std)[1]
        assert all(map(torch.equal, encoder(rgb), expected))
    assert isinstance(encoder, Encoder)


def test_a_reconstruction_shows_visible_patches_as_they_are(on):
    pretext = built("mae", on).eval()
    kept = torch.tensor([[0, 5, 9, 15]] * 2)
    pretext._draw = lambda *_: (kept, None)
    pretext.decoder = Says(lambda *_: torch.zeros(2, 16, 768))
    images = crops(2)
    with torch.no_grad():
        masked, predicted, original = map(pretext._patches, pretext.visualize(images))
    assert torch.equal(original, pretext._patches(images / 255))
    for shown in (masked, predicted):
        assert torch.equal(shown[:, kept[0]], original[:, kept[0]])
    hidden = [k for k in range(16) if k not in kept[0]]
    assert (masked[:, hidden] == 0.5).all()
    means = original[:, hidden].mean(-1, keepdim=True).expand(-1, -1, 768)
    torch.testing.assert_close(predicted[:, hidden], means)


@pytest.mark.parametrize("crop", [56, 16])
def test_a_crop_of_parts_of_patches_is_refused(crop, on):
    message = (
        rf"recipes\.mae\.crop = {crop}: must be a multiple of the 16 px of a patch of test_vit"
    )
    with pytest.raises(UserError, match=message):
        built("mae", lambda name: on(name, crop=crop))
