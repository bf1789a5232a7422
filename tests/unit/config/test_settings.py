"""The settings that methods and tasks own, and the cache that spares a plan their import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import plugins
from bench.config import loader, settings
from bench.config.schema import FineTuning
from bench.errors import UserError
from bench.evaluation.faster_rcnn import DetectionSettings
from bench.runtime.files import read_cached

ROOT = Path(__file__).parents[3]
OUTSIDE = ROOT / "tests" / "outside"

METHOD = '''"""A method with a setting."""

from typing import ClassVar

from bench.config.schema import Recipe
from bench.training.pretext import PretextTask


class Tempered(PretextTask):
    reference: ClassVar[str] = "ours, https://example.org"
    version: ClassVar[int] = 1

    class Settings(Recipe):
        temperature: float = 0.5
'''


@pytest.fixture
def two_crops(own_plugins):
    return plugins.add_path("methods", OUTSIDE / "two_crops.py")


@pytest.fixture
def class_mean(own_plugins):
    return plugins.add_path("tasks", OUTSIDE / "class_mean.py")


@pytest.mark.parametrize(
    ("override", "task", "message"),
    [
        ("tasks.voc_cls.fold=3", "voc_cls", "unknown key 'fold': did you mean folds?"),
        ("tasks.voc_cls.folds=1", "voc_cls", "key 'folds' ('1'): Input should be greater than or"),
        ("tasks.voc_cls.costs=[]", "voc_cls", "key 'costs': must be positive and ascending"),
        ("tasks.voc_cls.costs=[1.0, 0.1]", "voc_cls", "key 'costs': must be positive and ascend"),
        ("tasks.voc_cls.size=1.5", "voc_cls", "key 'size' ('1.5'): Input should be a valid int"),
        ("tasks.voc_cls.dataset=3", "voc_cls", "key 'dataset' ('3'): Input should be a valid str"),
        ("tasks.voc_det.views=0", "voc_det", "key 'views' ('0'): Input should be greater than 0"),
        ("tasks.voc_det.viewz=9", "voc_det", "unknown key 'viewz': did you mean views"),
        (
            *("tasks.voc_det.learning_rates=[0.1, 0.01]", "voc_det"),
            "key 'learning_rates': must be positive and ascending, at least one",
        ),
        (
            *("tasks.voc_seg.validation_fraction=1.0", "voc_seg"),
            "key 'validation_fraction' ('1.0'): Input should be less than 1",
        ),
    ],
)
def test_a_wrong_key_of_a_task_names_its_section(override, task, message):
    suite = loader.load("mini", [override])
    with pytest.raises(UserError) as error:
        settings.task_settings(suite, task)
    assert str(error.value).startswith(f"suite mini, [tasks.{task}]: {message}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["folds", "size", "costs"])
def test_a_missing_key_of_a_task_names_its_section(key):
    suite = loader.load("mini")
    section = {k: v for k, v in suite.tasks["voc_cls"].items() if k != key}
    suite = suite.model_copy(update={"tasks": {"voc_cls": section}})
    with pytest.raises(UserError, match=rf"^suite mini, \[tasks\.voc_cls\]: key '{key}' is miss"):
        settings.task_settings(suite, "voc_cls")
    nothing = suite.model_copy(update={"tasks": {}})
    remedy = "set it in a suite file, for --suite"
    with pytest.raises(UserError, match=rf"\[tasks\.voc_det\]: key '\w+' is missing; {remedy}"):
        settings.task_settings(nothing, "voc_det")


def test_a_wrong_key_of_one_task_leaves_the_others_alone():
    plain, wrong = loader.load("mini"), loader.load("mini", ["tasks.voc_det.viewz=9"])
    expected = settings.task_settings(plain, "voc_cls")
    assert settings.task_settings(wrong, "voc_cls") == expected


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("recipes.rotation.lr=3", "unknown key 'lr'"),
        ("recipes.rotation.temperature=0.2", "unknown key 'temperature'"),
        ("recipes.rotation.crop='48'", "key 'crop' ('48'): Input should be a valid integer"),
        ("recipes.rotation.crop_scale=[0.9, 0.1]", "key 'crop_scale': must be ascending"),
        ("recipes.rotation.learning_rate=0.0", "key 'learning_rate' ('0.0'): Input should be gr"),
    ],
)
def test_a_wrong_key_of_a_recipe_names_its_section(override, message):
    suite = loader.load("mini", [override])
    with pytest.raises(UserError) as error:
        settings.recipe(suite, "rotation")
    assert str(error.value).startswith(f"suite mini, [recipes.rotation]: {message}")


def test_a_method_has_settings_of_its_own(two_crops):
    suite = loader.load("mini", ["recipes.two_crops.temperature=0.2", "recipes.two_crops.views=96"])
    recipe = settings.recipe(suite, two_crops)
    assert (recipe.temperature, recipe.views) == (0.2, 96)
    assert recipe.batch == suite.pretraining.batch
    assert settings.recipe(loader.load("mini"), two_crops).temperature == 0.5
    wrong = loader.load("mini", ["recipes.two_crops.temperature=0.0"])
    message = r"^suite mini, \[recipes\.two_crops\]: key 'temperature' \('0\.0'\): Input should"
    with pytest.raises(UserError, match=message):
        settings.recipe(wrong, two_crops)
    typo = loader.load("mini", ["recipes.two_crops.temperatur=0.1"])
    with pytest.raises(UserError, match="unknown key 'temperatur': did you mean temperature"):
        settings.recipe(typo, two_crops)


def test_a_task_of_ones_own_has_defaults_and_a_section(class_mean):
    plain = settings.task_settings(loader.load("mini"), class_mean)
    assert (plain.dataset, plain.stage) == ("scenes", -1)
    suite = loader.load("mini", ["tasks.class_mean.stage=3"])
    assert settings.task_settings(suite, class_mean).stage == 3


def test_settings_may_name_the_metric():
    suite = loader.load("mini")
    assert settings.task_settings(suite, "voc_det").metric == "AP50"
    area = loader.load("mini", ["tasks.voc_det.metric='AP50_area'"])
    assert settings.task_settings(area, "voc_det").metric == "AP50_area"


def test_a_recipe_at_one_learning_rate_has_a_share_of_the_budget():
    suite = loader.load("mini")
    tuning = settings.task_settings(suite, "voc_det")
    assert isinstance(tuning, FineTuning)
    recipe = tuning.recipe(0.5, 0.25)
    assert (recipe.views, recipe.learning_rate) == (tuning.views // 4, 0.5)
    assert (recipe.batch, recipe.crop) == (tuning.batch, tuning.size)
    assert tuning.recipe(0.5, 1e-9).views == tuning.batch


def test_what_a_record_keeps_is_what_the_task_is_given(tmp_path):
    suite = loader.load("mini")
    for task in suite.tasks:
        resolved = settings.resolved_task_settings(suite, task, tmp_path)
        assert resolved == settings.task_settings(suite, task).model_dump(mode="json")
        assert resolved == settings.resolved_task_settings(suite, task, tmp_path)
    rotation = settings.resolved_recipe(suite, "rotation", tmp_path)
    assert rotation == settings.recipe(suite, "rotation").model_dump(mode="json")
    assert settings.resolved_recipe(suite, "imagenet", tmp_path) == {}
    assert settings.resolved_recipe(suite, "random_init-L", tmp_path) == {}


RESOLVE = """
import sys
from pathlib import Path
from bench import plugins
from bench.config import loader, settings

