"""Overrides without effect: each is named, and those that have one are not."""

import pytest

from bench.commands import plan
from bench.commands.request import Request
from bench.config import loader

UNUSED = "--set {} has no effect: nothing of this request uses it"


@pytest.fixture
def said(tmp_path):
    def say(methods, tasks, *overrides, seeds=(0,)):
        suite = loader.load("smoke", [*overrides])
        places = (None, tmp_path / "out", tmp_path / "cache")
        request = Request(suite, methods, tasks, seeds, *places, overrides=overrides)
        return [line for line in plan.notices(request) if line.startswith("--set")]

    return say


def test_a_key_that_recipes_set_themselves(said):
    methods = ("rotation", "jigsaw", "random_init")
    assert said(methods, ("voc_cls",), "pretraining.views=3200") == [
        "--set pretraining.views has no effect on rotation, jigsaw: [recipes.NAME] sets it; "
        "use --set recipes.rotation.views=..."
    ]
    assert said(methods, ("voc_cls",), "pretraining.weight_decay=0.5") == []
    both = ("pretraining.views=3200", "recipes.rotation.views=64")
    assert said(("rotation",), ("voc_cls",), *both) == []


@pytest.mark.parametrize(
    "override",
    [
        "tasks.voc_det.views=64",
        "recipes.bigan.views=64",
        "recipes.random_init.views=64",
        "datasets.voc_masks.folder=elsewhere",
        "backbone.imagenet=timm",
        "recipes.bigan={views = 64}",
    ],
)
def test_a_section_that_nothing_of_the_request_uses(said, override):
    key = override.partition("=")[0] + (".views" if "{" in override else "")
    methods = ("rotation", "random_init")
    assert said(methods, ("voc_cls",), override) == [UNUSED.format(key)]


def test_what_is_used_is_not_named(said):
    given = (
        *("tasks.voc_seg.views=64", "datasets.voc_masks.folder=elsewhere", "name=own"),
        *("backbone.imagenet=timm", "synthetic.seed=3", "pretraining.weight_decay=0.1"),
    )
    assert said(("rotation", "imagenet"), ("voc_seg",), *given) == []


def test_pretraining_of_what_is_not_trained(said):
    line = UNUSED.format("pretraining.views")
    assert said(("random_init",), ("voc_cls",), "pretraining.views=64") == [line]


def test_several_are_one_line(said):
    (line,) = said(("random_init",), ("voc_cls",), "pretraining.views=64", "tasks.voc_det.views=8")
    assert line.startswith("--set pretraining.views, tasks.voc_det.views have no effect")


def test_a_key_given_twice(said):
    (line,) = said(("rotation",), ("voc_cls",), *("pretraining.crop=48", "pretraining.crop=32"))
    assert line == "--set pretraining.crop is given 2 times: the last one counts"


def test_seeds_beside_those_of_the_request(said):
    (line,) = said(("rotation",), ("voc_cls",), "seeds=3")
    assert line == "--set seeds has no effect: the seeds of the request are given"
    assert said(("rotation",), ("voc_cls",), "seeds=3", seeds=(0, 1, 2)) == []


def test_milestones_of_a_cosine_schedule(said):
    milestones = "pretraining.milestones=[0.5]"
    (line,) = said(("rotation",), ("voc_seg",), milestones)
    assert line == (
        "--set pretraining.milestones has no effect: use --set pretraining.schedule=step as well"
    )
    assert said(("rotation",), ("voc_seg",), milestones, "pretraining.schedule=step") == []
    (line,) = said(("rotation",), ("voc_seg",), "tasks.voc_seg.milestones=[0.5]")
    assert line.endswith("use --set tasks.voc_seg.schedule=step as well")
