"""The transform of a trainable module, small enough to be sent to a loader's workers."""

from __future__ import annotations

import copy
import io
import pickle
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bench import plugins
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.training.trainer import TrainableModule

# What accelerate puts on a module for mixed precision; it cannot be pickled.
PREPARED = ("forward", "_original_forward")


class LoaderTransform:
    """`TrainableModule.transform` as a function that any worker process can have.

    A forked worker has the module itself. One that is spawned gets the module without its
    networks: every submodule with weights is None there.

    Args:
        module: has the transform.
    """

    def __init__(self, module: TrainableModule) -> None:
        self._module = module

    def __call__(self, image: Tensor, label: int) -> Any:
        """Turn one image, uint8 (3, H, W), into what the loader collates."""
        return self._module.transform(image, label)

    def __reduce__(self) -> tuple[Any, ...]:
        """Bytes of the module without networks, after the files that its class may be in.

        Raises:
            UserError: another attribute of the module cannot be pickled.
        """
        light = copy.copy(self._module)
        for name in PREPARED:
            light.__dict__.pop(name, None)
        content = io.BytesIO()
        try:
            _LightPickler(light, content).dump(light)
        except Exception as error:  # whatever an attribute raises
            raise UserError(
                f"{type(light).__name__} cannot be sent to a loader's worker ({error}); make its "
                "attributes picklable"
            ) from error
        return _restore, (plugins.added_paths(), content.getvalue())


class _LightPickler(pickle.Pickler):
    """A pickler that leaves out networks, and takes other tensors by value from any device.

    multiprocessing's own would send a file descriptor for every tensor.
    """

    def __init__(self, root: nn.Module, stream: io.BytesIO) -> None:
        super().__init__(stream, pickle.HIGHEST_PROTOCOL)
        self._root = root

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, nn.Parameter):
            return _nothing, ()
        if isinstance(value, nn.Module) and value is not self._root:
            return (_nothing, ()) if any(True for _ in value.parameters()) else NotImplemented
        if isinstance(value, Tensor):
            return torch.from_numpy, (value.detach().cpu().numpy().copy(),)
        return NotImplemented


def _nothing() -> None:
    return None


def _restore(paths: plugins.AddedPaths, content: bytes) -> Any:
    """The transform in a worker, which imports the plug-ins' files first.

    A class that a worker cannot import is said where the first image is asked for: an exception
    here would end the worker without a word.
    """
    paths.add()
    for path in paths.methods:
        plugins.load("methods", path.stem)
    for path in paths.tasks:
        plugins.load("tasks", path.stem)
    try:
        return LoaderTransform(pickle.loads(content))
    except AttributeError as error:
        return _Refusal(
            f"a loader's worker cannot import the method ({error}): put its class into a file and "
            'give its path, or define it outside of `if __name__ == "__main__"`'
        )


class _Refusal:
    """A transform that cannot be had.

    Args:
        text: why.
    """

    def __init__(self, text: str) -> None:
        self._text = text

    def __call__(self, image: Tensor, label: int) -> Any:
        """Raise the reason."""
        raise UserError(self._text)
