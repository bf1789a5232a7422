"""Methods that compare views: losses against loops and lightly's, queues, teachers, scores."""

import importlib
import math

import numpy as np
import pytest
import torch
from support import Says, batch_of, built
from torch import nn
from torch.nn import functional as F

from bench.training.parts.heads import PrototypeHead, perceptron
from bench.training.parts.teacher import follow, make_teacher, rising_momentum
from bench.training.pretext_score import retrievals

NAMES = ("simclr", "moco", "byol", "barlow_twins", "dino")
TAUGHT = ("moco", "byol", "dino")


def module(name):
    return importlib.import_module(f"bench.methods.{name}")


@pytest.fixture
def lightly():
    """The losses of another library."""
    reason = "compares with lightly's losses: pip install --no-deps lightly"
    return pytest.importorskip("lightly.loss", reason=reason)


def vectors(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def directions(*shape, seed=0):
    return F.normalize(vectors(*shape, seed=seed), dim=-1)


def cosine(a, b):
    a, b = np.float64(a), np.float64(b)
    return a @ b / math.sqrt(a @ a) / math.sqrt(b @ b)


def test_simclr_is_the_cross_entropy_of_the_partner_among_all_others():
    first, second = directions(5, 8), directions(5, 8, seed=1)
    views = [*first, *second]
    terms = []
    for i in range(10):
        partner = (i + 5) % 10
        others = [math.exp(cosine(views[i], views[k]) / 0.3) for k in range(10) if k != i]
        terms.append(-cosine(views[i], views[partner]) / 0.3 + math.log(sum(others)))
    loss = module("simclr").nt_xent(first, second, 0.3)
    assert loss.item() == pytest.approx(sum(terms) / 10, rel=1e-5)


def test_simclr_has_lightlys_loss_and_gradient(lightly):
    losses, gradients = [], []
    for loss in (lambda a, b: module("simclr").nt_xent(a, b, 0.2), lightly.NTXentLoss(0.2)):
        first = directions(6, 8).requires_grad_()
        losses.append(loss(first, directions(6, 8, seed=1)))
        losses[-1].backward()
        gradients.append(first.grad - (first.grad * first).sum(1, keepdim=True) * first.detach())
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients)


def test_moco_compares_with_its_own_key_and_the_queue():
    queries, keys, queue = directions(3, 8), directions(3, 8, seed=1), directions(7, 8, seed=2)
    logits = module("moco").contrast(queries, keys, queue)
    for i in range(3):
        expected = [cosine(queries[i], keys[i])] + [cosine(queries[i], old) for old in queue]
        assert logits[i].tolist() == pytest.approx(expected, abs=1e-6)


def test_moco_has_lightlys_loss(lightly):
    queries, keys, queue = directions(3, 8), directions(3, 8, seed=1), directions(7, 8, seed=2)
    theirs = lightly.NTXentLoss(temperature=0.2, memory_bank_size=(7, 8))
    theirs.memory_bank.bank.copy_(queue)
    logits = module("moco").contrast(queries, keys, queue) / 0.2
    ours = F.cross_entropy(logits, torch.zeros(3, dtype=torch.int64))
    torch.testing.assert_close(ours, theirs(queries, keys))


def test_byol_has_the_distance_of_its_paper():
    ours = module("byol").regression_loss
    predictions, targets = directions(5, 8), directions(5, 8, seed=1)
    expected = sum(2 - 2 * cosine(p, t) for p, t in zip(predictions, targets, strict=True)) / 5
    assert ours(predictions, targets).item() == pytest.approx(expected, rel=1e-5)


def test_byol_has_lightlys_loss(lightly):
    ours = module("byol").regression_loss
    predictions, targets = directions(5, 8), directions(5, 8, seed=1)
    theirs = 2 + 2 * lightly.NegativeCosineSimilarity()(predictions, targets)
    torch.testing.assert_close(ours(predictions, targets), theirs)


def test_byol_predicts_each_view_from_the_other(context):
    pretext = built("byol", context)
    predictions, targets = directions(2, 4, 8), directions(2, 4, 8, seed=1)
    pretext._embed = lambda views: (predictions, targets)
    loss = pretext.loss(batch_of(pretext, context, "byol"))
    distance = (predictions - targets.flip(0)).square().sum(-1)
    assert loss.item() == pytest.approx((distance.sum() / 4).item(), rel=1e-5)


def test_spread_tells_collapsed_vectors():
    spread = module("byol").spread
    assert spread(directions(1, 8).expand(6, 8)).item() == pytest.approx(0, abs=1e-6)
    assert spread(torch.cat([torch.eye(4), -torch.eye(4)])).item() == 1


