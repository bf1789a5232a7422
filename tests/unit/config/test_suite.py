"""Suites: those that ship, files of one's own, inheritance, overrides and what they refuse."""

import os
import tomllib
from importlib import resources

import pytest

from bench.config import loader, schema, settings
from bench.errors import UserError

DATASETS = """
[datasets.pretraining]
kind = "image_folder"
train = "images"
"""


@pytest.fixture
def write(tmp_path):
    """Write a suite file; the path as a request."""

    def make(name, text):
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return make


@pytest.mark.parametrize("name", loader.names())
def test_every_shipped_suite_loads(name):
    suite = loader.load(name)
    assert suite.name == name
    assert suite.summary
    for task in suite.tasks:
        assert settings.task_settings(suite, task).dataset in suite.datasets
    for method in suite.recipes:
        assert settings.recipe(suite, method).views > 0


def test_the_suites_that_ship():
    assert loader.names() == ["mini", "mini_vit", "small", "smoke", "tiny", "voc", "voc_one_rate"]


def test_an_override_that_is_a_table_keeps_the_other_keys():
    changed = loader.load("mini", ["pretraining={crop=32}", "recipes.rotation={views=9}"])
    assert changed == loader.load("mini", ["pretraining.crop=32", "recipes.rotation.views=9"])


def test_an_override_changes_the_hash_and_the_value():
    plain, other = loader.load("mini"), loader.load("mini", ["pretraining.crop=48"])
    assert other.pretraining.crop == 48
    assert plain.sha256 != other.sha256
    same = loader.load("mini", [f"pretraining.crop={plain.pretraining.crop}"])
    assert same.sha256 == plain.sha256


@pytest.mark.parametrize(
    "override",
    [
        "seeds=4",
        "summary='x'",
        "recipes.rotation.crop=32",
        "recipes.supervised.views=3",
        "tasks.voc_cls.folds=5",
        "tasks.voc_det.views=80",
        "datasets.voc.min_positives=1",
        "datasets.voc_masks.masks='Other'",
        "datasets.more={kind='image_folder', train='more'}",
        "datasets.pretraining.validation=''",
    ],
)
def test_the_hash_leaves_out_what_rows_and_tables_do_not_share(override):
    other = loader.load("mini", [override])
    assert other != loader.load("mini")
    assert other.sha256 == loader.load("mini").sha256


def test_a_record_keeps_of_the_suite_what_its_table_shares():
    suite = loader.load("mini")
    shared = suite.shared("voc")
    assert shared.datasets.keys() == {"pretraining", "voc"}
    assert (shared.recipes, shared.tasks) == ({}, {})
    assert shared.sha256 == suite.sha256


@pytest.mark.parametrize(
    "override",
    [
        "name='x'",
        "backbone.name='resnet50'",
        "synthetic.seed=3",
        "datasets.pretraining.train='validation'",
        "datasets.pretraining.damaged='skip'",
        "pretraining.views=100",
    ],
)
def test_the_hash_covers_what_all_rows_share(override):
    assert loader.load("mini", [override]).sha256 != loader.load("mini").sha256


def test_a_recipe_changes_its_own_method_alone():
    plain, other = loader.load("mini"), loader.load("mini", ["recipes.rotation.crop=48"])
    assert settings.recipe(other, "rotation") != settings.recipe(plain, "rotation")
    assert settings.recipe(other, "jigsaw") == settings.recipe(plain, "jigsaw")


def test_a_method_inherits_what_its_recipe_leaves_out():
    suite = loader.load("voc")
    assert settings.recipe(suite, "rotation").batch == 768
    assert settings.recipe(suite, "rotation").crop == suite.pretraining.crop
    assert settings.recipe(suite, "supervised") == suite.pretraining


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pretraining.crap=3", "unknown key 'pretraining.crap': did you mean crop"),
        ("synthetic.sead=3", "unknown key 'synthetic.sead': did you mean seed or size?"),
        ("recipes.rotaton.crop=3", "[recipes.rotaton]: did you mean [recipes.rotation]?"),
        ("tasks.voc_clss.folds=3", "[tasks.voc_clss]: did you mean [tasks.voc_cls]?"),
        ("name='../up'", "key 'name' ('../up'): String should match pattern"),
        ("synthetic.size=1", "key 'synthetic.size' ('1'): Input should be greater than or equal"),
        ("pretraining.crop_scale=[0.9,0.1]", "key 'pretraining.crop_scale': must be ascending"),
        ("pretraining.crop='48'", "key 'pretraining.crop' ('48'): Input should be a valid integer"),
        ("pretraining.crop=-1", "key 'pretraining.crop' ('-1'): Input should be greater than 0"),
        ("pretraining.optimizer='lamb'", "key 'pretraining.optimizer' ('lamb'): Input should be"),
        ("datasets.voc.clases=['a']", "unknown key 'datasets.voc.clases': did you mean classes"),
        ("datasets.pretraining.tran='x'", "key 'datasets.pretraining.tran': did you mean train"),
        ("datasets.more.kind='image_folder'", "key 'datasets.more.train' is missing"),
        (
            "datasets.more={kind='image_folder', tran='x'}",
            "unknown key 'datasets.more.tran': did you mean train",
        ),
        ("datasets.voc.train='a'", "key 'datasets.voc.train' ('a'): Input should be a valid tuple"),
        ("datasets.voc.min_positives=0", "key 'datasets.voc.min_positives' ('0'): Input should be"),
        ("datasets.voc.classes=[]", "datasets.voc.classes must be distinct names, at least one"),
        ("datasets.voc.classes=['a','a']", "datasets.voc.classes must be distinct names"),
        ("datasets.voc.kind='coc'", "key 'datasets.voc': Input tag 'coc' found using 'kind'"),
        ("crop", "write key=value"),
        ("name.x=1", "'name' is not a table"),
    ],
)
def test_a_wrong_key_is_one_line_with_its_name(override, message):
    with pytest.raises(UserError) as error:
        loader.load("mini", [override])
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("suite mini with --set") or "--set " in str(error.value)


