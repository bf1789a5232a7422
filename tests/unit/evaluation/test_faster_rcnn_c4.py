"""The C4 detector against numpy, derived from detectron2's source, and against detectron2 itself.

The constants are those of detectron2's defaults and of MoCo's configuration, written anew here.
"""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models.detection.image_list import ImageList

from bench.config import loader, settings
from bench.data.voc import ObjectAnnotation
from bench.encoders.encoder import Encoder
from bench.evaluation.faster_rcnn import DetectionSettings
from bench.evaluation.faster_rcnn_c4 import C4Detector, region_losses, resized
from bench.training.optimizer import make_optimizer, rate_factor

SIDES = tuple(range(480, 801, 32))  # INPUT.MIN_SIZE_TRAIN
STRIDE = 16
CLAMP = math.log(1000 / 16)  # of log ratios of widths, box_regression.py


@pytest.fixture(scope="module")
def encoder(smoke):
    torch.manual_seed(0)
    return Encoder(smoke.backbone.name)


@pytest.fixture
def detector(encoder, smoke, context):
    """A detector whose one training image has some objects."""

    def make(*objects, **changes):
        own = {"protocol": "c4", "shortest_sides": (48, 64), "size": 96, "regions": 16} | changes
        made = context(task="voc_det").settings.model_copy(update=own)
        torch.manual_seed(0)
        return C4Detector(encoder, made, [objects], smoke.datasets["voc"].classes)

    return make


def rng():
    return np.random.default_rng(0)


def random_boxes(count, width=300.0, height=200.0):
    """Boxes (count, 4) of at least a pixel, some across the border."""
    generator = rng()
    corners = generator.uniform(-20, [width, height], (count, 2))
    sides = generator.uniform(1, 120, (count, 2))
    return np.concatenate([corners, corners + sides], 1).astype(np.float32)


def overlaps(a, b):
    """Intersection over union, (len(a), len(b)), of continuous boxes."""
    low, high = (
        np.maximum(a[:, None, :2], b[None, :, :2]),
        np.minimum(a[:, None, 2:], b[None, :, 2:]),
    )
    shared = np.clip(high - low, 0, None).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)


def encoded(boxes, targets, weights):
    """Targets (n, 4) relative to boxes (n, 4)."""
    sides, true_sides = boxes[:, 2:] - boxes[:, :2], targets[:, 2:] - targets[:, :2]
    moved = (targets[:, :2] + true_sides / 2 - boxes[:, :2] - sides / 2) / sides
    return np.concatenate([moved, np.log(true_sides / sides)], 1) * weights


def decoded(codes, boxes, weights):
    """Boxes (n, 4) moved and scaled by codes (n, 4)."""
    codes = codes / weights
    sides = boxes[:, 2:] - boxes[:, :2]
    middle = boxes[:, :2] + sides / 2 + codes[:, :2] * sides
    half = np.exp(np.minimum(codes[:, 2:], CLAMP)) * sides / 2
    return np.concatenate([middle - half, middle + half], 1)


def suppressed(boxes, scores, overlap):
    """Indices that stay, the highest score first."""
    kept = []
    for index in np.argsort(-scores, kind="stable"):
        if not kept or overlaps(boxes[[index]], boxes[kept]).max() <= overlap:
            kept.append(index)
    return kept


def clipped(boxes, height, width):
    return np.clip(boxes, 0, [width, height, width, height])


def tensors(*arrays):
    return [torch.from_numpy(np.asarray(array)) for array in arrays]


