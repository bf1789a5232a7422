"""The public evaluators: whatever holds the same numbers scores the same; the rest is refused."""

import math

import numpy as np
import torch
from fuzz.harness import attempt, check, examples
from hypothesis import given, note
from hypothesis import strategies as st

from bench.metrics import (
    average_precision,
    class_average_precisions,
    class_ious,
    confusion_matrix,
    detection_average_precision,
    mean_average_precision,
    mean_iou,
)

DRAWN = np.random.default_rng(0)
SCORES = DRAWN.integers(-50, 50, (12, 3)).astype(float)
TRUTH = np.where(DRAWN.random((12, 3)) < 0.4, 1, -1)
TRUTH[0] = (1, -1, 0)
BOXES = np.array([[1, 1, 10, 10], [5, 5, 20, 20], [1, 2, 9, 12], [30, 30, 40, 50]])
MAPS = DRAWN.integers(0, 3, (4, 5))

IMAGES = {"scores": SCORES, "truth": TRUTH}
# Function, its sound arguments.
SOUND = {
    "average_precision": (
        average_precision,
        {"scores": SCORES[:, 0], "positive": TRUTH[:, 0] == 1},
    ),
    "class_average_precisions": (class_average_precisions, IMAGES),
    "mean_average_precision": (mean_average_precision, IMAGES),
    "detection_average_precision": (
        detection_average_precision,
        {
            **{"boxes": BOXES, "scores": np.array([4, 3, 2, 1]), "images": np.array([0, 1, 0, 1])},
            **{"true_boxes": BOXES[:2], "true_images": np.array([0, 1])},
            "difficult": np.array([False, False]),
        },
    ),
    "confusion_matrix": (confusion_matrix, {"truth": MAPS, "predicted": MAPS[::-1], "classes": 3}),
    "class_ious": (class_ious, {"confusion": np.array([[5, 1], [2, 7]])}),
    "mean_iou": (mean_iou, {"confusion": np.array([[5, 1], [2, 7]])}),
}
FLAGS = {"positive", "difficult"}
NEGATIVE = {"scores", "truth"}


def types_of(argument, value):
    """Ways to hold the same numbers."""
    ways = [np.float64, np.float32, np.float16, np.longdouble, np.int8, np.int16, np.int64]
    ways = [lambda v, kind=kind: np.asarray(v).astype(kind) for kind in ways]
    ways += [lambda v: np.asarray(v).tolist(), lambda v: torch.tensor(np.asarray(v).tolist())]
    ways += [lambda v: torch.tensor(np.asarray(v, float)).bfloat16(), np.asfortranarray]
    ways += [
        lambda v: np.asarray(v, float).astype(">f8"),
        lambda v: np.ma.MaskedArray(np.asarray(v)),
    ]
    ways += [lambda v: torch.tensor(np.asarray(v, float), requires_grad=True)]
    if np.min(value) >= 0:
        ways += [lambda v, k=k: np.asarray(v).astype(k) for k in (np.uint8, np.uint16, np.uint64)]
    if argument in FLAGS:
        ways += [lambda v: np.asarray(v).astype(bool)]
    return ways


def spoilt(argument, value):
    """Values that hold no such numbers: name -> value."""
    array = np.asarray(value)
    numbers = array.astype(float)

    def with_(item, kind=float):
        changed = numbers.astype(kind)
        changed.flat[-1] = item
        return changed

    wrong = {
        "nan": with_(math.nan),
        "infinity": with_(math.inf),
        "infinity of half precision": with_(math.inf, np.float16),
        "text": array.astype(str),
        "complex": array.astype(complex),
        "objects": with_(None, object),
        "dates": array.astype("int64").astype("datetime64[s]"),
        "one axis more": numbers[None],
        "masked": np.ma.MaskedArray(numbers, numbers == numbers.flat[0]),
        "a word": "x",
        "none": None,
        "a table": {"x": 1},
        "ragged": [[1], [1, 2]],
        "a number": 1.0,
        "fields": np.zeros(array.shape, [("a", "f4")]),
        "bytes": b"xyz",
        "an infinite tensor": torch.full(array.shape, torch.inf),
        "a complex tensor": torch.ones(array.shape, dtype=torch.complex64),
        "a tensor without values": torch.ones(array.shape, device="meta"),
    }
    if argument == "difficult":
        del wrong["none"]
    if len(array) > 2:
        wrong["fewer"] = array[:-2]
    if argument not in ("scores", "boxes", "true_boxes"):
        wrong["halves"] = with_(0.5)
    if argument not in ("scores", "boxes", "true_boxes", "images", "true_images"):
        wrong["other codes"] = with_(7 if argument != "confusion" else -7)
    if argument in ("scores", "confusion") or (argument == "truth" and -1 in array):
        wrong["flags"] = array > 0
    if argument == "predicted":
        wrong["negative"] = with_(-1)
        wrong["huge"] = with_(2**40)
    if "boxes" in argument:
        wrong["turned"] = numbers[:, [2, 3, 0, 1]]
        wrong["shares"] = numbers / numbers.max()
        wrong["five columns"] = np.hstack([numbers, numbers[:, :1]])
    if "images" in argument:
        wrong["flags of another number"] = np.zeros(1, bool)
    if argument == "confusion":
        wrong["normalized"] = numbers / numbers.sum()
        wrong["oblong"] = numbers[:1]
        wrong["nothing"] = numbers[:0, :0]
    return wrong


