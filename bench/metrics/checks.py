"""Checks of what the evaluators are given: type, shape, range and meaning. Needs numpy only.

Each function takes the name of an argument and its value: anything that numpy reads as an array,
or a tensor of torch, on any device. It returns an array, or raises a ValueError of one line that
names the argument, what it holds and what is expected. Nothing is cast that changes a value.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]

EXACT = 2**53  # integers up to this are exact as float64
LARGEST = 1e150  # coordinate of a box whose area is finite
SHOWN = 40  # characters up to which a wrong value is quoted


class NothingToScoreError(ValueError):
    """No positive image, object or pixel: the metric has no value."""


def array(name: str, value: Any) -> Array:
    """An array of numbers or booleans, with the values of the argument.

    Raises:
        ValueError: it is no such array, has rows of different lengths, or values that are masked.
    """
    if isinstance(value, np.ma.MaskedArray) and np.ma.getmaskarray(value).any():
        raise ValueError(f"{name} has masked values; expected an array without gaps")
    try:
        read = np.asarray(_on_host(value))
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{name} cannot be read as an array of numbers: {reason}") from error
    if read.dtype.kind not in "biuf":
        kind = {"U": "text", "S": "text", "c": "complex numbers"}.get(
            read.dtype.kind, str(read.dtype)
        )
        raise ValueError(f"{name} holds {kind}; expected an array of numbers")
    return read


def _on_host(value: Any) -> Any:
    """A tensor as what numpy can read; anything else as it is."""
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach().cpu()
    # numpy lacks bfloat16; each of its values is a float32.
    return tensor.float() if "bfloat16" in str(tensor.dtype) else tensor


def scores(name: str, value: Any, shape: str) -> NDArray[np.floating]:
    """Finite numbers of a type whose negative is exact, of as many axes as `shape` says.

    Floats are as they were; integers become float64, so that unsigned ones can be negated.

    Args:
        name: of the argument.
        value: the argument.
        shape: what is expected, as "(N, C)".

    Raises:
        ValueError: other axes, booleans, integers beyond 2^53, or a value that is not finite.
    """
    read = array(name, value)
    axes(name, read, shape)
    if read.dtype.kind == "b" and read.size:
        raise ValueError(f"{name} holds booleans; expected scores, which rank")
    if read.dtype.kind in "iu":
        _refuse(name, read, (read > EXACT) | (read < -EXACT), "expected integers of at most 2^53")
    if read.dtype.kind != "f":
        return read.astype(np.float64)
    finite(name, read)
    return read


def finite(name: str, values: Array) -> None:
    """Refuse nan and infinity.

    Raises:
        ValueError: names the first.
    """
    _refuse(name, values, ~np.isfinite(values), "expected finite numbers")


def flags(name: str, value: Any, shape: str) -> Bools:
    """Booleans, or numbers that are 0 or 1.

    Raises:
        ValueError: other axes or another value, as the -1 of VOC's labels.
    """
    read = array(name, value)
    axes(name, read, shape)
    if read.dtype.kind != "b":
        hint = "; of labels 1, -1 and 0 pass labels == 1" if (read == -1).any() else ""
        _refuse(name, read, (read != 0) & (read != 1), f"expected true and false, or 1 and 0{hint}")
    return read.astype(bool)


def codes(name: str, value: Any) -> NDArray[np.int8]:
    """VOC's image labels, (N, C): 1 shows the class, -1 does not, 0 only as a difficult object.

    Raises:
        ValueError: other axes, booleans (false is 0, which means difficult), or another value.
    """
    read = array(name, value)
    axes(name, read, "(N, C)")
    if read.dtype.kind == "b" and read.size:
        raise ValueError(
            f"{name} holds booleans; expected 1, -1 and 0 only: pass np.where({name}, 1, -1)"
        )
    _refuse(name, read, (read != 1) & (read != -1) & (read != 0), "expected 1, -1 and 0 only")
    return read.astype(np.int8)


def integers(name: str, value: Any, shape: str | None = None, below: int | None = None) -> Integers:
    """Integers, or floats and booleans of the same values.

    Args:
        name: of the argument.
        value: the argument.
        shape: what is expected, as "(N,)"; None takes any.
        below: where given, 0 <= value < below.

    Raises:
        ValueError: other axes, a value that is no integer, or out of range.
    """
    read = array(name, value)
    if shape:
        axes(name, read, shape)
    if read.dtype.kind == "f":
        _refuse(name, read, _fractional(read), "expected integers")
    if read.dtype == np.uint64:
        _refuse(name, read, read > EXACT, "expected integers of at most 2^53")
    whole = read.astype(np.int64, copy=False)
    if below is not None and whole.size and not 0 <= whole.min() <= whole.max() < below:
        _refuse(name, read, (whole < 0) | (whole >= below), f"expected a number in 0..{below - 1}")
    return whole


def counts(name: str, value: Any, shape: str) -> Floats:
    """Numbers of pixels, objects or copies as float64: integers >= 0, of any numeric type.

    Raises:
        ValueError: other axes, a negative number or a fraction, as in a normalized matrix.
    """
    read = array(name, value)
    axes(name, read, shape)
    if read.dtype.kind == "b" and read.size:
        raise ValueError(f"{name} holds booleans; expected counts")
    if read.dtype.kind == "f":
        _refuse(name, read, _fractional(read), "expected counts, not shares")
    if read.size and read.min() < 0:
        _refuse(name, read, read < 0, "expected counts of at least 0")
    return read.astype(np.float64, copy=False)


def boxes(name: str, value: Any) -> Floats:
    """Boxes (D, 4) as float64: xmin, ymin, xmax, ymax in pixels; an empty array has none.

    Raises:
        ValueError: other axes, a value or an area that is not finite, corners out of order (as of
            x, y, width, height), or shares of the image.
    """
    read = array(name, value)
    if not read.size and read.ndim < 3:
        return np.zeros((0, 4))
    if read.ndim != 2 or read.shape[1] != 4:
        raise ValueError(f"{name} {read.shape} must be (D, 4)")
    corners = read.astype(np.float64, copy=False)
    finite(name, corners)
    too_far = np.abs(corners) > LARGEST
    _refuse(name, corners, too_far, f"expected pixels, of at most {LARGEST:g}")
    ordered = (corners[:, 2:] >= corners[:, :2]).all(axis=1)
    if not ordered.all():
        row = int(np.flatnonzero(~ordered)[0])
        raise ValueError(
            f"{name} holds {corners[row].tolist()} at {row}, corners that are not in order; "
            "expected xmin, ymin, xmax, ymax"
        )
    if corners.min() >= 0 and corners.max() <= 1 and _fractional(corners).any():
        raise ValueError(f"{name} holds shares of the image, 0..1; expected pixels")
    return corners


def confusion(name: str, value: Any, shape: str) -> Floats:
    """Confusion matrices, (C, C) or (N, C, C), of pixels counted, as float64.

    Raises:
        ValueError: other axes, sides that differ, no class, a negative number or a fraction.
    """
    pixels = counts(name, value, shape)
    if pixels.shape[-1] != pixels.shape[-2] or not pixels.shape[-1]:
        raise ValueError(f"{name} {pixels.shape} must be {shape}, with a row for every column")
    return pixels


def number(name: str, value: Any, least: int) -> int:
    """An integer of at least `least`.

    Raises:
        ValueError: it is none, or smaller.
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        whole = operator.index(value)
    except TypeError:
        whole = least - 1
    if whole < least:
        raise ValueError(f"{name} is {_quoted(value)}; expected an integer of at least {least}")
    return whole


