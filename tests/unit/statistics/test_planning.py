"""What would settle a difference, computed by hand."""

import pytest

from bench.statistics import planning
from bench.statistics.planning import Needed, Z, needed

# The differences are multiples of Z, so that the square of d / Z is a whole number.


def test_seeds_until_the_variance_is_below_the_square():
    """4 > 1 + 6 / k needs k > 2; 4 > 4 is not enough."""
    assert needed(2 * Z, images=1.0, own=0.0, runs=6.0, seeds=1).seeds == 3
    assert needed(2 * Z, images=1.0, own=0.0, runs=6.1, seeds=1).seeds == 3
    assert needed(2 * Z, images=1.0, own=0.0, runs=5.9, seeds=1).seeds == 2


def test_what_the_images_do_to_one_seed_alone_counts_once():
    """Of 3 the images do 2 to this seed alone, as its run's 6 contain: 4 > 1 + 6 / k by k of 3.

    More images make 3 smaller, and leave 4 of the run: 4.84 > 3 / f + 4 by f of 3.6.
    """
    assert needed(2 * Z, images=3.0, own=2.0, runs=6.0, seeds=1).seeds == 3
    assert needed(2.2 * Z, images=3.0, own=2.0, runs=6.0, seeds=1).images == pytest.approx(3 / 0.84)


def test_images_until_the_variance_is_below_the_square():
    """9 > 12 / f + 3 needs f of 2."""
    assert needed(3 * Z, images=12.0, own=0.0, runs=3.0, seeds=2).images == pytest.approx(2)


def test_the_sign_of_the_difference_does_not_matter():
    assert needed(-3 * Z, 4.0, 1.0, 6.0, 2) == needed(3 * Z, 4.0, 1.0, 6.0, 2)


def test_no_number_of_seeds_helps_where_the_images_are_too_few():
    """9 images' variance against a square of 4, whatever the seeds; 4 > 9 / f + 2 by f of 4.5."""
    result = needed(2 * Z, images=9.0, own=0.0, runs=2.0, seeds=1)
    assert result == Needed(None, pytest.approx(4.5))


def test_no_number_of_images_helps_where_the_seeds_are_too_few():
    """4 < 5, the variance of one seed; 4 > 1 + 5 / k by k of 2."""
    assert needed(2 * Z, images=1.0, own=0.0, runs=5.0, seeds=1) == Needed(2, None)


def test_equal_rows_are_told_apart_by_nothing():
    assert needed(0.0, images=1.0, own=0.0, runs=1.0, seeds=1) == Needed(None, None)
    assert needed(0.0, images=0.0, own=0.0, runs=0.0, seeds=1) == Needed(None, None)


def test_rows_without_randomness_need_no_seeds():
    """Fixed weights: 4 > 8 / f by f of 2."""
    assert needed(2 * Z, images=8.0, own=0.0, runs=0.0, seeds=1) == Needed(None, pytest.approx(2))
    assert needed(4 * Z, images=8.0, own=0.0, runs=0.0, seeds=1).seeds is None


def test_seeds_are_more_than_there_are_and_images_too():
    result = needed(10 * Z, images=1.0, own=0.0, runs=2.0 / 5, seeds=5)
    assert result == Needed(6, None)


def test_what_nobody_has_is_none():
    square_less_images = 1e-4
    run = square_less_images * (planning.MOST - 0.5)
    assert needed(Z, 1 - square_less_images, 0.0, run, 1).seeds == planning.MOST
    assert needed(Z, 1 - square_less_images, 0.0, 2 * run, 1).seeds is None
    assert needed(Z, 1.0, 0.0, 1 - 1.01e-3, 1).images == pytest.approx(990.1, rel=1e-3)
    assert needed(Z, 1.0, 0.0, 1 - 0.99e-3, 1).images is None
