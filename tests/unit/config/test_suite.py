from importlib import resources

import pytest

from bench.config import loader
from bench.errors import UserError


@pytest.mark.parametrize("name", loader.names())
def test_every_shipped_suite_loads(name):
    found = loader.load(name)
    assert found.name == name
    assert found.summary


def test_three_suites_ship():
    assert loader.names() == ["mini", "tiny", "voc"]


def test_an_override_changes_the_hash_and_the_value():
    plain, other = loader.load("mini"), loader.load("mini", ["pretraining.crop=32"])
    assert other.pretraining.crop == 32
    assert plain.sha256 != other.sha256
    assert (
        loader.load("mini", [f"pretraining.crop={plain.pretraining.crop}"]).sha256 == plain.sha256
    )


def test_the_hash_leaves_out_what_cannot_change_a_number():
    assert loader.load("mini", ["seeds=4", "summary='x'"]).sha256 == loader.load("mini").sha256


def test_a_recipe_changes_its_own_method_alone():
    plain, other = loader.load("mini"), loader.load("mini", ["recipes.rotation.crop=32"])
    assert other.sha256 == plain.sha256
    assert other.recipe("rotation") != plain.recipe("rotation")
    assert other.recipe("jigsaw") == plain.recipe("jigsaw")


def test_a_method_inherits_what_its_recipe_leaves_out():
    found = loader.load("voc")
    assert found.recipe("rotation").batch == 768
    assert found.recipe("rotation").crop == found.pretraining.crop
    assert found.recipe("supervised") == found.pretraining


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pretraining.crap=3", "unknown key 'pretraining.crap': did you mean crop"),
        ("probe.fold=3", "unknown key 'probe.fold': did you mean folds?"),
        ("recipes.rotaton.crop=3", "[recipes.rotaton]: unknown method 'rotaton': did you mean"),
        ("name='../up'", "key 'name': string should match pattern"),
        ("scenes.size=1", "key 'scenes.size'"),
        ("probe.costs=[]", "probe.costs must be positive and ascending, at least one"),
        ("pretraining.crop_scale=[0.9,0.1]", "pretraining.crop_scale must be ascending"),
        ("recipes.rotation.lr=3", "unknown key 'recipes.rotation.lr': there are"),
        ("pretraining.crop='48'", "key 'pretraining.crop': input should be a valid integer"),
        ("pretraining.crop=-1", "key 'pretraining.crop': input should be greater than 0"),
        ("voc.size=1.5", "key 'voc.size': input should be a valid integer"),
        ("pretraining.optimizer='lamb'", "key 'pretraining.optimizer': input should be 'sgd'"),
        ("probe.costs=[1.0, 0.1]", "probe.costs must be positive and ascending"),
        ("crop", "write key=value"),
        ("name.x=1", "'name' is not a table"),
    ],
)
def test_a_wrong_key_is_one_line_with_its_name(override, message):
    with pytest.raises(UserError) as error:
        loader.load("mini", [override])
    assert message in str(error.value)


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "my.toml"
    source = resources.files("bench.config") / "suites" / "mini.toml"
    path.write_text(source.read_text().replace('name = "mini"', 'name = "mine"'))
    assert loader.load(str(path)).name == "mine"
    path.write_text(source.read_text().replace("folds = 3", ""))
    with pytest.raises(UserError, match=r"my\.toml: key 'probe\.folds' is missing"):
        loader.load(str(path))
    path.write_text("name = ")
    with pytest.raises(UserError, match=r"my\.toml: not TOML"):
        loader.load(str(path))
    with pytest.raises(UserError, match="no such suite file"):
        loader.load(str(tmp_path / "absent.toml"))


def test_an_unknown_suite_names_the_near_ones():
    with pytest.raises(UserError, match="unknown suite 'tinny': did you mean tiny"):
        loader.load("tinny")


def test_a_suite_that_is_not_text_is_named(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(UserError, match=r"mine\.toml: is not UTF-8 text"):
        loader.load(str(path))
