"""What a pretext task is scored by: a network's own measure beside an answer without training."""

import math
from dataclasses import replace

import pytest
import torch
from support import Says, batch_of, built
from torch.nn import functional as F

from bench.data.color import rgb_to_lab
from bench.data.transforms import to_unit_range
from bench.encoders.pretraining import PretextScore
from bench.training.method import load_or_pretrain
from bench.training.parts import color_bins
from bench.training.pretext_score import (
    ACCURACY,
    Measure,
    accuracies,
    summarize,
    swapped_errors,
    total,
)

ERROR = Measure("squared error", "the mean image")


def test_the_interval_is_that_of_the_mean_difference():
    values, trivial = torch.tensor([0.1, 0.4, 0.1, 0.2]), torch.tensor([0.5, 0.4, 0.3, 0.4])
    gains = [0.4, 0.0, 0.2, 0.2]
    spread = math.sqrt(sum((gain - 0.2) ** 2 for gain in gains) / 3)
    error = summarize(ERROR, values, trivial)
    assert (error.value, error.trivial, error.num_images) == pytest.approx((0.2, 0.4, 4))
    margin = 1.96 * spread / 2
    assert (error.low, error.high) == pytest.approx((0.2 - margin, 0.2 + margin))
    assert error.improves and not summarize(ERROR, trivial, values).improves
    accuracy = summarize(ACCURACY, values, trivial)
    assert (accuracy.low, accuracy.high) == pytest.approx((-error.high, -error.low))
    assert not accuracy.improves


def test_equal_answers_are_no_improvement_and_one_image_has_no_interval():
    same = torch.full((4,), 0.25)
    assert not summarize(ACCURACY, same, same).improves
    assert summarize(ACCURACY, same[:1], same[:1]) is None


def test_accuracies_are_means_over_the_questions_about_an_image():
    logits = F.one_hot(torch.tensor([[0, 1, 2, 2], [3, 3, 3, 3]]), 5).float()
    values, chance = accuracies(logits, torch.tensor([0, 1, 2, 3]))
    assert values.tolist() == [0.75, 0.25]
    assert torch.allclose(chance, torch.tensor(0.2))