def test_barlow_twins_correlates_features_over_the_batch():
    first, second = vectors(6, 4), vectors(6, 4, seed=1) * 3 + 1
    own = module("barlow_twins")
    correlation = own.cross_correlation(first, second)
    rows = [np.float64(features).T for features in (first, second)]
    expected = np.corrcoef(*rows)[:4, 4:]
    np.testing.assert_allclose(correlation.numpy(), expected, atol=1e-4)
    loss = 0.0
    for i in range(4):
        for j in range(4):
            value = correlation[i, j].item()
            loss += (1 - value) ** 2 if i == j else 0.25 * value**2
    assert own.distance_to_identity(correlation, 0.25).item() == pytest.approx(loss, rel=1e-5)


def test_barlow_twins_has_lightlys_loss(lightly):
    first, second = vectors(6, 4), vectors(6, 4, seed=1) * 3 + 1
    own = module("barlow_twins")
    ours = own.distance_to_identity(own.cross_correlation(first, second), 0.0051)
    torch.testing.assert_close(ours, lightly.BarlowTwinsLoss(lambda_param=0.0051)(first, second))


def test_dino_is_the_cross_entropy_of_all_pairs_of_different_crops():
    student = vectors(5, 3, 6)
    targets = vectors(2, 3, 6, seed=1).softmax(-1)
    terms = []
    for t in range(2):
        for s in range(5):
            if s != t:
                logs = np.float64(student[s].log_softmax(-1))
                terms.append(-(np.float64(targets[t]) * logs).sum(1).mean())
    assert len(terms) == 8
    loss = module("dino").distillation_loss(student, targets)
    assert loss.item() == pytest.approx(sum(terms) / 8, rel=1e-5)


def test_the_center_is_an_average_of_the_teachers_means(context):
    pretext = built("dino", context)
    batch = batch_of(pretext, context, "dino")
    expected = torch.zeros_like(pretext.center)
    for step in range(2):
        teacher = vectors(2, 4, len(expected), seed=step)
        pretext._teacher = lambda views, logits=teacher: logits
        pretext.loss(batch)
        pretext.after_step(step, 10)
        expected = 0.9 * expected + 0.1 * teacher.mean((0, 1))
    torch.testing.assert_close(pretext.center, expected)


def test_dino_has_lightlys_loss_and_center(lightly, context):
    pretext = built("dino", context)
    count = len(pretext.center)
    student, teacher = vectors(8, 4, count), vectors(2, 4, count, seed=1)
    pretext._student = lambda views: student[:2] if len(views) == 2 else student[2:]
    pretext._teacher = lambda views: teacher
    recipe = pretext.recipe
    theirs = lightly.DINOLoss(
        count, recipe.teacher_temperature, recipe.teacher_temperature, 1, recipe.temperature
    )
    batch = batch_of(pretext, context, "dino")
    for step in range(3):  # each time with another center
        torch.testing.assert_close(pretext.loss(batch), theirs([*teacher], [*student]))
        pretext.after_step(step, 10)
        torch.testing.assert_close(pretext.center, theirs.center[0, 0])
    assert pretext.center.abs().max() > 0


def test_entropy_tells_how_many_prototypes_are_used():
    entropy = module("dino").entropy
    assert entropy(torch.full((8,), 1 / 8)).item() == pytest.approx(1)
    assert entropy(torch.tensor([0.5, 0.5, 0, 0])).item() == pytest.approx(0.5)
    assert entropy(torch.eye(4)[0]).item() == 0


def test_the_queue_has_the_last_keys_newest_first(context):
    pretext = built("moco", context)
    random = pretext.queue.clone()
    assert random.norm(dim=1).tolist() == pytest.approx([1] * len(random))
    batch = batch_of(pretext, context, "moco")
    steps = []
    for step in range(2):
        pretext.loss(batch)
        steps.append(pretext.keys.clone())
        before = pretext.queue.clone()
        pretext.after_step(step, 10)
        assert torch.equal(pretext.queue, torch.cat([pretext.keys, before])[: len(random)])
    assert torch.equal(pretext.queue[:8], torch.cat([steps[1], steps[0]]))
    pretext.keys = directions(len(random) + 3, random.shape[1])  # more than fit
    pretext.after_step(2, 10)
    assert torch.equal(pretext.queue, pretext.keys[: len(random)])


