"""TODO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bench.errors import UserError


def read_checkpoint(path: Path, key: str, device: torch.device) -> dict[str, Any]:
    """Read a training checkpoint.

    Raises:
        UserError: it is not readable, or belongs to another run.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        fits = state["key"] == key
    except Exception as error:  # a foreign file fails in as many ways as there are formats
        raise UserError(
            f"{path}: not a checkpoint ({type(error).__name__}); delete it and run again"
        ) from error
    if not fits:
        raise UserError(f"{path}: the checkpoint of another run; delete it and run again")
    return state
