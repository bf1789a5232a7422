"""Weights from elsewhere as methods: how a spec is written, named, identified and refused."""

import pytest

from bench import plugins, specs
from bench.commands import plan
from bench.config import loader
from bench.errors import UserError


@pytest.mark.parametrize(
    ("text", "label", "target", "options"),
    [
        ("timm:resnet50", "resnet50", "resnet50", {}),
        ("timm:resnet50.a1_in1k", "resnet50.a1_in1k", "resnet50.a1_in1k", {}),
        ("a=timm:resnet50", "a", "resnet50", {}),
        ("file:runs/my run.pth?arch=resnet18", "my_run", "runs/my run.pth", {"arch": "resnet18"}),
        (
            "mine=file:/w/x.pth?key=teacher&arch=vit_tiny_patch16_224&mean=0.5,0.5,0.5",
            "mine",
            "/w/x.pth",
            {"arch": "vit_tiny_patch16_224", "key": "teacher", "mean": "0.5,0.5,0.5"},
        ),
        (
            "file:a.pth?arch=resnet18&prefix=a%26b.",
            "a",
            "a.pth",
            {"arch": "resnet18", "prefix": "a&b."},
        ),
        ("file:a?b.pth?arch=resnet18", "a_b", "a?b.pth", {"arch": "resnet18"}),
        ("hf:facebook/dino-vits16", "dino-vits16", "facebook/dino-vits16", {}),
        ("hub:facebookresearch/dino:main:vits", "vits", "facebookresearch/dino:main:vits", {}),
        ("py:models/own.py:build", "build", "models/own.py:build", {}),
    ],
)
def test_a_spec_is_taken_apart(text, label, target, options):
    spec = specs.parse(text)
    assert (spec.label, spec.target, dict(spec.options)) == (label, target, options)
    assert specs.parse(f"{spec.label}={spec}") == spec, "it is written as it is read"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file:a.pth", r"file:a\.pth: must be file:PATH\?arch=NAME"),
        ("file:a.pth?arch=", r"must be file:PATH\?arch=NAME"),
        ("file:a.pth?arch=resnet18&keys=x", "unknown option 'keys'"),
        ("timm:resnet18?arch=resnet18", "unknown option 'arch'"),
        ("my model=file:a.pth?arch=resnet18", "a name has letters, digits, '.', '-' and '_'"),
        ("=timm:resnet18", "as in mine=timm:"),
        ("hf:dino-vits16", "must be hf:OWNER/REPO"),
        ("imagenet@resnet18.a1_in1k=file:x.pth", "must be imagenet@resnet18=file:PATH"),
        ("hub:facebookresearch/dino", "must be hub:OWNER/REPO:ENTRY"),
        ("py:own.py", "must be py:PATH:FUNCTION"),
    ],
)
def test_an_incomplete_spec_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        specs.parse(text)


def test_a_request_has_names_files_and_specs():
    request = "rotation, a=file:x.pth?arch=resnet18&mean=0.5,0.5,0.5&std=0.2,0.2,0.2 ,timm:resnet18"
    assert specs.parts(request) == [
        "rotation",
        "a=file:x.pth?arch=resnet18&mean=0.5,0.5,0.5&std=0.2,0.2,0.2",
        "timm:resnet18",
    ]
    assert specs.parts("rotation,0.5") == ["rotation", "0.5"], "a number belongs to a spec only"


def test_a_spec_is_a_method(own_plugins):
    (name,) = plugins.select("methods", "mine=timm:resnet18.a1_in1k")
    described = plugins.describe("methods", name)
    assert (name, described.origin, described.backbone) == ("mine", "spec", "resnet18")
    assert not described.trains_on_suite
    assert plugins.added_paths().specs == (specs.parse("mine=timm:resnet18.a1_in1k"),)
    assert plugins.select("methods", "mine=timm:resnet18.a1_in1k") == ["mine"], "again"
    with pytest.raises(UserError, match="the name mine is taken by timm:resnet18"):
        plugins.select("methods", "mine=timm:resnet34")
    with pytest.raises(UserError, match=r"the name rotation is taken by .*rotation\.py"):
        plugins.select("methods", "rotation=timm:resnet34")


def test_the_content_of_a_file_identifies_it_and_not_its_place(own_plugins, tmp_path):
    (tmp_path / "b").mkdir()
    for path in (tmp_path / "a.pth", tmp_path / "b" / "a.pth"):
        path.write_bytes(b"weights")
    spec = specs.parse(f"file:{tmp_path}/a.pth?arch=resnet18")
    moved = specs.parse(f"file:{tmp_path}/b/a.pth?arch=resnet18")
    other_key = specs.parse(f"file:{tmp_path}/a.pth?arch=resnet18&key=teacher")
    assert spec.digest == moved.digest != other_key.digest
    (tmp_path / "b" / "a.pth").write_bytes(b"others")
    assert spec.digest != moved.digest
    (tmp_path / "a.pth").unlink()
    with pytest.raises(UserError, match=r"a\.pth: cannot be read \(No such file"):
        plugins.own_digest("methods", plugins.add_spec(spec))


def test_a_pretrained_row_brings_the_untrained_encoder_of_its_backbone(own_plugins):
    suite = loader.load("mini")
    own = suite.backbone.name
    plugins.select("methods", f"a=timm:resnet18,b=timm:{own}")
    assert plan.with_baselines(["a"], suite) == ["a", "random_init@resnet18"]
    assert plan.with_baselines(["b"], suite) == ["b", "random_init"]
    assert plan.with_baselines(["imagenet"], suite) == ["imagenet"]
    assert plan.with_baselines(["imagenet@resnet18"], suite) == [
        "imagenet@resnet18",
        "random_init@resnet18",
    ]


@pytest.mark.parametrize(
    "name", ["random_init@resnet18", "imagenet@resnet18", "random_init-L@resnet18"]
)
def test_baselines_and_references_of_another_backbone_are_methods(name):
    described = plugins.describe("methods", name)
    assert described.backbone == plugins.load("methods", name).backbone == "resnet18"
    assert described.constants.get("untrained") or described.constants.get("reference_row")
    assert plugins.describe("methods", name.partition("@")[0]).backbone == ""


@pytest.mark.parametrize("name", ["rotation@resnet18", "random_init@", "imagenet-L@resnet18"])
def test_no_other_method_has_a_backbone_of_its_own(name):
    with pytest.raises(UserError, match=f"unknown method '{name}'"):
        plugins.source("methods", name)