@pytest.mark.parametrize("name", TAUGHT)
def test_a_teacher_starts_as_its_student_and_gets_no_gradient(name, context):
    pretext = built(name, context)
    head = pretext.head if name == "dino" else pretext.projection
    for own, student in zip(pretext.teacher, (pretext.encoder, head), strict=True):
        state = student.state_dict()
        assert all(torch.equal(value, state[key]) for key, value in own.state_dict().items())
    pretext.loss(batch_of(pretext, context, name)).backward()
    assert all(p.grad is None and not p.requires_grad for p in pretext.teacher.parameters())
    trained = {id(p) for o in pretext.objectives().values() for p in o.parameters}
    assert not trained & {id(p) for p in pretext.teacher.parameters()}
    for parameter in (*pretext.encoder.parameters(), *head.parameters()):
        parameter.data += 1
    before = [p.clone() for p in pretext.teacher.parameters()]
    pretext.after_step(0, 10)
    momentum = pretext.recipe.teacher_momentum  # the first step's, of a rising one too
    for old, new in zip(before, pretext.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + (1 - momentum))


def test_a_teacher_averages_parameters_and_keeps_its_own_statistics():
    student = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    teacher = make_teacher([student])
    student(vectors(8, 3))
    student[0].weight.data += 1
    before = teacher[0][0].weight.clone()
    follow(teacher, [student], 0.75)
    torch.testing.assert_close(teacher[0][0].weight, 0.75 * before + 0.25 * student[0].weight)
    assert teacher[0][1].running_mean.tolist() == [0, 0, 0] != student[1].running_mean.tolist()
    with pytest.raises(ValueError):
        follow(teacher, [student, student], 0.75)


def test_a_momentum_rises_to_one_by_a_cosine():
    assert rising_momentum(0.9, 0, 100) == pytest.approx(0.9)
    assert rising_momentum(0.9, 50, 100) == pytest.approx(0.95)
    assert rising_momentum(0.9, 25, 100) == pytest.approx(1 - 0.1 * (math.sqrt(0.5) + 1) / 2)
    assert rising_momentum(0.9, 100, 100) == pytest.approx(1)


def test_heads_have_the_layers_of_their_papers():
    normed = [type(layer).__name__ for layer in perceptron([4, 5, 6, 7], norm=True)]
    hidden = ["Linear", "BatchNorm1d", "ReLU"]
    assert normed == [*hidden, *hidden, "Linear"]
    assert all(layer.bias is None for layer in perceptron([4, 5, 6], norm=True)[::3])
    plain = perceptron([4, 5, 6], norm=False, activation=nn.GELU)
    assert [type(layer).__name__ for layer in plain] == ["Linear", "GELU", "Linear"]
    assert plain(vectors(2, 4)).shape == (2, 6)
    head = PrototypeHead([4, 5, 6], 9, norm=False)
    similarity = head(vectors(2, 4))
    assert similarity.shape == (2, 9)
    bottleneck = head.layers(vectors(2, 4))
    assert similarity[1, 3].item() == pytest.approx(
        cosine(bottleneck[1].detach(), head.prototypes[3].detach()), abs=1e-5
    )


def test_retrieval_counts_both_ways_and_is_chance_for_a_collapsed_network():
    similarity = torch.tensor([[3.0, 5.0, 1.0], [0.0, 4.0, 2.0], [0.0, 1.0, 2.5]])
    found, chance = retrievals(similarity)
    assert found.tolist() == [0.5, 0.5, 1]  # rows 2 and 3, columns 1 and 3
    assert chance.tolist() == pytest.approx([1 / 3] * 3)
    assert retrievals(torch.zeros(3, 3))[0].mean().item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_of_colors_retrieves_views_of_one_color(name, context):
    """Views are not distorted, and each image has one color: means of pixels tell them apart."""
    pretext = built(name, context).eval()
    images = torch.randint(0, 256, (6, 1, 3, 1, 1), dtype=torch.uint8).expand(6, 2, 3, 32, 32)
    views = (images, torch.zeros(6, 2, 7))
    colors = Says(lambda rgb: [rgb])
    pretext.encoder = colors
    for part in ("projection", "predictor", "head"):
        if hasattr(pretext, part):
            setattr(pretext, part, Says(lambda x: 20 * x))
    if name in TAUGHT:
        head = pretext.head if name == "dino" else pretext.projection
        pretext.teacher = nn.ModuleList([pretext.encoder, head])
    if name == "dino":
        pretext.center = torch.zeros(3)
    found, _ = pretext.score(views if name != "dino" else (views, views))
    assert found.tolist() == [1] * 6


def test_dinos_crops_have_their_own_sizes(context):
    pretext = built("dino", context)
    (large, drawn), (small, drawn_small) = batch_of(pretext, context, "dino")
    recipe = pretext.recipe
    assert large.shape == (4, 2, 3, recipe.crop, recipe.crop) and drawn.shape == (4, 2, 7)
    side = recipe.small_crop
    assert small.shape == (4, 6, 3, side, side) and drawn_small.shape == (4, 6, 7)
    assert side < recipe.crop
