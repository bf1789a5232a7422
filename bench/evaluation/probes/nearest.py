"""Weighted vote of the nearest training images (Wu et al. 2018, section 3.4), in blocks of rows."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.runtime.distributed import in_shares

ROWS = 256  # images whose neighbors are found at a time


def vote(
    queries: Tensor,
    bank: Tensor,
    codes: NDArray[np.int8],
    neighbors: Sequence[int],
    temperature: float,
    own: NDArray[np.integer] | None = None,
) -> NDArray[np.float32]:
    """Share of the neighbors' weight that shows each class, for each number of neighbors.

    A neighbor of cosine similarity s has the weight exp(s / temperature). One whose label of a
    class is 0, difficult, is left out of that class; where all are, the share is 0.

    Args:
        queries: (M, D) of length 1, on the device of `bank`.
        bank: (N, D) of length 1, the training images.
        codes: (N, C) of 1 (shows the class), -1 (does not), 0 (difficult).
        neighbors: K numbers, ascending; the last is at most N, or N - 1 with `own`.
        temperature: > 0.
        own: (M,) the position of each query in the bank, for it to be none of its own neighbors.

    Returns:
        (K, M, C) in 0..1, in every process; each computes a part.
    """
    shown, counted = (torch.from_numpy(mask).to(bank.device) for mask in (codes == 1, codes != 0))
    least = torch.finfo(bank.dtype).tiny

    def block(start: int) -> NDArray[np.float32]:
        similarity = queries[start : start + ROWS] @ bank.T
        if own is not None:
            places = torch.from_numpy(own[start : start + ROWS]).to(bank.device)
            similarity.scatter_(1, places[:, None], -torch.inf)
        nearest, index = similarity.topk(neighbors[-1], dim=1)
        weights = ((nearest - nearest[:, :1]) / temperature).exp()[:, None]
        present, known = shown[index].to(bank.dtype), counted[index].to(bank.dtype)
        shares = [
            weights[..., :k] @ present[:, :k] / (weights[..., :k] @ known[:, :k]).clamp(min=least)
            for k in neighbors
        ]
        found: NDArray[np.float32] = torch.cat(shares, 1).movedim(1, 0).cpu().numpy()
        return found

    return np.concatenate(in_shares(range(0, len(queries), ROWS), block), axis=1)
