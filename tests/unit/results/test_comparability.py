"""What may share a table."""

import pytest
from made_up import FAILED, OTHER_RECIPE, PROBE, SUITE, encoder, save

from bench.errors import UserError
from bench.metrics import registry
from bench.reporting import leaderboard
from bench.results import storage
from bench.results.record import Provenance

FEWER = SUITE.datasets["voc"].model_copy(update={"classes": ("ape", "bee")})
OTHER_DATASET = SUITE.model_copy(update={"datasets": SUITE.datasets | {"voc": FEWER}})


def scored(entry, metric, predictions):
    """A record with the scores that predictions give by a metric."""
    found = registry.get(metric)
    per_class = registry.per_class(found, predictions)
    value = registry.value(found, predictions)
    return entry.model_copy(update={"value": value, "per_class": per_class})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite_sha256": "e" * 64}, "settings of the suite"),
        ({"task_version": 2}, "task version"),
        ({"task_digest": "e" * 64}, "code of voc_cls"),
        ({"task_settings": PROBE | {"rate": 1}}, "settings of voc_cls"),
        ({"suite_settings": OTHER_DATASET}, "data set of voc_cls"),
        ({"metric": "mAP_step"}, "metric"),
        ({"method": "rotation", "seed": 1, "method_version": 2}, "version of rotation"),
        ({"method": "rotation", "seed": 1, "method_digest": "e" * 64}, "code of rotation"),
        ({"method": "rotation", "seed": 1, "recipe": OTHER_RECIPE}, "recipe of rotation"),
        ({"method": "rotation", "seed": 1, "role": "untrained"}, "role of rotation"),
        ({"data": {"voc_test": "e" * 64}}, r"images \(voc_test\)"),
    ],
)
def test_what_cannot_be_compared_is_refused(folder, change, message):
    entry = save(folder, **{"method": "other", "quality": 1.0} | change)
    if "metric" in change:
        path = storage.path_of(folder, "made", entry.task, entry.method, entry.seed)
        storage.save(scored(entry, "mAP_step", storage.read_predictions(path, entry)), path)
    with pytest.raises(UserError, match=message):
        leaderboard.load(folder / "made")


OTHER_WEIGHTS = encoder("rgb").model_copy(update={"weights_sha256": "e" * 64})


def test_seeds_that_read_a_file_with_two_contents_are_refused(folder):
    save(folder, "rotation", 0.8, files={"labels.csv": "a" * 64, "teacher.pth": "a" * 64})
    save(folder, "rotation", 0.8, seed=1, files={"teacher.pth": "b" * 64})
    message = r"rotation/seed1\.json differ in the content of teacher\.pth: they cannot share"
    with pytest.raises(UserError, match=message):
        leaderboard.load(folder / "made")


def test_seeds_of_a_reference_that_are_of_two_weights_are_refused(folder):
    save(folder, "imagenet", 2.0, seed=1, encoder=OTHER_WEIGHTS)
    message = r"imagenet/seed1\.json differ in the weights of imagenet: they cannot share"
    with pytest.raises(UserError, match=message):
        leaderboard.load(folder / "made")


def test_seeds_that_read_files_of_their_own_and_have_weights_of_their_own_share_a_row(folder):
    save(folder, "rotation", 0.8, files={"shared.csv": "a" * 64, "draw0.csv": "a" * 64})
    files = {"shared.csv": "a" * 64, "draw1.csv": "b" * 64}
    save(folder, "rotation", 0.8, seed=1, files=files, encoder=OTHER_WEIGHTS)
    assert len(leaderboard.load(folder / "made").tables[0].row("rotation").scored) == 2


def test_the_digests_of_provenance_decide_nothing(folder):
    provenance = Provenance(method_code="e" * 64, task_code="e" * 64, command=["bench"])
    save(folder, "rotation", 0.8, seed=1, provenance=provenance)
    assert len(leaderboard.load(folder / "made").tables[0].row("rotation").scored) == 2


def test_a_failed_seed_that_has_no_settings_yet_refuses_nothing(folder):
    empty = {"recipe": {}, "task_settings": {}, "data": {}}
    save(folder, "rotation", 0.8, seed=1, error="boom", **FAILED | empty)
    assert leaderboard.load(folder / "made").tables[0].row("rotation").status == "partial"


def test_a_suite_of_another_name_is_refused(folder):
    (folder / "made").rename(folder / "other")
    with pytest.raises(UserError, match="is of suite made; rename its folder to that"):
        leaderboard.load(folder / "other")


def test_predictions_of_another_number_of_images_are_refused(folder):
    path = folder / "made/voc_cls/rotation/seed0.json"
    found = storage.read(path)
    arrays = storage.read_predictions(path, found)
    fewer = {n: array if n == "classes" else array[:-1] for n, array in arrays.items()}
    storage.save(scored(found, "mAP", fewer), path, fewer)
    with pytest.raises(
        UserError, match=r"predictions of 1(19|20) images, .* of 1(19|20): they cannot share"
    ):
        leaderboard.load(folder / "made")