def equal(one, other):
    return np.array_equal(one, other) and type(one) is type(other)


@examples(300)
@given(data=st.data())
def test_arguments_of_any_content(data):
    name = data.draw(st.sampled_from(sorted(SOUND)))
    function, arguments = SOUND[name]
    argument = data.draw(st.sampled_from([a for a in arguments if a != "classes"]))
    value = arguments[argument]
    expected = function(**arguments)
    harmless = data.draw(st.booleans())
    if harmless:
        ways = types_of(argument, value)
        changed = data.draw(st.sampled_from(ways))(value)
    else:
        wrong = spoilt(argument, value)
        kind = data.draw(st.sampled_from(sorted(wrong)))
        note(kind)
        changed = wrong[kind]
    note(f"{name} {argument} {changed!r}")
    result = attempt(
        "evaluator", lambda: function(**arguments | {argument: changed}), refusals=(ValueError,)
    )
    check("harmless" if harmless else "harmful", result, expected, equal)


WORDS = ("", "Area", "area ", "x", None, 1, ["area"], b"area", True, math.nan)
COUNTS = (0, -1, 256, 2.0, "2", None, True, [2], math.nan, 10**30, np.float64(2))
SHARES = (-0.1, 1.0, 50, "0.5", None, True, [0.5], math.nan, math.inf, 1j)


@examples(80)
@given(data=st.data())
def test_options_of_any_content(data):
    name = data.draw(st.sampled_from([n for n in sorted(SOUND) if "iou" not in n]))
    function, arguments = SOUND[name]
    if name == "confusion_matrix":
        change = {"classes": data.draw(st.sampled_from(COUNTS))}
    elif name == "detection_average_precision" and data.draw(st.booleans()):
        change = {"overlap": data.draw(st.sampled_from(SHARES))}
    elif name in ("class_average_precisions", "mean_average_precision") and data.draw(
        st.booleans()
    ):
        change = {"difficult": data.draw(st.sampled_from(WORDS))}
    else:
        change = {"kind": data.draw(st.sampled_from(WORDS))}
    note(f"{name} {change}")
    result = attempt("evaluator", lambda: function(**arguments | change), refusals=(ValueError,))
    check("harmful", result, None)


@examples(120)
@given(data=st.data())
def test_order_and_scale_do_not_matter(data):
    """Sound input in another order, or with scores on another scale, has the same number."""
    name = data.draw(st.sampled_from(["average_precision", "mean_average_precision", "detections"]))
    if name == "detections":
        function, arguments = SOUND["detection_average_precision"]
        keys = ("boxes", "scores", "images")
    else:
        function, arguments = SOUND[name]
        keys = tuple(arguments)
    order = np.array(data.draw(st.permutations(range(len(arguments["scores"])))))
    changed = arguments | {key: np.asarray(arguments[key])[order] for key in keys}
    scale = data.draw(st.sampled_from([1, 2, 0.5, 1024.0, 2.0**-40, 2.0**500]))
    changed["scores"] = changed["scores"] * scale + (
        data.draw(st.integers(-8, 8)) if scale == 1 else 0
    )
    kind = data.draw(st.sampled_from(["area", "step", "11-point", "11-point-exact"]))
    result = attempt("evaluator", lambda: function(**changed, kind=kind), refusals=(ValueError,))
    check(
        "harmless",
        result,
        function(**arguments, kind=kind),
        lambda a, b: math.isclose(a, b, rel_tol=1e-12),
    )
