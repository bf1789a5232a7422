"""What may stand in one table."""

import shutil

import pytest
from made_up import OTHER_RECIPE, SETTINGS, save

from bench.errors import UserError
from bench.metrics.average_precision import mean_average_precision
from bench.reporting import leaderboard
from bench.results import storage
from bench.results.record import EncoderFacts

OTHER_BACKBONE = EncoderFacts(backbone="web", weights_sha256="c" * 64, parameters=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite_sha256": "e" * 64}, "settings of the suite"),
        ({"task_version": 2}, "task version"),
        ({"task_code": "e" * 64}, "code that scored voc_cls"),
        ({"encoder": OTHER_BACKBONE}, "backbone"),
        ({"suite_settings": SETTINGS | {"voc_cls": {"rate": 1}}}, "settings of voc_cls"),
        ({"method": "rotation", "seed": 1, "method_code": "e" * 64}, "code of rotation"),
        ({"method": "rotation", "seed": 1, "suite_settings": OTHER_RECIPE}, "recipe of rotation"),
        ({"data": {"voc_test": "e" * 64}}, r"images \(voc_test\)"),
    ],
)
def test_what_cannot_be_compared_is_refused(folder, change, message):
    save(folder, **{"method": "other", "quality": 1.0} | change)
    with pytest.raises(UserError, match=message):
        leaderboard.load(folder / "made")


def test_a_copied_record_is_refused_not_counted_as_a_seed(folder):
    place = folder / "made/voc_cls/rotation"
    shutil.copytree(place, place.with_name("rotation_backup"))
    with pytest.raises(UserError, match=r"rotation_backup/seed0\.json: is a copy of the record"):
        leaderboard.load(folder / "made")


def test_predictions_of_another_number_of_images_are_refused(folder):
    path = folder / "made/voc_cls/rotation/seed0.json"
    found = storage.read(path)
    arrays = {name: array[:-1] for name, array in storage.read_predictions(path, found).items()}
    value = 100 * mean_average_precision(arrays["scores"], arrays["truth"])
    storage.save(found.model_copy(update={"value": value}), path, arrays)
    with pytest.raises(
        UserError, match=r"predictions of 1(19|20) images, .* of 1(19|20): never in"
    ):
        leaderboard.load(folder / "made")