def share(name: str, value: Any) -> float:
    """A number in 0..1, without 1.

    Raises:
        ValueError: it is none.
    """
    kinds = int | float | np.integer | np.floating
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 <= value < 1:
        raise ValueError(f"{name} is {_quoted(value)}; expected a number in 0..1, below 1")
    return float(value)


def choice(name: str, value: Any, known: Sequence[str]) -> None:
    """Refuse what is none of the known words.

    Raises:
        ValueError: names them.
    """
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"unknown {name} {_quoted(value)}; known: {', '.join(known)}")


def entry(predictions: Mapping[str, Any], name: str) -> Any:
    """One array of predictions.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in predictions:
        there = ", ".join(sorted(map(str, predictions))) or "nothing"
        raise ValueError(f"the predictions lack {name}; there is {there}")
    return predictions[name]


def axes(name: str, values: Array, shape: str) -> None:
    """Refuse another number of axes than a shape as "(N, C)" has.

    Raises:
        ValueError: names both shapes.
    """
    if values.ndim != len(shape.strip("()").rstrip(",").split(",")):
        raise ValueError(f"{name} {values.shape} must be {shape}")


def alike(**values: Array) -> None:
    """Refuse arrays of different lengths.

    Raises:
        ValueError: names each, with its length.
    """
    lengths = [len(each) for each in values.values()]
    if len({*lengths}) > 1:
        named = ", ".join(f"{n} {length}" for n, length in zip(values, lengths, strict=True))
        raise ValueError(f"{named}: they must be as many each")


def masked(values: Floats) -> Floats:
    """Values as they are, or a masked array where some are nan, with those masked."""
    missing = np.isnan(values)
    gaps: Floats = np.ma.MaskedArray(values, missing) if missing.any() else values
    return gaps


def _fractional(values: Array) -> Bools:
    """Where a float is no integer that float64 has exactly; nan and infinity are none."""
    # numpy would compare float16 with 2^53 as infinity.
    largest = min(EXACT, float(np.finfo(values.dtype).max))
    fractional: Bools = ~((np.trunc(values) == values) & (np.abs(values) <= largest))
    return fractional


def _refuse(name: str, values: Array, bad: Bools, expected: str) -> None:
    """Refuse values where some are bad; names the first of them."""
    if bad.any():
        place = tuple(np.argwhere(bad)[0].tolist())
        at = f" at {place[0] if len(place) == 1 else place}" if place else ""
        raise ValueError(f"{name} holds {values[place].item()}{at}; {expected}")


def _quoted(value: Any) -> str:
    """A value in one line, or its type where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= SHOWN else f"of type {type(value).__name__}"
