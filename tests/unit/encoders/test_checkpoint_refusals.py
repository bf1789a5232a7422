"""What is no checkpoint, or not a whole one, is refused in one line that says what to do."""

import json
import os
import pickle
import sys
import types
from argparse import Namespace

import foreign_weights as foreign
import numpy as np
import pytest
import torch
import torchvision
from foreign_weights import NARROW, SMALL, mlp, resnet, under, vit, weights
from safetensors.torch import save_file
from torch import nn

from bench.encoders.checkpoint.load import load
from bench.encoders.checkpoint.read import read
from bench.errors import UserError

VIT = "vit_tiny_patch16_224"
KINDS = {"zip": True, "old": False}


def save(tree, path, kind="zip"):
    torch.save(tree, path, _use_new_zipfile_serialization=KINDS[kind])
    return path


def refusal(path, arch="resnet18", **options):
    arguments = SMALL if arch == VIT else NARROW
    with pytest.raises(UserError) as error:
        load(path, arch, **{**arguments, **options})
    message = str(error.value)
    assert len(error.value.args[0].splitlines()) == 1
    return message


class Payload:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("kind", KINDS)
def test_a_payload_is_named_and_leaves_no_mark(kind, tmp_path):
    mark = tmp_path / "mark"
    tree = {"state_dict": weights(resnet()), "extra": Payload(mark)}
    message = refusal(save(tree, tmp_path / "weights.pth", kind))
    assert "posix.mkdir" in message or "nt.mkdir" in message
    assert not mark.exists()


def test_a_plain_pickle_is_never_opened(tmp_path):
    mark = tmp_path / "mark"
    path = tmp_path / "pretrain_res50x1.pkl"
    path.write_bytes(pickle.dumps({"experiment_state": Payload(mark)}))
    message = refusal(path)
    assert "plain pickle" in message
    assert "byol-convert" in message
    assert not mark.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_settings_of_argparse_and_numpy_are_read(kind, tmp_path):
    settings = {"args": Namespace(lr=0.1, name="x"), "best": np.float64(0.5), "n": np.int64(3)}
    tree = {"state_dict": weights(resnet()), **settings}
    contents = read(save(tree, tmp_path / "weights.pth", kind))
    assert contents.tree["args"] == settings["args"]
    assert contents.tree["best"] == 0.5


