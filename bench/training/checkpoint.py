"""Training checkpoints: written atomically, refused if they belong to another run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch

from bench.errors import UserError
from bench.runtime.files import atomic_write


def save_checkpoint(path: Path, key: str, state: dict[str, Any]) -> None:
    """Write the state of a run, atomically.

    Args:
        path: of the checkpoint.
        key: digest of everything that decides the run's weights.
        state: tensors and plain values.
    """
    buffer = io.BytesIO()
    torch.save({**state, "key": key}, buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, buffer.getvalue())


def read_checkpoint(path: Path, key: str, device: torch.device) -> dict[str, Any]:
    """Read the state of a run.

    Raises:
        UserError: the file is not readable, or belongs to another run.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        same_run = state["key"] == key
    except Exception as error:  # a foreign file fails in as many ways as there are formats
        raise UserError(
            f"{path}: not a checkpoint ({type(error).__name__}); delete it and run again"
        ) from error
    if not same_run:
        raise UserError(f"{path}: the checkpoint of another run; delete it and run again")
    return state
