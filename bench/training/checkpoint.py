"""Training checkpoints: written atomically with their digest, refused if of another run."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from bench.errors import UserError
from bench.runtime.files import read_cached, write_cached


def save_checkpoint(path: Path, key: str, state: dict[str, Any]) -> None:
    """Write the state of a run, atomically.

    Args:
        path: of the checkpoint.
        key: digest of everything that decides the run's weights.
        state: tensors and plain values.
    """
    buffer = io.BytesIO()
    torch.save({**state, "key": key}, buffer)
    write_cached(path, buffer.getbuffer())


def read_checkpoint(
    path: Path, key: str, device: torch.device, say: Callable[[str], None]
) -> dict[str, Any] | None:
    """Read the state of a run; None if there is none, or a damaged one.

    Args:
        path: of the checkpoint.
        key: digest of everything that decides the run's weights.
        device: where its tensors go.
        say: prints the line that names a damaged file.

    Raises:
        UserError: the file belongs to another run.
    """
    content = read_cached(path, say)
    if content is None:
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    if state["key"] != key:
        raise UserError(f"{path}: the checkpoint of another run; delete it and run again")
    return state