def stand_in(monkeypatch, module, name):
    """A class of a library that need not be installed."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        above = ".".join(parts[:end])
        if above not in sys.modules or end == len(parts):
            monkeypatch.setitem(sys.modules, above, types.ModuleType(above))
    stand_in_type = type(name, (), {"__module__": module})
    setattr(sys.modules[module], name, stand_in_type)
    return stand_in_type()


def test_settings_of_omegaconf_are_passed_over(tmp_path, monkeypatch):
    settings = stand_in(monkeypatch, "omegaconf.dictconfig", "DictConfig")
    settings.content = {"name": "x"}
    tree = {"state_dict": weights(resnet()), "hyper_parameters": settings}
    path = save(tree, tmp_path / "weights.ckpt")
    for module in ("omegaconf", "omegaconf.dictconfig"):
        monkeypatch.delitem(sys.modules, module)
    assert len(load(path, "resnet18", **NARROW).matched) == len(weights(resnet()))
    assert "omegaconf.dictconfig" not in sys.modules


def test_pickled_modules_of_lightly_train_have_to_be_exported(tmp_path, monkeypatch):
    module = stand_in(monkeypatch, "lightly_train._checkpoint", "CheckpointLightlyTrainModels")
    tree = foreign.lightning(weights(resnet())) | {"lightly_train": {"models": module}}
    message = refusal(save(tree, tmp_path / "last.ckpt"))
    assert "lightly-train export" in message


def test_shards_of_a_distributed_run_have_to_be_gathered(tmp_path, monkeypatch):
    name = "torch.distributed._shard.sharded_tensor.api"
    shard = stand_in(monkeypatch, name, "ShardedTensor")
    message = refusal(save({"model": {"w": shard}}, tmp_path / "model.pth"))
    assert "gather the shards" in message


def test_a_whole_pickled_module(tmp_path):
    message = refusal(save(nn.Linear(2, 2), tmp_path / "model.pth"))
    assert "torch.nn.modules.linear.Linear" in message
    assert "state_dict()" in message


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("model_0012499.rank_3.pth", "teacher_checkpoint.pth"),
        ("__0_0.distcp", "dcp_to_torch"),
        ("model-00001-of-00002.safetensors", "max_shard_size"),
        ("model.safetensors.index.json", "one file"),
    ],
)
def test_a_part_of_the_weights(name, advice, tmp_path):
    message = refusal(save(weights(resnet()), tmp_path / name))
    assert advice in message


def test_folders(tmp_path):
    assert "is a folder" in refusal(tmp_path)
    (tmp_path / "__0_0.distcp").touch()
    assert "dcp_to_torch" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("tree", "advice"),
    [
        ({"type": "shard_list", "shards": ["a", "b"]}, "convert_sharded_checkpoint"),
        ({"type": "shard", "classy_state_dict": {}}, "convert_sharded_checkpoint"),
        ({"shard_list": ["a", "b"]}, "convert_sharded_checkpoint"),
        ({"resnet": {"net.0.weight": torch.ones(2)}, "head": {}}, "SimCLR v2"),
        ({"model": {"student._flat_param": torch.ones(2)}}, "FULL_STATE_DICT"),
        (
            {"state_dict": {"module.base_encoder.patch_embed.proj.0.weight": torch.ones(2)}},
            "vit_conv",
        ),
        (
            {
                "student": {},
                "teacher": {"backbone.layers.0.blocks.0.norm1.weight": torch.ones(2)},
                "ibot_loss": {},
            },
            "Swin of iBOT",
        ),
    ],
)
def test_layouts_that_no_model_of_timm_has(tree, advice, tmp_path):
    assert advice in refusal(save(tree, tmp_path / "weights.pth"))


@pytest.mark.parametrize(
    "name",
    ["efficientnet_b0", "efficientnet_v2_s", "mobilenet_v2", "mobilenet_v3_small", "swin_v2_t"],
)
def test_networks_of_torchvision_that_timm_names_otherwise(name, tmp_path):
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    state = {key: torch.ones(1) for key in model.state_dict()}
    message = refusal(save(state, tmp_path / "weights.pth"))
    assert "Swin v2 of torchvision, whose names are not timm's; give the module itself" in message


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"epoch,loss\n1,0.5\n" * 50, "text file"),
        ("Gewichte f\u00fcr alle\n".encode() * 60, "text file"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"\x1f\x8b\x08" + bytes(100), "archive"),
        (bytes(range(256)) * 4, "damaged"),
    ],
)
def test_files_without_weights(content, what, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert what in refusal(path)


def test_archives_that_are_no_checkpoints(tmp_path):
    np.savez(tmp_path / "weights.npz", w=np.ones(3))
    assert "numpy" in refusal(tmp_path / "weights.npz")
    torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)).save(str(tmp_path / "script.pt"))
    assert "TorchScript" in refusal(tmp_path / "script.pt")


@pytest.mark.parametrize("kind", [*KINDS, "safetensors"])
@pytest.mark.parametrize("share", [0.001, 0.5, 0.9999])
def test_truncated_files(kind, share, tmp_path):
    path = tmp_path / "weights.pth"
    if kind == "safetensors":
        save_file(weights(resnet()), path)
    else:
        save(weights(resnet()), path, kind)
    content = path.read_bytes()
    path.write_bytes(content[: max(40, int(len(content) * share))])
    assert "truncated" in refusal(path)


def test_a_tensor_larger_than_its_file(tmp_path):
    tree = {"conv1.weight": torch.ones(1).expand(10**10)}
    assert "larger than the file" in refusal(save(tree, tmp_path / "weights.pth"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value, tmp_path):
    state = weights(resnet())
    state["layer1.0.conv1.weight"] = state["layer1.0.conv1.weight"].clone()
    state["layer1.0.conv1.weight"][0, 0, 0, 0] = value
    message = refusal(save(state, tmp_path / "weights.pth"))
    assert "layer1.0.conv1.weight has values that are not finite" in message


def test_what_is_dropped_may_have_any_value(tmp_path):
    state = weights(resnet()) | {"fc.weight": torch.full((2, 32), float("nan"))}
    load(save(state, tmp_path / "weights.pth"), "resnet18", **NARROW)


def test_other_contents_than_weights(tmp_path):
    assert "list" in refusal(save([1, 2], tmp_path / "list.pth"))
    assert "no weights" in refusal(save({"epoch": 3}, tmp_path / "none.pth"))
    assert "cannot be read" in refusal(tmp_path / "nowhere.pth")


def test_an_arch_that_timm_does_not_have(tmp_path):
    path = save(weights(resnet()), tmp_path / "weights.pth")
    assert "did you mean resnet18" in refusal(path, "resnet1")
    assert "no model of timm" in refusal(path, "hf-hub:timm/resnet18")
    assert "tag" in refusal(path, "resnet18.nothing")


def test_the_wrong_arch_names_the_first_five_missing_keys(tmp_path):
    message = refusal(save(foreign.moco(resnet(), resnet(1)), tmp_path / "w.pth"), "resnet50")
    missing = message.split("missing: ")[1].split(" ...")[0].split(", ")
    assert missing[0] == "layer1.0.conv3.weight"
    assert len(missing) == 5
    assert "read as MoCo v1, v2, key=state_dict, prefix=encoder_q." in message
    assert message.endswith("if resnet50 is another network than the file's, give its own as arch=")


def test_half_a_match_is_refused_unless_it_is_allowed(tmp_path):
    state = weights(vit())
    lost = [name for name in state if name.startswith("blocks.1.mlp.")]
    kept = {name: tensor for name, tensor in state.items() if name not in lost}
    path = save(kept, tmp_path / "weights.pth")
    assert f"{len(kept)} of the {len(state)} tensors" in refusal(path, VIT)
    loaded = load(path, VIT, allow_missing=True, **SMALL)
    assert [*loaded.missing] == lost
    assert {*loaded.matched} == {*kept}
    again = load(path, VIT, allow_missing=True, **SMALL)
    for name, tensor in again.module.state_dict().items():
        assert torch.equal(tensor, loaded.module.state_dict()[name])


def test_a_deeper_network_does_not_fit_a_shallower_one(tmp_path):
    path = save(weights(vit(depth=3)), tmp_path / "weights.pth")
    message = refusal(path, VIT)
    assert "unknown to it: blocks.2.norm1.weight" in message


def test_another_patch_size_is_another_network(tmp_path):
    path = save(weights(vit(patch_size=8)), tmp_path / "weights.pth")
    message = refusal(path, VIT)
    assert "patch_embed.proj.weight (48, 3, 8, 8), not (48, 3, 16, 16)" in message


def test_biases_that_timm_would_leave_out(tmp_path):
    biased = foreign.plain("vit_small_patch16_dinov3_qkvb", **SMALL)
    path = save(foreign.dinov3_names(biased, bias=True), tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"unknown to it: blocks\.0\.attn\.qkv\.bias"):
        load(path, "vit_small_patch16_dinov3", **SMALL)


def test_a_key_or_prefix_that_the_file_does_not_have(tmp_path):
    path = save(foreign.dino(vit(), vit(1)), tmp_path / "weights.pth")
    message = refusal(path, VIT, key="ema")
    assert "no weights at key 'ema'; there are student, teacher" in message
    state = under("trunk.", weights(resnet())) | mlp("top.", 0)
    path = save({"state_dict": state}, tmp_path / "own.pth")
    assert "there are top., trunk." in refusal(path, prefix="nothing")


def test_names_of_nobody_s_layout(tmp_path):
    state = under("trunk.", weights(resnet())) | mlp("top.", 0)
    message = refusal(save({"state_dict": state}, tmp_path / "own.pth"))
    assert "begin with top., trunk.; if one is the encoder's, give it as prefix=" in message
    message = refusal(save({"ours": weights(resnet())}, tmp_path / "own.pth"))
    assert "fits no known layout" in message
    assert "key=ours" in message


def test_containers_in_themselves_and_endless_wrappers_end(tmp_path):
    tree = {"epoch": 3}
    tree |= {f"entry{number}": tree for number in range(50)}
    assert "no weights" in refusal(save(tree, tmp_path / "loop.pth"))
    state = {f"{'module.' * 1100}{name}": t for name, t in weights(resnet()).items()}
    assert load(save(state, tmp_path / "deep.pth"), "resnet18", **NARROW).matched


def test_no_final_norm(tmp_path):
    state = {name: t for name, t in weights(vit()).items() if not name.startswith("norm.")}
    path = save(state, tmp_path / "weights.pth")
    assert "missing: norm.weight, norm.bias" in refusal(path, VIT)
    loaded = load(path, VIT, allow_missing=True, **SMALL)
    assert any("no final norm" in note for note in loaded.notes)


PIXELS = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        PIXELS.values(),
        ("123.675,116.28,103.53", "58.395,57.12,57.375"),
        ("0.485,0.456,0.406", "58.395,57.12,57.375"),
        (0.5, 0),
        (-0.5, 0.5),
        (float("nan"), 0.5),
    ],
)
def test_a_requested_input_of_another_range(mean, std, tmp_path):
    path = save(weights(vit()), tmp_path / "weights.pth")
    message = refusal(path, VIT, mean=mean, std=std)
    assert message.endswith("(as requested): must be of RGB in [0, 1]; give mean= and std=")


def test_an_input_of_another_range_beside_the_file(tmp_path):
    path = save(weights(vit()), tmp_path / "weights.pth")
    own = {"image_mean": PIXELS["mean"], "image_std": PIXELS["std"]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(own))
    assert refusal(path, VIT) == (
        "mean 123.675 116.28 103.53 and std 58.395 57.12 57.375 (preprocessor_config.json beside "
        "the file): must be of RGB in [0, 1]; give mean= and std="
    )
    assert load(path, VIT, mean=0.5, std=0.5, **SMALL).contract.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    "settings",
    [{"pretrained_cfg": PIXELS}, foreign.TRAINER | {"arch": VIT, "args": Namespace(**PIXELS)}],
)
def test_an_input_of_another_range_in_the_file(settings, tmp_path):
    tree = settings | {"version": 2, "state_dict": weights(vit())}
    message = refusal(save(tree, tmp_path / "weights.pth"), VIT)
    assert "(the settings in the file): must be of RGB in [0, 1]" in message
