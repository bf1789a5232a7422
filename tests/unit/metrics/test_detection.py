import numpy as np
import pytest

from bench.metrics.detection import (
    FALSE_POSITIVE,
    IGNORED,
    TRUE_POSITIVE,
    detection_average_precision,
    match,
    match_checked,
    overlaps,
)


def test_overlap_counts_inclusive_pixels():
    # 10 x 10 and 10 x 10 pixels, shifted by 5: 50 shared of 150.
    assert overlaps(np.array([1.0, 1, 10, 10]), np.array([6.0, 1, 15, 10])) == pytest.approx(1 / 3)
    assert overlaps(np.array([3.0, 3, 3, 3]), np.array([3.0, 3, 3, 3])) == 1
    assert overlaps(np.array([1.0, 1, 2, 2]), np.array([3.0, 1, 4, 2])) == 0


def outcomes(detections, objects, overlap=0.5):
    """Detections (box, score) and objects (box, difficult) of one image."""
    boxes, scores = [d[0] for d in detections], [d[1] for d in detections]
    true_boxes, difficult = [o[0] for o in objects], [o[1] for o in objects]
    images, true_images = np.zeros(len(detections)), np.zeros(len(objects))
    return match(boxes, scores, images, true_boxes, true_images, difficult, overlap).tolist()


A, B, C = (1, 1, 10, 10), (1, 4, 10, 13), (50, 50, 60, 60)


def test_the_surest_detection_finds_an_object_and_the_next_is_a_duplicate():
    assert outcomes([(A, 0.2), (A, 0.9)], [(A, False)]) == [FALSE_POSITIVE, TRUE_POSITIVE]


def test_a_duplicate_is_false_though_it_overlaps_a_free_object_enough():
    # (1, 2, 10, 11) overlaps A by 90 / 110 and B by 80 / 120: A is its object, and taken.
    between = (1, 2, 10, 11)
    assert outcomes([(A, 0.9), (between, 0.8)], [(A, False), (B, False)]) == [
        TRUE_POSITIVE,
        FALSE_POSITIVE,
    ]


def test_detections_of_a_difficult_object_count_neither_way_however_many():
    assert outcomes([(A, 0.9), (A, 0.8), (C, 0.7)], [(A, True)]) == [
        IGNORED,
        IGNORED,
        FALSE_POSITIVE,
    ]


def test_an_overlap_of_just_the_threshold_is_too_little():
    half = (1, 1, 10, 5)
    assert outcomes([(half, 0.9)], [(A, False)]) == [FALSE_POSITIVE]
    assert outcomes([(half, 0.9)], [(A, False)], overlap=0.4999) == [TRUE_POSITIVE]


def test_an_object_of_another_image_is_not_found():
    matches = match([A, A], [0.9, 0.8], [7, 3], [A], [3], [False], 0.5)
    assert matches.tolist() == [FALSE_POSITIVE, TRUE_POSITIVE]


def test_nothing_detected_and_nothing_there():
    assert outcomes([], [(A, False)]) == []
    assert outcomes([(A, 0.5)], []) == [FALSE_POSITIVE]


def outcomes_with_crowds(boxes, objects):
    """Boxes, the surest first, and objects (box, crowd) of one image; crowds are difficult."""
    crowd = np.array([c for _, c in objects])
    boxes, true_boxes = (np.array(b, dtype=float) for b in (boxes, [box for box, _ in objects]))
    images, true_images = (np.zeros(len(b), dtype=int) for b in (boxes, true_boxes))
    scores = -np.arange(len(boxes), dtype=float)
    return match_checked(
        boxes, scores, images, true_boxes, true_images, crowd, 0.5, crowd=crowd
    ).tolist()


def test_a_detection_of_which_more_than_half_is_in_a_crowd_counts_neither_way():
    whole = (1, 1, 100, 100)
    inside, over_half, half = (1, 1, 10, 10), (92, 1, 107, 10), (91, 1, 110, 10)
    outside = (150, 1, 160, 10)
    found = outcomes_with_crowds([inside, inside, over_half, half, outside], [(whole, True)])
    assert found == [IGNORED, IGNORED, IGNORED, FALSE_POSITIVE, FALSE_POSITIVE]
    assert outcomes([(inside, 0.9)], [(whole, True)]) == [FALSE_POSITIVE], "no crowd"


@pytest.mark.parametrize("is_first", [True, False])
def test_an_object_in_a_crowd_is_found_once_and_no_other_detection_of_it_is_false(is_first):
    objects = [(A, False), ((1, 1, 100, 100), True)]
    found = outcomes_with_crowds([A, A], objects if is_first else objects[::-1])
    assert found == [TRUE_POSITIVE, IGNORED]


def test_a_crowd_of_another_image_excuses_no_detection():
    boxes, crowd = np.array([A, A], dtype=float), np.array([True])
    images, scores = np.array([3, 7]), np.array([0.9, 0.8])
    true = (np.array([A], dtype=float), np.array([3]), crowd)
    assert match_checked(boxes, scores, images, *true, 0.5, crowd).tolist() == [
        IGNORED,
        FALSE_POSITIVE,
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"boxes": [(5, 5, 1, 9)]}, "boxes holds .* corners that are not in order"),
        ({"boxes": [(5, 5, np.nan, 9)]}, r"boxes holds nan at \(0, 2\); expected finite"),
        ({"true_boxes": [(5, 5, 9, 1)]}, "true_boxes holds .* corners that are not in order"),
        ({"scores": [0.1, 0.2]}, "must be as many each"),
        ({"difficult": []}, "must be as many each"),
    ],
)
def test_bad_input_is_refused(change, says):
    good = {"boxes": [A], "scores": [0.1], "images": [0], "true_boxes": [A], "true_images": [0]}
    with pytest.raises(ValueError, match=says):
        match(**good | {"difficult": [False], "overlap": 0.5} | change)


def test_boxes_whose_area_overflows_are_refused():
    far = [[0, 0, 1e200, 1e200]]
    fine = [[0, 0, 9, 9]]
    for name, boxes, true_boxes in (("boxes", far, fine), ("true_boxes", fine, far)):
        with pytest.raises(ValueError, match=rf"^{name} holds 1e\+200 at \(0, 2\); expected"):
            detection_average_precision(boxes, [0.9], [0], true_boxes, [0])