def test_scores_of_several_answers_are_summed():
    one = (torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
    assert [part.tolist() for part in total([one, one])] == [[2, 4], [6, 8]]


def test_a_prediction_of_its_own_image_beats_that_of_others_and_a_constant_does_not():
    truth = torch.tensor([[0.0, 0.0], [1.0, 1.0], [4.0, 2.0]])
    values, others = swapped_errors(truth, truth)
    assert values.tolist() == [0, 0, 0]
    assert others.tolist() == pytest.approx([(1 + 3) / 2, (1 + 2) / 2, (3 + 2) / 2])
    values, others = swapped_errors(torch.full((3, 2), 0.3), truth)
    assert torch.allclose(values, others)


def test_rotation_is_scored_against_chance(context):
    pretext = built("rotation", context)
    turns = torch.arange(4)

    def perfect(features):
        return F.one_hot(turns.repeat_interleave(len(features) // 4), 4).float()

    pretext.head = Says(perfect)
    score = pretext.score_on(context().validation)
    assert (score.value, score.trivial, score.trivial_answer) == (1, 0.25, "chance")
    assert score.low == score.high == 0.75
    pretext.head = Says(lambda features: torch.eye(4)[[2] * len(features)])  # always half a turn
    score = pretext.score_on(context().validation)
    assert score.value == score.trivial == 0.25 and not score.improves


def test_the_autoencoder_is_scored_against_the_mean_image(context):
    pretext = built("autoencoder", context)
    batch = batch_of(pretext, context, "autoencoder")
    clean = to_unit_range(batch)
    pretext._reconstruct = lambda noisy: clean
    values, trivial = pretext.score(batch)
    assert values.tolist() == [0] * 4
    assert trivial.mean().item() == pytest.approx(clean.var(0, correction=0).mean().item())
    pretext._reconstruct = lambda noisy: clean.mean(0).expand_as(clean)
    values, trivial = pretext.score(batch)
    assert torch.equal(values, trivial)


def test_the_context_encoder_is_scored_inside_its_hole_alone(context):
    pretext = built("context_encoder", context)
    side = pretext.recipe.crop
    crops = torch.full((2, 3, side, side), 51, dtype=torch.uint8)
    corners = torch.tensor([[0, 0], [4, 7]])
    first, last = pretext.border, pretext.hole - pretext.border
    for crop, (top, left) in zip(crops, corners.tolist(), strict=True):
        crop[:, top + first : top + last, left + first : left + last] = 255
    pretext._inpaint = lambda clean, corners: torch.full_like(clean, 0.5)
    values, trivial = pretext.score((crops, corners))
    assert values.tolist() == pytest.approx([0.25] * 2)
    assert trivial.tolist() == pytest.approx([0.64] * 2)  # 0.2 around the hole, 1 inside


def test_constant_colors_are_the_best_constant(context):
    pretext = built("colorization", context)
    batch = batch_of(pretext, context, "colorization", 8)
    ab = rgb_to_lab(to_unit_range(batch))[:, 1:, ::4, ::4]
    shape = ab.shape[2:]

    def score(logits):
        pretext.head = Says(lambda maps, size: logits)
        return pretext.score(batch)

    bins, shares = color_bins.soft_encode(ab.movedim(1, -1))
    perfect = torch.full((8, *shape, 313), -30.0).scatter_(-1, bins, shares.log())
    values, trivial = score(perfect.movedim(-1, 1))
    assert (values < trivial).all()
    start = torch.zeros(313, requires_grad=True)
    optimizer = torch.optim.Adam([start], 0.3)
    for _ in range(150):
        values, trivial = score(start[None, :, None, None].expand(8, 313, *shape))
        optimizer.zero_grad()
        values.mean().backward()
        optimizer.step()
    assert values.mean().item() == pytest.approx(trivial.mean().item(), abs=0.01)
    assert values.mean() > trivial.mean() - 1e-4, "no constant is better"


def test_the_best_constant_lightness_has_the_entropy_of_the_batch():
    lab = torch.tensor([[10.5, 10.5, 90.5, 30.5]]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    logits = torch.zeros(1, 100, 1, 4)
    values, trivial = color_bins.lightness_scores(logits, lab)
    assert values.item() == pytest.approx(math.log(100))
    assert trivial.item() == pytest.approx(1.5 * math.log(2))
    masked = color_bins.lightness_scores(logits, lab, torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    assert masked[1].item() == pytest.approx(0, abs=1e-6)


def test_gray_images_score_nothing(context):
    pretext = built("colorization", context)
    gray = torch.randint(0, 256, (2, 1, 32, 32), dtype=torch.uint8).expand(2, 3, 32, 32)
    assert [part.tolist() for part in pretext.score(gray)] == [[0, 0], [0, 0]]


def test_a_score_goes_with_the_cached_encoder(context, tmp_path):
    first = load_or_pretrain(context(where=tmp_path)).pretraining.pretext
    assert isinstance(first, PretextScore)
    assert first.measure == "accuracy" and first.num_images == 40
    assert load_or_pretrain(context(where=tmp_path)).pretraining.pretext == first


def test_without_validation_images_there_is_no_score_and_the_same_weights(
    context, smoke_data, tmp_path
):
    without = replace(smoke_data["pretraining"], validation=None)
    datasets = {**smoke_data, "pretraining": without}
    plain = load_or_pretrain(replace(context(where=tmp_path / "plain"), datasets=datasets))
    scored = load_or_pretrain(context(where=tmp_path / "scored"))
    assert plain.pretraining.pretext is None and scored.pretraining.pretext is not None
    assert plain.weights_sha256() == scored.weights_sha256()
