"""Random halves of the test images, from which every interval is computed."""

import numpy as np
from numpy.typing import NDArray


def resamples(n_images: int, n_resamples: int, seed: int) -> NDArray[np.uint16]:
    """Half of the images, drawn without replacement, again and again; halves of a split follow.

    A statistic varies over halves of a sample as it varies over samples (Shao and Wu 1989, Annals
    of Statistics 17(3), delete-half jackknife; Friedman and Hall 2007, J. Stat. Plan. Inference
    137(3): equal to the bootstrap to first order), and no image comes twice: repeated positives
    alone raise average precision.

    Args:
        n_images: N, 2 to 2^24, up to which sums of counts are exact in float32.
        n_resamples: B >= 1.
        seed: of numpy's default generator; the same seed gives the same counts.

    Returns:
        (B, N) counts, 0 or 1; every row sums to N // 2.

    Raises:
        ValueError: a size out of range.
    """
    if not 2 <= n_images <= 2**24 or n_resamples < 1:
        raise ValueError(f"cannot draw {n_resamples} resamples of {n_images} images")
    rng = np.random.default_rng(seed)
    counts = np.zeros((n_resamples, n_images), dtype=np.uint16)
    half = n_images // 2
    for i in range(0, n_resamples, 2):
        shuffled = rng.permutation(n_images)
        counts[i, shuffled[:half]] = 1
        counts[i + 1 : i + 2, shuffled[-half:]] = 1
    return counts
