"""What a detector is shown: boxes move with their image, and what does not count is left out."""

import pytest
import torch

from bench.data.voc import ObjectAnnotation
from bench.encoders.encoder import Encoder
from bench.evaluation.faster_rcnn import Detector, fit


@pytest.fixture(scope="module")
def encoder(smoke):
    torch.manual_seed(0)
    return Encoder(smoke.backbone.name)


@pytest.fixture
def detector(encoder, smoke, context):
    """A detector whose one training image has some objects."""

    def make(*objects, **changes):
        settings = context(task="voc_det").settings.model_copy(update=changes)
        return Detector(encoder, settings, [objects], smoke.datasets["voc"].classes)

    return make


def white(height, width, box):
    """A black image, white inside a box of 1-based inclusive pixels."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    xmin, ymin, xmax, ymax = box
    image[:, ymin - 1 : ymax, xmin - 1 : xmax] = 255
    return image


@pytest.mark.parametrize(("height", "width"), [(96, 160), (160, 96)])
def test_boxes_stay_on_their_objects(detector, smoke, height, width):
    box = (17, 9, 64, 88)
    network = detector(ObjectAnnotation("dog", box, False, False), size=320)
    left = set()
    for seed in range(12):
        torch.manual_seed(seed)
        image, objects = network.transform(white(height, width, box), 0)
        assert image.shape == (3, 320, 320)
        assert objects[0, 0] == 1 + smoke.datasets["voc"].classes.index("dog")
        assert not objects[1:, 0].any()
        x1, y1, x2, y2 = objects[0, 1:].tolist()
        rows, columns = torch.nonzero(image[0] > 127).T
        edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert (x1, y1, x2, y2) == pytest.approx([float(e) for e in edges], abs=1.1)
        left.add(x1 < x2 - x1)
    assert left == {True, False} or width < height  # mirrored and not


def test_an_image_of_its_own_size_is_left_as_it_is():
    image = torch.randint(0, 255, (3, 30, 40), dtype=torch.uint8)
    whole, factor = fit(image, 40, 40)
    assert factor == 1
    torch.testing.assert_close(whole[:, :30], image)
    assert not whole[:, 30:].any()


def test_difficult_objects_are_not_trained_on(detector):
    box = (1, 1, 9, 9)
    objects = [ObjectAnnotation("dog", box, difficult, False) for difficult in (True, False, True)]
    lines = detector(*objects).transform(white(40, 40, box), 0)[1]
    assert int((lines[:, 0] > 0).sum()) == 1


@pytest.mark.parametrize(("count", "lines"), [(3, 64), (64, 64), (90, 90)])
def test_every_object_of_a_crowded_image_is_trained_on(detector, count, lines):
    objects = [ObjectAnnotation("dog", (k, 1, k + 9, 9), False, False) for k in range(1, count + 1)]
    shown = detector(*objects).transform(white(40, 120, (1, 1, 9, 9)), 0)[1]
    assert len(shown) == lines
    assert int((shown[:, 0] > 0).sum()) == count


def test_images_without_objects_are_trained_on(detector):
    network = detector(size=64).train()
    batch = torch.utils.data.default_collate(
        [network.transform(white(40, 60, (1, 1, 9, 9)), 0) for _ in range(2)]
    )
    loss = network.loss(batch)
    loss.backward()
    assert loss.isfinite()
    assert loss > 0


def test_detected_boxes_are_inclusive_pixels_of_the_image(detector, monkeypatch):
    """The whole square of the network is the whole image; boxes beyond it are cut."""
    network = detector(size=64).eval()
    boxes = [[0.0, 0.0, 64.0, 32.0], [-3.0, 2.0, 90.0, 64.0], [10.0, 4.0, 10.2, 4.1]]
    boxes += [[3.0, 40.0, 20.0, 60.0]]  # in the black strip
    output = {"boxes": torch.tensor(boxes), "labels": torch.tensor([1, 2, 10, 4])}
    output["scores"] = torch.ones(4)
    monkeypatch.setattr(network.network, "forward", lambda images: [output])
    detections = network.detect(white(100, 200, (1, 1, 9, 9)))
    assert detections["labels"].tolist() == [0, 1, 9]
    assert detections["boxes"][0].tolist() == [1, 1, 200, 100]
    assert detections["boxes"][1].tolist() == [1, pytest.approx(7.25), 200, 100]
    assert (detections["boxes"][2, 2:] >= detections["boxes"][2, :2]).all()


def test_anchors_are_where_the_features_are(detector, monkeypatch):
    """On a size that is no multiple of the strides too."""
    network = detector(size=100).eval()
    assert network.side == 128
    generate = network.network.rpn.anchor_generator.forward
    seen = []

    def watched(images, maps):
        seen.append([tuple(m.shape[-2:]) for m in maps])
        seen.append(generate(images, maps)[0])
        return [seen[1]]

    monkeypatch.setattr(network.network.rpn.anchor_generator, "forward", watched)
    network.detect(white(75, 100, (1, 1, 9, 9)))
    grids, anchors = seen
    centers = (anchors[:, :2] + anchors[:, 2:]) / 2
    strides = {128 // side for side, _ in grids}
    assert strides == {4, 8, 16, 32}
    for stride in strides:
        last = 128 - stride
        assert ((centers - last).abs() < 1).all(1).any()
    assert centers.max() == 124


def test_every_image_gives_as_many_regions(detector):
    """However few are proposed: processes then weigh theirs alike."""
    network = detector(proposals=3, regions=16, size=64).train()
    seen = []
    network.network.roi_heads.box_head.register_forward_hook(lambda _, i, o: seen.append(len(o)))
    batch = [network.transform(white(40, 60, (1, 1, 9, 9)), 0) for _ in range(2)]
    network.loss(torch.utils.data.default_collate(batch))
    assert seen == [32]