def white(height, width, box):
    """A black image, white inside a box of 1-based inclusive pixels."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    xmin, ymin, xmax, ymax = box
    image[:, ymin - 1 : ymax, xmin - 1 : xmax] = 255
    return image


def dog(*box, difficult=False):
    return ObjectAnnotation("dog", box, difficult, False)


def test_crowds_are_not_trained_on_and_difficult_objects_are(detector):
    single, difficult = dog(1, 1, 9, 9), dog(11, 1, 19, 9, difficult=True)
    crowd = ObjectAnnotation("dog", (1, 1, 30, 30), difficult=True, truncated=False, crowd=True)
    network = detector(crowd, single, crowd, difficult)
    assert network.objects == [[single, difficult]]
    lines = network.transform(white(40, 40, single.box), 0)[2]
    assert (lines[:, 0] > 0).tolist() == [True, True]
    assert detector(crowd).objects == [[]]


def test_anchors(detector):
    grid = (3, 5)
    maps, images = torch.zeros(2, 8, *grid), ImageList(torch.zeros(2, 3, 40, 75), [(40, 75)] * 2)
    both = detector().proposals.anchor_generator(images, [maps])
    expected = []
    for y in range(grid[0]):
        for x in range(grid[1]):
            for size in (32, 64, 128, 256, 512):
                for ratio in (0.5, 1.0, 2.0):
                    width = math.sqrt(size**2 / ratio)
                    half = np.array([width, ratio * width]) / 2
                    middle = STRIDE * np.array([x, y])
                    expected.append(np.concatenate([middle - half, middle + half]))
    assert len(both) == 2
    np.testing.assert_allclose(both[1].numpy(), expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize(
    ("part", "weights"), [("proposals", (1,) * 4), ("regions", (10, 10, 5, 5))]
)
def test_box_coding(detector, part, weights):
    coder = getattr(detector(), part).box_coder
    boxes, targets = random_boxes(40), random_boxes(40)[::-1].copy()
    codes = encoded(boxes, targets, weights)
    found = coder.encode_single(*tensors(targets, boxes))
    np.testing.assert_allclose(found.numpy(), codes, rtol=1e-4, atol=1e-4)
    codes = rng().normal(0, 4, (40, 4)).astype(np.float32) * weights  # some are clamped
    assert (codes[:, 2:] / weights[2] > CLAMP).any()
    found = coder.decode_single(*tensors(codes.astype(np.float32), boxes))
    np.testing.assert_allclose(found.numpy(), decoded(codes, boxes, weights), rtol=1e-4, atol=1e-2)


def test_anchors_belong_to_objects(detector):
    """At 0.7 they do, below 0.3 they are background, and the best one of an object is its own."""
    anchors, objects = random_boxes(400), random_boxes(8)
    objects[-1] = [-500, -500, -490, -490]  # overlaps none, so that all are its best
    for count in (7, 8, 0):
        own = objects[:count]
        targets = [{"boxes": torch.from_numpy(own)}]
        labels, matched = detector().proposals.assign_targets_to_anchors(
            *[tensors(anchors)], targets
        )
        expected = np.zeros(400)
        if count:
            table = overlaps(own, anchors)
            expected = np.select([table.max(0) >= 0.7, table.max(0) >= 0.3], [1.0, -1.0], 0.0)
            expected[(table == table.max(1, keepdims=True)).any(0)] = 1
            best = own[table.argmax(0)][expected == 1]
            np.testing.assert_array_equal(matched[0].numpy()[expected == 1], best)
        np.testing.assert_array_equal(labels[0].numpy(), expected)


def test_regions_belong_to_objects_that_they_overlap_by_half(detector):
    boxes, objects = random_boxes(400), random_boxes(6)
    classes = np.arange(6) + 3
    matched, labels = detector().regions.assign_targets_to_proposals(
        tensors(boxes), tensors(objects), tensors(classes)
    )
    table = overlaps(objects, boxes)
    best, foreground = table.argmax(0), table.max(0) >= 0.5
    np.testing.assert_array_equal(labels[0].numpy(), np.where(foreground, classes[best], 0))
    np.testing.assert_array_equal(matched[0].numpy()[foreground], best[foreground])


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [(300, 9000, (128, 128)), (7, 9000, (7, 249)), (7, 50, (7, 50)), (0, 9000, (0, 256))],
)
def test_anchors_are_sampled(detector, positive, negative, expected):
    labels = torch.cat([torch.ones(positive), torch.zeros(negative), -torch.ones(40)])
    both = [mask[0].bool() for mask in detector().proposals.fg_bg_sampler([labels])]
    assert tuple(int(mask.sum()) for mask in both) == expected
    assert (labels[both[0]] == 1).all()
    assert (labels[both[1]] == 0).all()


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [(300, 900, (128, 384)), (7, 900, (7, 505)), (7, 21, (133, 379))],
)
def test_regions_are_sampled_and_repeated_where_they_are_too_few(
    detector, positive, negative, expected
):
    labels = torch.cat([torch.arange(positive) % 20 + 1, torch.zeros(negative, dtype=torch.long)])
    (sampled,) = detector(regions=512).regions.subsample([labels])
    found = labels[sampled]
    assert (int((found > 0).sum()), int((found == 0).sum())) == expected


def pooled(features, box):
    """One region of a map (C, H, W), (C, 14, 14): the average of samples a position apart or less.

    detectron2, layers/roi_align.py with aligned=True, sampling_ratio 0; pixels are in the middle of
    their unit of length.
    """
    height, width = features.shape[1:]
    start, side = box[:2] / STRIDE - 0.5, (box[2:] - box[:2]) / STRIDE
    samples = np.ceil(side / 14).astype(int)

    def at(y, x):
        if not (-1 <= y <= height and -1 <= x <= width):
            return np.zeros(len(features))
        y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
        top, left = int(y), int(x)
        below, right = min(top + 1, height - 1), min(left + 1, width - 1)
        first = features[:, top, left] * (1 - x + left) + features[:, top, right] * (x - left)
        second = features[:, below, left] * (1 - x + left) + features[:, below, right] * (x - left)
        return first * (1 - y + top) + second * (y - top)

    result = np.zeros((len(features), 14, 14))
    step = side / 14
    for row, column in np.ndindex(14, 14):
        values = [
            at(*(start + (np.array([i, j]) + 0.5) / samples * step + [column, row] * step)[::-1])
            for i, j in np.ndindex(*samples)
        ]
        result[:, row, column] = np.mean(values, 0)
    return result


def test_regions_are_pooled(detector):
    features = rng().normal(size=(2, 13, 21)).astype(np.float32)
    boxes = np.array([[3, 5, 70, 40], [-10, 20, 330, 200], [100, 7, 101, 190]], np.float32)
    (maps,) = tensors(features[None])
    found = detector().regions.box_roi_pool({"0": maps}, tensors(boxes), None)
    for one, box in zip(found.numpy(), boxes, strict=True):
        np.testing.assert_allclose(one, pooled(features, box), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("training", "before", "after"), [(True, 120, 20), (False, 60, 10)])
def test_proposals_are_the_best_that_do_not_overlap(detector, training, before, after):
    part = detector(proposals=10).proposals.train(training)
    boxes = np.stack([random_boxes(300), random_boxes(300)[::-1]])
    boxes[:, :5] = [400, 10, 500, 60]  # beside the image: nothing is left of them
    logits = rng().normal(0, 30, (2, 300)).astype(np.float32)  # logistic ones would be equal
    sizes = [(200, 300), (150, 280)]
    found, _ = part.filter_proposals(*tensors(boxes, logits.reshape(-1, 1)), sizes, [300])
    for own, scores, size, result in zip(boxes, logits, sizes, found, strict=True):
        order = np.argsort(-scores)[:before]
        cut = clipped(own[order], *size)
        scores = scores[order][(cut[:, 2:] > cut[:, :2]).all(1)]
        cut = cut[(cut[:, 2:] > cut[:, :2]).all(1)]
        expected = cut[suppressed(cut, scores, 0.7)[:after]]
        np.testing.assert_allclose(result.numpy(), expected)


def test_losses_of_proposals(detector, monkeypatch):
    """Sums over the sampled anchors, by 256 for each image, however few are sampled."""
    part = detector().proposals
    generator = rng()
    logits = generator.normal(size=(2, 90)).astype(np.float32)
    codes, truth = generator.normal(size=(2, 2, 90, 4)).astype(np.float32)
    labels = generator.integers(-1, 2, (2, 90)).astype(np.float32)
    masks = []

    def noted(own, sample=part.fg_bg_sampler):
        masks.extend(sample(own))
        return masks

    noted.batch_size_per_image = 256
    monkeypatch.setattr(type(part.fg_bg_sampler), "__call__", lambda self, own: masks_of(own))

    def masks_of(own):
        masks[:] = [[(o == value).byte() for o in own] for value in (1, 0)]
        masks[1][0][:40] = 0  # as if not all were sampled
        return masks

    found = part.compute_loss(
        *tensors(logits.reshape(-1, 1), codes.reshape(-1, 4)), [*tensors(*labels)], tensors(*truth)
    )
    positive, negative = (np.stack([m.numpy() for m in mask]).astype(bool) for mask in masks)
    entropy = np.log1p(np.exp(-logits[positive])).sum() + np.log1p(np.exp(logits[negative])).sum()
    distance = np.abs(codes - truth)[positive].sum()
    assert float(found[0]) == pytest.approx(entropy / 512, rel=1e-5)
    assert float(found[1]) == pytest.approx(distance / 512, rel=1e-5)


def test_losses_of_regions():
    generator = rng()
    logits = generator.normal(size=(30, 4)).astype(np.float32)
    boxes, truth = generator.normal(size=(30, 16)), generator.normal(size=(30, 4))
    labels = generator.integers(0, 4, 30)
    found = region_losses(*tensors(logits, boxes, labels, truth))
    likelihood = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    entropy = -np.log(likelihood[np.arange(30), labels]).mean()
    own = boxes.reshape(30, 4, 4)[np.arange(30), labels]
    distance = np.abs(own - truth)[labels > 0].sum() / 30
    assert float(found["classes"]) == pytest.approx(entropy, rel=1e-5)
    assert float(found["boxes"]) == pytest.approx(distance, rel=1e-5)


def test_detections(detector):
    """Of each class those above 0.05 that do not overlap by half, the 100 best of all classes."""
    part = detector().regions.eval()
    boxes = random_boxes(200)
    classes = 11
    logits = rng().normal(0, 2, (200, classes)).astype(np.float32)
    codes = rng().normal(0, 1, (200, 4 * classes)).astype(np.float32)
    (found,) = part.detections(*tensors(logits, codes), tensors(boxes), [(200, 300)])
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = []
    for label in range(1, classes):
        own = clipped(decoded(codes[:, 4 * label :][:, :4], boxes, (10, 10, 5, 5)), 200, 300)
        above = shares[:, label] > 0.05
        own, scores = own[above], shares[above, label]
        expected += [(scores[k], label, *own[k]) for k in suppressed(own, scores, 0.5)]
    expected = np.array(sorted(expected, reverse=True)[:100])
    expected = expected[(expected[:, 4:] > expected[:, 2:4]).all(1)]  # empty ones counted, too
    assert 50 < len(expected) < 100
    columns = [found[key].numpy() for key in ("scores", "labels")]
    result = np.concatenate([np.stack(columns, 1), found["boxes"].numpy()], 1)
    np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-2)


def test_initial_weights(detector):
    network = detector()
    head, predictor = network.proposals.head, network.regions.box_predictor
    layers = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    deviations = [(layer, 0.01) for layer in (*layers, predictor.classes)]
    for layer, deviation in (*deviations, (predictor.boxes, 0.001)):
        assert float(layer.weight.detach().std()) == pytest.approx(deviation, rel=0.1)
        assert not layer.bias.any()
    assert len(layers) == 3


def recipe_of(suite):
    """The training recipe of a suite's detector at the paper's rate."""
    own = settings.task_settings(loader.load(suite), "voc_det")
    assert isinstance(own, DetectionSettings)
    return own, own.recipe(0.02, 1.0)


@pytest.mark.parametrize("suite", ["voc", "voc_one_rate"])
def test_learning_rate_at_every_step(suite):
    """WarmupMultiStepLR: SOLVER.WARMUP_FACTOR 0.001, WARMUP_ITERS 100, STEPS 18000 and 22000."""
    own, recipe = recipe_of(suite)
    steps = own.views // own.batch
    assert steps == 24_000
    step = np.arange(steps)
    expected = 0.1 ** ((step >= 18_000).astype(int) + (step >= 22_000))
    warm = step < 100
    expected[warm] = 0.001 * (1 - step[warm] / 100) + step[warm] / 100
    found = [rate_factor(k, steps, recipe) for k in step]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_suites_settings_are_those_of_the_released_configuration():
    own, _ = recipe_of("voc_one_rate")
    assert own.shortest_sides == SIDES
    assert own.learning_rates == (0.02,)
    assert (own.size, own.batch, own.proposals, own.regions) == (1333, 16, 1000, 512)
    assert (own.statistics_batches, own.weight_decay, own.precision) == (200, 1e-4, "no")
    others = recipe_of("voc")[0].model_dump()
    differing = {key for key, value in own.model_dump().items() if others[key] != value}
    assert differing == {"learning_rates", "selection_fraction"}


def test_biases_have_weight_decay_and_norms_have_none(detector):
    _, recipe = recipe_of("voc_one_rate")
    network = detector()
    objective = network.objectives()["loss"]
    optimizer = make_optimizer(objective.parameters, recipe, decayed=objective.decayed)
    decays = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    for module in network.modules():
        expected = 0.0 if isinstance(module, nn.BatchNorm2d) else 1e-4
        for weight in module.parameters(recurse=False):
            assert decays[id(weight)] == expected
    assert all(g["momentum"] == 0.9 and not g["nesterov"] for g in optimizer.param_groups)


@pytest.mark.parametrize(
    ("height", "width", "shortest", "expected"),
    [(375, 500, 480, (480, 640)), (500, 333, 800, (1201, 800)), (200, 500, 800, (533, 1333))],
)
def test_an_image_is_scaled_by_its_shortest_side(height, width, shortest, expected):
    """As ResizeShortestEdge, and as Pillow scales it, but for the last bit."""
    pixels = rng().integers(0, 256, (height, width, 3), dtype=np.uint8)
    found = resized(torch.from_numpy(pixels).permute(2, 0, 1), shortest, 1333)
    assert found.shape[-2:] == expected
    true = np.asarray(Image.fromarray(pixels).resize(expected[::-1], Image.Resampling.BILINEAR))
    assert np.abs(found.permute(1, 2, 0).numpy().astype(int) - true).max() <= 1


@pytest.mark.parametrize("difficult", [False, True])
@pytest.mark.parametrize(
    ("height", "width", "shortest"), [(45, 60, {48, 64}), (60, 45, {48, 64}), (20, 90, {21})]
)
def test_boxes_stay_on_their_objects(detector, height, width, shortest, difficult):
    box = (5, 3, 20, 18)
    network = detector(dog(*box, difficult=difficult))
    shapes, left = set(), set()
    for seed in range(12):
        torch.manual_seed(seed)
        square, size, objects = network.transform(white(height, width, box), 0)
        shapes.add(tuple(size.tolist()))
        image = square[:, : size[0], : size[1]]
        assert square.shape == (3, 96, 96)
        assert not square[:, size[0] :].any()
        assert not square[:, :, size[1] :].any()
        assert len(objects) == 1
        x1, y1, x2, y2 = objects[0, 1:].tolist()
        rows, columns = torch.nonzero(image[0] > 127).T
        edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert (x1, y1, x2, y2) == pytest.approx([float(e) for e in edges], abs=1.1)
        left.add(x1 + x2 < image.shape[-1])
    assert left == {True, False}  # mirrored and not
    assert {min(shape) for shape in shapes} == shortest
    assert max(map(max, shapes)) <= 96


def test_a_batch_is_padded_to_its_largest_image_with_what_is_normalized_to_nothing(detector):
    network = detector(dog(1, 1, 9, 9)).train()
    squares = torch.full((2, 3, 96, 96), 255, dtype=torch.uint8)
    shown = []
    network.encoder.register_forward_pre_hook(lambda _, inputs: shown.extend(inputs))
    network.loss((squares, torch.tensor([[48, 60], [64, 50]]), torch.zeros(2, 1, 5)))
    (rgb,) = shown
    assert rgb.shape == (2, 3, 64, 60)
    normalized = (rgb - network.encoder.mean) / network.encoder.std
    assert not normalized[0, :, 48:].any()
    assert not normalized[1, :, :, 50:].any()
    assert (rgb[0, :, :48] == 1).all()
    assert (rgb[1, :, :, :50] == 1).all()


def test_images_of_any_sizes_are_trained_on(detector):
    """With and without objects; sides that are no multiple of the stride among them."""
    network = detector(dog(1, 1, 9, 9)).train()
    items = [network.transform(white(*shape, (1, 1, 9, 9)), 0) for shape in ((45, 70), (70, 45))]
    items.append((*items[0][:2], torch.zeros(1, 5)))
    seen = []
    network.regions.box_head.register_forward_hook(lambda _, i, o: seen.append(len(o)))
    loss = network.loss(torch.utils.data.default_collate(items))
    loss.backward()
    assert loss.isfinite()
    assert loss > 0
    assert seen == [3 * 16]
    assert all(p.grad is not None for p in network.parameters())


def test_detected_boxes_are_inclusive_pixels_of_the_image(detector, monkeypatch):
    network = detector(shortest_sides=(50,), size=80).eval()  # 100 x 200 becomes 40 x 80
    boxes = torch.tensor([[0.0, 0.0, 80.0, 40.0], [10.0, 4.0, 10.2, 4.1]])
    output = [{"boxes": boxes, "labels": torch.tensor([1, 10]), "scores": torch.ones(2)}], {}
    monkeypatch.setattr(network.regions, "forward", lambda *arguments: output)
    detections = network.detect(white(100, 200, (1, 1, 9, 9)))
    assert detections["labels"].tolist() == [0, 9]
    assert detections["boxes"][0].tolist() == [1, 1, 200, 100]
    assert detections["boxes"][1].tolist() == pytest.approx([26, 11, 26, 11])
    assert network.detect(white(51, 37, (1, 1, 9, 9))).keys() == detections.keys()


def test_a_frozen_encoder_has_a_head_that_is_trained(detector):
    network = detector(frozen=True).train()
    assert not any(p.requires_grad for p in network.encoder.parameters())
    assert not any(m.training for m in network.encoder.modules())
    assert all(p.requires_grad for p in network.regions.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "c4"}, "shortest_sides is for protocol"),
        ({"protocol": "fpn", "shortest_sides": (480,)}, "shortest_sides is for protocol"),
        ({"protocol": "c4", "shortest_sides": (480, 448)}, "must be ascending"),
        ({"selection_fraction": 0.0, "learning_rates": (0.1, 0.2)}, "above 0 to select"),
        (
            {"scale": (0.5, 1.01)},
            "scale(.|\n)*must be ascending, and at most 1: the image must fit",
        ),
        ({"scale": (2.0, 3.0)}, "at most 1"),
        ({"scale": (0.9, 0.5)}, "must be ascending, and at most 1"),
    ],
)
def test_settings_that_contradict_are_refused(context, changes, message):
    plain = context(task="voc_det").settings.model_dump()
    with pytest.raises(ValueError, match=message):
        DetectionSettings.model_validate(plain | changes)


@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.5, 0.5), (0.5, 1.0)])
def test_scales_up_to_the_whole_square_are_settings(context, scale):
    plain = context(task="voc_det").settings.model_dump()
    assert DetectionSettings.model_validate(plain | {"scale": scale}).scale == scale


def test_settings_of_older_records_are_as_they_were(context):
    dumped = context(task="voc_det").settings.model_dump(mode="json")
    assert not {"shortest_sides", "statistics_batches"} & dumped.keys()


class TestDetectron2:
    """The same numbers as the package itself, where it is installed (docs/protocols.md)."""

    @pytest.fixture(autouse=True)
    def package(self):
        pytest.importorskip("detectron2", reason="detectron2 is not installed")

    def test_anchors(self, detector):
        from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

        sizes, ratios = [[32, 64, 128, 256, 512]], [[0.5, 1.0, 2.0]]
        theirs = DefaultAnchorGenerator(
            sizes=sizes, aspect_ratios=ratios, strides=[STRIDE], offset=0.0
        )
        maps, images = torch.zeros(1, 8, 4, 7), ImageList(torch.zeros(1, 3, 60, 99), [(60, 99)])
        (ours,) = detector().proposals.anchor_generator(images, [maps])
        torch.testing.assert_close(ours, theirs([maps])[0].tensor)

    def test_coding(self, detector):
        from detectron2.modeling.box_regression import Box2BoxTransform

        boxes, targets = tensors(random_boxes(40), random_boxes(40)[::-1].copy())
        codes = 5 * torch.randn(40, 4)
        for part, weights in (("proposals", (1.0,) * 4), ("regions", (10.0, 10.0, 5.0, 5.0))):
            coder = getattr(detector(), part).box_coder
            theirs = Box2BoxTransform(weights=weights)
            torch.testing.assert_close(
                coder.encode_single(targets, boxes), theirs.get_deltas(boxes, targets)
            )
            torch.testing.assert_close(
                coder.decode_single(codes, boxes), theirs.apply_deltas(codes, boxes)
            )

    def test_pooling(self, detector):
        from detectron2.modeling.poolers import ROIPooler
        from detectron2.structures import Boxes

        maps, (boxes,) = torch.randn(1, 3, 13, 21), tensors(random_boxes(30))
        theirs = ROIPooler(14, (1 / STRIDE,), 0, "ROIAlignV2")([maps], [Boxes(boxes)])
        ours = detector().regions.box_roi_pool({"0": maps}, [boxes], None)
        torch.testing.assert_close(ours, theirs)

    def test_proposals_and_their_losses(self, detector):
        """All anchors are sampled in an image this small, so that nothing is random."""
        from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
        from detectron2.modeling.box_regression import Box2BoxTransform
        from detectron2.modeling.matcher import Matcher
        from detectron2.modeling.proposal_generator.rpn import RPN, StandardRPNHead
        from detectron2.structures import Boxes, Instances
        from detectron2.structures import ImageList as Images
        from detectron2.utils.events import EventStorage

        ours = detector(proposals=10).proposals.train()
        channels = ours.head.cls_logits.in_channels
        theirs = RPN(
            in_features=["res4"],
            head=StandardRPNHead(in_channels=channels, num_anchors=15),
            anchor_generator=DefaultAnchorGenerator(
                sizes=[[32, 64, 128, 256, 512]],
                aspect_ratios=[[0.5, 1.0, 2.0]],
                strides=[STRIDE],
                offset=0.0,
            ),
            anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
            box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_topk=(120, 60),
            post_nms_topk=(20, 10),
        )
        with torch.no_grad():
            for mine, other in zip(
                ours.head.parameters(), theirs.rpn_head.parameters(), strict=True
            ):
                other.copy_(mine)
        maps = 3 * torch.randn(2, channels, 3, 4)
        sizes = [(48, 60), (40, 64)]
        boxes = torch.tensor([[3.0, 5.0, 30.0, 40.0], [20.0, 1.0, 55.0, 33.0]])
        found, losses = ours(
            ImageList(torch.zeros(2, 3, 48, 64), sizes),
            {"0": maps},
            [{"boxes": boxes, "labels": torch.ones(2, dtype=torch.long)}] * 2,
        )
        instances = [Instances(size, gt_boxes=Boxes(boxes.clone())) for size in sizes]
        with EventStorage():
            expected, true = theirs(
                Images(torch.zeros(2, 3, 48, 64), sizes), {"res4": maps}, instances
            )
        torch.testing.assert_close(losses["loss_objectness"], true["loss_rpn_cls"])
        torch.testing.assert_close(losses["loss_rpn_box_reg"], true["loss_rpn_loc"])
        for mine, other in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, other.proposal_boxes.tensor)

    def test_losses_of_regions_and_detections(self, detector):
        from detectron2.modeling.box_regression import Box2BoxTransform
        from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
        from detectron2.structures import Boxes, Instances
        from detectron2.utils.events import EventStorage

        part = detector().regions.eval()
        theirs = FastRCNNOutputLayers(
            8,
            box2box_transform=Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0)),
            num_classes=10,
            test_score_thresh=0.05,
        )
        boxes, truth = tensors(random_boxes(200), random_boxes(200)[::-1].copy())
        labels = torch.arange(200) % 11
        logits, codes = 2 * torch.randn(200, 11), torch.randn(200, 44)
        # Theirs has the background last, and no box for it.
        other = torch.cat([logits[:, 1:], logits[:, :1]], 1), codes[:, 4:]
        regions = Instances(
            (200, 300),
            proposal_boxes=Boxes(boxes),
            gt_boxes=Boxes(truth),
            gt_classes=(labels - 1) % 11,
        )
        with EventStorage():
            true = theirs.losses(other, [regions])
        found = region_losses(logits, codes, labels, part.box_coder.encode_single(truth, boxes))
        torch.testing.assert_close(found["classes"], true["loss_cls"])
        torch.testing.assert_close(found["boxes"], true["loss_box_reg"])
        (expected,), _ = theirs.inference(other, [regions])
        (mine,) = part.detections(logits, codes, [boxes], [(200, 300)])
        seen = expected.pred_boxes.nonempty()  # the others are dropped when boxes are scaled back
        torch.testing.assert_close(mine["boxes"], expected.pred_boxes.tensor[seen])
        torch.testing.assert_close(mine["scores"], expected.scores[seen])
        assert (mine["labels"] - 1).tolist() == expected.pred_classes[seen].tolist()
