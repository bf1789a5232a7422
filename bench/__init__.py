"""How far is self-supervised visual pretraining from ImageNet labels, and how sure are we?

The public names load what they need when they are first used:

    import bench

    leaderboard = bench.evaluate(model, tasks="voc_cls", suite="mini")
    bench.load_results("results/local").pivot(index="method", columns="task", values="value")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench import metrics as metrics
    from bench.commands.evaluate import evaluate as evaluate
    from bench.encoders.encoder import Encoder as Encoder
    from bench.evaluation.task import Task as Task
    from bench.results.dataframe import load_results as load_results
    from bench.training.pretext import PretextTask as PretextTask

    __version__: str

__all__ = ["Encoder", "PretextTask", "Task", "evaluate", "load_results", "metrics"]

_MODULES = {
    "Encoder": "bench.encoders.encoder",
    "PretextTask": "bench.training.pretext",
    "Task": "bench.evaluation.task",
    "evaluate": "bench.commands.evaluate",
    "load_results": "bench.results.dataframe",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # takes as long to import as all of Python

        return version("ssl-gap")
    if name == "metrics":
        return importlib.import_module("bench.metrics")
    if name in _MODULES:
        from bench.runtime.variables import check_folder

        check_folder()
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'bench' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