method, cache = sys.argv[1:]
method = plugins.add_path("methods", Path(method))
suite = loader.load("mini")
print(settings.resolved_recipe(suite, method, Path(cache))["temperature"])
for task in suite.tasks:
    settings.resolved_task_settings(suite, task, Path(cache))
print("torch" in sys.modules)
"""


@pytest.fixture
def resolve(own_plugins, monkeypatch):
    """The temperature of a method's recipe, and whether anything was imported for it."""
    load, loaded = plugins.load, []
    monkeypatch.setattr(plugins, "load", lambda *names: loaded.append(names) or load(*names))

    def call(file, cache, *sets):
        loaded.clear()
        method = plugins.add_path("methods", file)
        recipe = settings.resolved_recipe(loader.load("mini", sets), method, cache)
        return recipe["temperature"], bool(loaded)

    return call


def test_settings_of_an_unchanged_file_need_no_import(resolve, tmp_path):
    method, cache = tmp_path / "tempered.py", tmp_path / "cache"
    method.write_text(METHOD)
    assert resolve(method, cache) == (0.5, True)
    assert not cache.exists(), "what computes nothing makes no cache"
    cache.mkdir()
    assert resolve(method, cache) == (0.5, True)
    assert resolve(method, cache) == (0.5, False)
    method.write_text(METHOD.replace('"""A method', '# A comment.\n"""A method'))
    assert resolve(method, cache) == (0.5, False)
    method.write_text(METHOD.replace("0.5", "0.7"))
    assert resolve(method, cache) == (0.7, True)
    assert resolve(method, cache, "recipes.tempered.temperature=0.9") == (0.9, True)
    assert resolve(method, cache, "recipes.tempered.temperature=0.9") == (0.9, False)
    assert resolve(method, cache) == (0.7, False)


def test_a_plan_of_cached_settings_needs_no_torch(resolve, tmp_path):
    method = tmp_path / "tempered.py"
    method.write_text(METHOD)
    resolve(method, tmp_path)
    suite = loader.load("mini")
    for task in suite.tasks:
        settings.resolved_task_settings(suite, task, tmp_path)
    command = [sys.executable, "-c", RESOLVE, str(method), str(tmp_path)]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert outcome.stdout.split() == ["0.5", "False"]


def test_a_model_that_the_harness_defines_is_resolved_again_when_the_harness_changes(
    tmp_path, monkeypatch
):
    suite = loader.load("mini")
    before = settings.resolved_task_settings(suite, "voc_det", tmp_path)
    monkeypatch.setattr(settings.plugins, "harness_digest", lambda: "0" * 64)
    monkeypatch.setattr(DetectionSettings, "model_dump", lambda self, mode: {"another": "default"})
    assert settings.resolved_task_settings(suite, "voc_det", tmp_path) == {"another": "default"}
    monkeypatch.undo()
    assert settings.resolved_task_settings(suite, "voc_det", tmp_path) == before


def test_a_damaged_or_missing_cache_only_costs_time(tmp_path):
    suite = loader.load("mini")
    expected = settings.resolved_task_settings(suite, "voc_cls", tmp_path)
    (kept,) = (tmp_path / "settings").iterdir()
    assert json.loads(read_cached(kept)) == expected
    kept.write_text('{"fol')
    assert settings.resolved_task_settings(suite, "voc_cls", tmp_path) == expected
    assert json.loads(read_cached(kept)) == expected
    (tmp_path / "file").write_text("")
    assert settings.resolved_task_settings(suite, "voc_cls", tmp_path / "file") == expected


def test_a_wrong_section_is_refused_whatever_the_cache_has(tmp_path):
    settings.resolved_task_settings(loader.load("mini"), "voc_cls", tmp_path)
    wrong = loader.load("mini", ["tasks.voc_cls.folds=1"])
    for _ in range(2):
        with pytest.raises(UserError, match=r"\[tasks\.voc_cls\]: key 'folds'"):
            settings.resolved_task_settings(wrong, "voc_cls", tmp_path)
