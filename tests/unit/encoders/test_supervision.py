"""What weights were trained on, by their names, and repositories of the hub without a network."""

import json
import shutil

import foreign_weights as foreign
import pytest
import timm
import torch
from safetensors.torch import save_file

from bench import plugins
from bench.encoders.checkpoint import huggingface
from bench.encoders.supervision import is_imagenet_alone, of_config, of_tag, warning
from bench.errors import UserError


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("a1_in1k", "labels"),
        ("augreg_in21k", "labels"),
        ("augreg_in21k_ft_in1k", "labels, by fine-tuning"),
        ("fb_ssl_yfcc100m_ft_in1k", "labels, by fine-tuning"),
        ("fb_swsl_ig1b", "hashtags or labels of other models"),
        ("laion2b_ft_in1k", "labels, by fine-tuning"),
        ("openai", "texts that belong to images"),
        ("dino", "images alone"),
        ("mae", "images alone"),
        ("lvd142m", "images alone"),
        ("in22k_ijepa", "images alone"),
        ("swag_lc_in1k", "labels, by fine-tuning"),
        ("ns_jft_in1k", "hashtags or labels of other models"),
        ("fb_dist_in1k", "labels, and labels of other models"),
        ("msft_in1k", "labels"),
        ("mim_m38m", "texts that belong to images"),
        ("mim_in22k", "texts that belong to images"),
        ("seer", "images alone"),
        ("", ""),
    ],
)
def test_tags_of_timm(tag, expected):
    assert of_tag(tag) == expected
    assert bool(warning(expected)) == (expected not in ("", "images alone"))


def test_a_classifier_of_transformers_saw_labels():
    assert of_config({"architectures": ["ViTForImageClassification"]}) == "labels, by fine-tuning"
    assert of_config({"architectures": ["ViTModel"]}) == of_config({}) == ""


@pytest.mark.parametrize(
    ("config", "arch"),
    [
        ({"architecture": "resnet18", "num_classes": 1000}, "resnet18"),
        (
            {"model_type": "vit", "hidden_size": 384, "patch_size": 16},
            "vit_small_patch16_224",
        ),
        (
            {"model_type": "dinov2_with_registers", "hidden_size": 768, "patch_size": 14},
            "vit_base_patch14_reg4_dinov2",
        ),
        (
            {"model_type": "dinov3_vit", "hidden_size": 1024, "patch_size": 16},
            "vit_large_patch16_dinov3",
        ),
        (
            {"model_type": "resnet", "layer_type": "bottleneck", "depths": [3, 4, 6, 3]},
            "resnet50",
        ),
        ({"model_type": "vit", "hidden_size": 385, "patch_size": 16}, ""),
        ({"model_type": "bert", "hidden_size": 768}, ""),
        ({"model_type": "resnet", "depths": 3}, ""),
    ],
)
def test_the_timm_model_of_a_config(config, arch):
    assert huggingface.arch_of(config) == arch
    assert not arch or timm.is_model(arch)


@pytest.fixture
def hub(tmp_path, monkeypatch, own_plugins):
    """Repositories in a folder in place of the hub: OWNER/REPO/COMMIT/FILE.

    As from the hub itself, only a file that is asked for gets into the cache.
    """

    def download(repository, name, revision=None):
        from huggingface_hub.errors import EntryNotFoundError

        commit = f"{repository}/{revision or 'c0ffee'}"
        path = tmp_path / "hub" / commit / name
        if not path.exists():
            raise EntryNotFoundError(name)
        copy = tmp_path / "cache" / commit / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        return str(shutil.copy(path, copy))

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    return tmp_path / "hub"


def test_a_repository_of_timm_is_a_row(hub, context):
    folder = hub / "someone/own" / "c0ffee"
    folder.mkdir(parents=True)
    config = {
        "architecture": "resnet18",
        "pretrained_cfg": {"tag": "a1_in1k", "mean": [0.1] * 3, "std": [0.2] * 3},
    }
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    plain = timm.create_model("resnet18").eval()
    save_file(plain.state_dict(), folder / "model.safetensors")
    (name,) = plugins.select("methods", "hf:someone/own")
    described = plugins.describe("methods", name)
    assert (name, described.backbone) == ("own", "resnet18")
    assert "revision=c0ffee" in described.constants["reference"]
    encoder = plugins.load("methods", name)().pretrain(context(name)).eval()
    assert encoder.origin["trained_on"] == "labels"
    rgb = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        expected = plain.forward_features((rgb - 0.1) / 0.2)
        torch.testing.assert_close(encoder(rgb)[-1], expected)


def test_a_repository_without_weights_or_of_another_kind_is_one_line(hub):
    folder = hub / "someone/bert" / "c0ffee"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="hf:someone/bert: is a model of type bert; those of vit"):
        plugins.select("methods", "hf:someone/bert")
    with pytest.raises(UserError, match=r"hf:someone/none: has no config\.json"):
        plugins.select("methods", "hf:someone/none")
    with pytest.raises(UserError, match=r"hf:someone/bert: has none of model\.safetensors"):
        huggingface.weights_of("someone/bert", "c0ffee")


@pytest.fixture(scope="module")
def tiny():
    """A ViT-Ti of random weights."""
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()


@pytest.fixture
def published(hub, tiny, monkeypatch):
    """A ViT-Ti of transformers in the hub; its config.json says what is asked for, too."""
    monkeypatch.setattr(foreign, "DEPTH", len(tiny.blocks))

    def make(**config):
        folder = hub / "someone/vit" / "c0ffee"
        folder.mkdir(parents=True)
        config = {"model_type": "vit", "hidden_size": 192, "patch_size": 16} | config
        (folder / "config.json").write_text(json.dumps(config))
        save_file(foreign.hf_vit(tiny), folder / "model.safetensors")
        return folder

    return make