def test_a_section_of_a_plugin_that_is_not_loaded_is_kept():
    suite = loader.load("mini", ["recipes.two_crops.temperature=0.2", "tasks.class_mean.stage=3"])
    assert suite.recipes["two_crops"] == {"temperature": 0.2}
    assert suite.tasks["class_mean"] == {"stage": 3}


def test_the_pretraining_images_are_an_image_folder(write):
    text = loader.to_toml(loader.load("mini").model_dump(mode="json", exclude={"datasets"}))
    with pytest.raises(UserError, match=r"\[datasets\.pretraining\] must be there"):
        loader.load(write("own.toml", text + "\n[datasets]\n"))
    voc = '\n[datasets.pretraining]\nkind = "voc"\ntrain = ["a/b"]\ntest = ["a/c"]\n'
    with pytest.raises(UserError, match=r"\[datasets\.pretraining\] must be there, of kind image"):
        loader.load(write("own.toml", text + voc))


def test_a_file_of_ones_own(write, tmp_path):
    source = resources.files("bench.config") / "suites" / "mini.toml"
    text = source.read_text()
    own = write("own.toml", text.replace('name = "mini"', 'name = "own"'))
    assert loader.load(own).name == "own"
    own = write("own.toml", text.replace("batch = 32\n", "", 1))
    with pytest.raises(UserError, match=r"own\.toml: key 'pretraining\.batch' is missing"):
        loader.load(own)
    with pytest.raises(UserError, match=r"own\.toml: not TOML"):
        loader.load(write("own.toml", "name = "))
    with pytest.raises(UserError, match="no such suite file"):
        loader.load(str(tmp_path / "absent.toml"))


def test_an_unknown_suite_names_the_near_ones():
    with pytest.raises(UserError, match="unknown suite 'tinny': did you mean tiny"):
        loader.load("tinny")


def test_a_suite_that_is_not_text_is_named(tmp_path):
    path = tmp_path / "own.toml"
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(UserError, match=r"own\.toml: is not UTF-8 text"):
        loader.load(str(path))


def test_a_suite_takes_over_what_it_does_not_set(write):
    base = loader.load("mini")
    own = loader.load(
        write(
            "own.toml",
            'extends = "mini"\nname = "own"\n'
            "[pretraining]\nviews = 128\n"
            "[recipes.rotation]\nviews = 256\n"
            "[tasks.voc_cls]\nfolds = 2\n"
            '[datasets.more]\nkind = "image_folder"\ntrain = "more"\n',
        )
    )
    assert own.name == "own"
    assert own.summary == base.summary
    assert own.pretraining == base.pretraining.model_copy(update={"views": 128})
    assert own.recipes["rotation"] == base.recipes["rotation"] | {"views": 256}
    assert own.recipes["jigsaw"] == base.recipes["jigsaw"]
    assert own.tasks["voc_cls"] == base.tasks["voc_cls"] | {"folds": 2}
    assert own.tasks["voc_det"] == base.tasks["voc_det"]
    assert own.datasets.keys() - base.datasets.keys() == {"more"}
    assert own.backbone == base.backbone


def test_an_array_takes_the_place_of_the_inherited_one(write):
    own = write("own.toml", 'extends = "mini"\n[datasets.voc]\nclasses = ["cat"]\n')
    assert loader.load(own).datasets["voc"].classes == ("cat",)