def pretrained(context, spec="hf:someone/vit"):
    """The encoder of a row of the hub."""
    (name,) = plugins.select("methods", spec)
    return plugins.load("methods", name)().pretrain(context(name)).eval()


def heads_of(encoder):
    return {block.attn.num_heads for block in encoder.branches[0].model.blocks}


def input_of(encoder):
    """The mean and deviation of the first channel of its input."""
    return encoder.mean.flatten()[0].item(), encoder.std.flatten()[0].item()


def test_the_input_that_a_repository_states_is_downloaded_beside_the_weights(
    published, context, tiny
):
    settings = {"do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (published() / "preprocessor_config.json").write_text(json.dumps(settings))
    encoder = pretrained(context)
    assert encoder.origin["input"] == "preprocessor_config.json beside the file"
    assert input_of(encoder) == (0.5, 0.5)
    rgb = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        normalized = (rgb - 0.5) / 0.5
        (*_, expected) = tiny.forward_intermediates(normalized, intermediates_only=True)
        torch.testing.assert_close(encoder(rgb)[-1], expected, rtol=1e-3, atol=1e-3)


def test_a_repository_that_states_no_input_is_read(published, context):
    published()
    encoder = pretrained(context)
    assert encoder.origin["input"] == "ImageNet's, as nothing else is stated"
    assert input_of(encoder) == pytest.approx((0.485, 0.229))


def test_an_input_that_is_not_normalized_has_mean_0_and_deviation_1(published, context):
    settings = {"do_normalize": False, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (published() / "preprocessor_config.json").write_text(json.dumps(settings))
    assert input_of(pretrained(context)) == (0, 1)


def test_the_heads_of_a_config_are_the_model_s(published, context):
    published(num_attention_heads=12)
    (name,) = plugins.select("methods", "hf:someone/vit")
    assert "heads=12" in plugins.describe("methods", name).constants["reference"]
    encoder = plugins.load("methods", name)().pretrain(context(name))
    assert heads_of(encoder) == {12}


def test_a_config_without_heads_leaves_those_of_timm(published, context):
    published()
    assert heads_of(pretrained(context)) == {3}


def test_heads_that_are_asked_for_win_over_the_config_s(published, context):
    published(num_attention_heads=12)
    assert heads_of(pretrained(context, "hf:someone/vit?heads=6")) == {6}


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([3, 3], r"hf:someone/vit\?.*: heads: must be a number of attention heads"),
        (5, "arch 'vit_tiny_patch16_224': .*divisible"),
    ],
)
def test_heads_of_a_config_that_no_model_has_are_one_line(published, context, heads, message):
    published(num_attention_heads=heads)
    with pytest.raises(UserError, match=message) as error:
        pretrained(context)
    assert "\n" not in str(error.value)


@pytest.fixture
def cut_off(hub, monkeypatch):
    """A hub that was reached for `config.json` and the weights only."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    download = huggingface_hub.hf_hub_download

    def fail(repository, name, revision=None):
        if name == "preprocessor_config.json":
            raise LocalEntryNotFoundError("no connection\nand no file in the cache")
        return download(repository, name, revision=revision)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)


def test_an_input_that_may_be_stated_but_cannot_be_downloaded_is_one_line(
    published, cut_off, context
):
    published()
    with pytest.raises(
        UserError,
        match=r"^hf:someone/vit: preprocessor_config\.json is not in the Hugging Face cache and "
        r"cannot be downloaded \(LocalEntryNotFoundError\): connect, or copy the cache",
    ) as error:
        pretrained(context)
    assert "\n" not in str(error.value)


def test_a_file_that_the_cache_knows_to_be_absent_needs_no_hub(
    published, cut_off, context, tmp_path
):
    published()
    absent = tmp_path / "hf/models--someone--vit/.no_exist/c0ffee/preprocessor_config.json"
    absent.parent.mkdir(parents=True)
    absent.touch()
    assert pretrained(context).origin["input"] == "ImageNet's, as nothing else is stated"


@pytest.mark.parametrize(
    ("tag", "alone"),
    [
        ("in1k", True),
        ("a1_in1k", True),
        ("fb_dist_in1k", False),
        ("swag_lc_in1k", False),
        ("usi_in1k", False),
        ("ra4_e3600_r224_in1k", True),
        ("augreg_in21k_ft_in1k", False),
        ("fb_ssl_yfcc100m_ft_in1k", False),
        ("in22k_ft_in22k_in1k", False),
        ("ns_jft_in1k", False),
        ("clip_laion2b_augreg_ft_in1k", False),
        ("fb_in1k_384", False),
        ("in1k_ijepa", False),
        ("dino", False),
        ("", False),
    ],
)
def test_tags_of_imagenet_labels_alone(tag, alone):
    assert is_imagenet_alone(tag) == alone


@pytest.mark.parametrize(
    ("model", "tag", "source"),
    [
        ("resnet50_clip", "cc12m", "texts that belong to images"),
        ("vit_pe_core_base_patch16_224", "fb", "texts that belong to images"),
        ("vit_base_patch32_clip_224", "openai_ft_in1k", "labels, by fine-tuning"),
        ("resnet50", "fb_swsl_ig1b_ft_in1k", "labels, by fine-tuning"),
    ],
)
def test_a_model_s_name_says_what_its_tag_does_not(model, tag, source):
    assert of_tag(tag, model) == source


@pytest.mark.parametrize("model", ["deit_tiny_distilled_patch16_224", "hrnet_w18_ssld"])
def test_a_model_that_learned_from_another_is_no_reference(model):
    assert is_imagenet_alone("fb_in1k")
    assert not is_imagenet_alone("fb_in1k", model)