def test_a_base_is_looked_for_beside_the_file_that_names_it(write, tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    write("below/base.toml", 'extends = "mini"\nname = "base"\nseeds = 7\n')
    own = write("own.toml", 'extends = "below/base.toml"\nname = "own"\n')
    monkeypatch.chdir("/")
    assert loader.load(own).seeds == 7
    write("below/third.toml", 'extends = "base.toml"\nname = "third"\n')
    third = write("third.toml", 'extends = "below/third.toml"\n')
    assert (loader.load(third).name, loader.load(third).seeds) == ("third", 7)
    with pytest.raises(UserError, match=r"gone\.toml: no such suite file"):
        loader.load(write("own.toml", 'extends = "gone.toml"\n'))


def test_suites_that_extend_one_another_in_a_circle_are_refused(write):
    write("a.toml", 'extends = "b.toml"\n')
    circle = write("b.toml", 'extends = "a.toml"\n')
    with pytest.raises(UserError, match=r"\.toml: more than 8 suites extend one another"):
        loader.load(circle)
    itself = write("c.toml", 'extends = "c.toml"\n')
    with pytest.raises(UserError, match="more than 8 suites"):
        loader.load(itself)


def test_extends_names_one_suite(write):
    with pytest.raises(UserError, match="key 'extends' must name a suite or a TOML file"):
        loader.load(write("own.toml", "extends = 3\n"))
    with pytest.raises(UserError, match="unknown suite 'minni': did you mean mini"):
        loader.load(write("own.toml", 'extends = "minni"\n'))


@pytest.mark.parametrize("name", loader.names())
def test_a_suite_written_as_toml_is_the_same_suite(name, write):
    suite = loader.load(name)
    data = suite.model_dump(mode="json", exclude_none=True)
    text = loader.to_toml(data)
    assert tomllib.loads(text) == data
    again = loader.load(write("again.toml", text))
    assert again == suite
    assert again.sha256 == suite.sha256


def test_keys_and_texts_of_any_characters_survive_toml():
    data = {
        "a.b": {"c d": 'quote " and \\ and ü', "e": {"f": [1, 2.5, True]}, "é": 1},
        "line": "two\nlines, \U0001f600",
        "empty": [],
    }
    assert tomllib.loads(loader.to_toml(data)) == data


def test_a_suite_without_rendered_images_or_tasks(write):
    recipe = loader.load("mini").pretraining.model_dump(mode="json")
    backbone = {"name": "resnet50", "imagenet": "timm"}
    data = {"name": "own", "summary": "x", "seeds": 1, "backbone": backbone, "pretraining": recipe}
    suite = loader.load(write("own.toml", loader.to_toml(data) + DATASETS))
    assert suite.synthetic is None
    assert suite.tasks == {}
    assert suite.datasets == {
        "pretraining": schema.ImageFolder(kind="image_folder", train="images")
    }


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = " + "[" * 10**5, "nested too deep"),
        ("x = " + "[" * 100 + "]" * 100, "deeper than 32 levels"),
        (".".join("a" * 10**5) + " = 1", "a key has more than 32 parts"),
        (".".join(["'a b'"] * 10**5) + " = 1", "a key has more than 32 parts"),
        ("x = " + "9" * 5000, "has a number of too many digits"),
        ("x = 0x" + "f" * 500, "above 2^53"),
        ("x = nan", "no finite number"),
        ("x = 2020-01-01", "of kind date"),
        ("# " + "a" * 2**21, "more than 1,048,576"),
    ],
)
def test_a_file_of_any_content_is_one_line(write, text, message):
    with pytest.raises(UserError, match=r"own\.toml: ") as error:
        loader.load(write("own.toml", text))
    assert message in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.timeout(20)
def test_a_suite_is_a_regular_file(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "device.toml").symlink_to("/dev/zero")
    for name in ("folder", "pipe", "device"):
        with pytest.raises(UserError, match=rf"{name}\.toml: is not a regular file"):
            loader.load(str(tmp_path / f"{name}.toml"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("pretraining.learning_rate=inf", "no finite number"),
        ("pretraining.learning_rate=nan", "no finite number"),
        ("pretraining.learning_rate=-1.0", "'pretraining.learning_rate' ('-1.0')"),
        ("pretraining.learning_rate=1e300", "'pretraining.learning_rate'"),
        ("pretraining.weight_decay=1e300", "'pretraining.weight_decay'"),
        (f"pretraining.views={10**30}", "above 2^53"),
        (f"pretraining.views={'9' * 5000}", "has a number of too many digits"),
        ("pretraining.batch=1000000000", "'pretraining.batch'"),
        ("pretraining.crop=1000000000", "'pretraining.crop'"),
        ("synthetic.size=1000000", "'synthetic.size'"),
        ("synthetic.train=1000000000", "'synthetic.train'"),
        ("seeds=100000000", "'seeds'"),
        ("pretraining.learning_rate=1e-320", "'pretraining.learning_rate'"),
        ("recipes.rotation.x=2020-01-01", "of kind date"),
        ("recipes.rotation.learning_rate=inf", "no finite number"),
        ("seeds=1\nname='other'", "has several lines"),
        ("seeds=" + "[" * 10**5, "nested too deep"),
        (".".join("a" * 10**4) + "=1", "no key of a suite is so long"),
        ("name='" + "a" * 5000 + "'", "'name'"),
        ("a\x1b[2J=1", r"unknown key 'a\x1b[2J'"),
    ],
)
def test_an_override_of_any_content_is_one_line(override, message):
    with pytest.raises(UserError) as error:
        loader.load("mini", [override])
    assert message in str(error.value)
    assert len(str(error.value)) < 300
