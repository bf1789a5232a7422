"""Fine-tuning: learning-rate selection on held-out training images, then the final fit.

A fine-tuned network is a `TrainableModule`, as a pretext task is, and the same loop trains it. Its
images are a task's training split. The label of each is its position in the split, by which the
network looks up boxes, masks or classes.
"""

from __future__ import annotations

import io
import json
import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from bench.config.schema import FineTuning, Recipe
from bench.data.image_files import ImageFiles
from bench.encoders.encoder import Encoder
from bench.encoders.pretraining import Pretraining, TrainingTrace
from bench.encoders.transformer import embeddings, layer_rates, transformer_of
from bench.errors import UserError
from bench.runtime import distributed
from bench.runtime.device import fast_bfloat16, seed_everything
from bench.runtime.environment import library_versions
from bench.runtime.files import read_cached, write_cached
from bench.runtime.fingerprint import digest
from bench.training.context import Context
from bench.training.trainer import (
    NonFiniteLossError,
    Objective,
    TrainableModule,
    Trainer,
    TrainingJob,
)

# Of AdamW for networks of layer norms, Li et al. 2022 (ViTDet), appendix A.2.
LAYER_NORM_RATE = 1e-4
LAYER_NORM_WEIGHT_DECAY = 0.1


class FineTunedNetwork(TrainableModule):
    """A task's network on an encoder; a subclass adds its head, `transform` and `loss`.

    Args:
        encoder: trained with the head, unless `frozen`.
        frozen: whether it keeps its weights and statistics.
    """

    def __init__(self, encoder: Encoder, frozen: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.frozen = frozen
        encoder.requires_grad_(not frozen)

    @abstractmethod
    def loss(self, batch: Any) -> Tensor:
        """The loss of a collated batch, a scalar; runs on the device."""

    def objectives(self) -> dict[str, Objective]:
        """One loss for all parameters that are not frozen; a transformer's rates fall by block."""
        trained = [p for p in self.parameters() if p.requires_grad]
        transformer = transformer_of(self.encoder)
        if transformer is None:
            return {"loss": Objective(self.loss, trained)}
        rates = layer_rates(transformer)
        return {"loss": Objective(self.loss, trained, rates, embeddings(transformer))}

    def train(self, mode: bool = True) -> FineTunedNetwork:
        """Switch to training; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self


def suited(settings: FineTuning, encoder: Encoder) -> FineTuning:
    """The settings for an encoder: networks of layer norms, such as transformers, need AdamW.

    A suite that has another optimizer gets AdamW for them, as Li et al. 2022 (ViTDet, appendix A.2)
    have it: the weight decay is 0.1, and the learning rates are as many and as far apart as the
    suite's, with 1e-4 in the middle.
    """
    norms = (isinstance(module, nn.LayerNorm) for module in encoder.modules())
    if settings.optimizer == "adamw" or not any(norms):
        return settings
    middle = settings.learning_rates[len(settings.learning_rates) // 2]
    return settings.model_copy(
        update={
            "optimizer": "adamw",
            "betas": (0.9, 0.999),
            "weight_decay": LAYER_NORM_WEIGHT_DECAY,
            "learning_rates": tuple(
                LAYER_NORM_RATE * rate / middle for rate in settings.learning_rates
            ),
        }
    )


def finite(outputs: Tensor) -> Tensor:
    """The outputs of a network that did not diverge.

    Raises:
        NonFiniteLossError: it did.
    """
    if not bool(outputs.isfinite().all()):
        raise NonFiniteLossError("the network's outputs are not finite")
    return outputs


Network = TypeVar("Network", bound=FineTunedNetwork)


@dataclass(frozen=True)
class TuningResult(Generic[Network]):
    """The result of `tune`.

    Attributes:
        network: trained on the whole training split, in evaluation mode.
        learning_rate: the selected one.
        scores: of each learning rate that was tried, on the validation images; None where it
            diverged.
        trace: of the final fit.
    """

    network: Network
    learning_rate: float
    scores: list[float | None]
    trace: TrainingTrace


def tune(
    task: str,
    make: Callable[[], Network],
    score: Callable[[Network, Sequence[int]], float],
    images: ImageFiles,
    settings: FineTuning,
    context: Context,
    about: dict[str, Any],
) -> TuningResult[Network]:
    """Select the rate on held-out images of the training split, then train on the whole split.

    A single rate that no share of the budget is for is taken as given.

    Every finished training is cached, and a run that was killed resumes from there.

    Args:
        task: its name.
        make: a fresh network on a copy of the encoder that is scored.
        score: the main score of a network on some positions of the split, higher is better.
        images: the training split.
        settings: of the task.
        context: the cell.
        about: what else decides weights and scores. These are digests of the task's code, of the
            encoder and of the training split with its labels, and the classes.

    Raises:
        NonFiniteLossError: every rate diverged, or the selected one did on the whole split.
        UserError: no held-out image has an evaluated label.
    """
    fits = _Fits(task, make, images, settings, context, about)
    if settings.selection_fraction == 0:
        (given,) = settings.learning_rates
        network, trace = fits.final_fit(given)
        return TuningResult(network.eval(), given, [], trace)
    remaining, held_out = parted(len(images.files), settings.validation_fraction)
    scores = [
        fits.selection_score(score, rate, remaining, held_out.tolist())
        for rate in settings.learning_rates
    ]
    if not any(map(math.isfinite, scores)):
        raise NonFiniteLossError(
            f"{task}: diverged at every rate of {list(settings.learning_rates)}; {_remedy(task)}"
        )
    best = settings.learning_rates[int(np.nanargmax(scores))]
    network, trace = fits.final_fit(best)
    finite_scores = [s if math.isfinite(s) else None for s in scores]
    return TuningResult(network.eval(), best, finite_scores, trace)


def parted(images: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a training split to train on, and those held out: the same for every row.

    Args:
        images: how many there are.
        share: of them that is held out; at least one is.
    """
    order = np.random.default_rng(0).permutation(images)
    count = max(1, round(images * share))
    return np.sort(order[count:]), np.sort(order[:count])


def _remedy(task: str) -> str:
    return f"lower tasks.{task}.learning_rates"


@dataclass(frozen=True)
class _Fits(Generic[Network]):
    """The trainings of one task on one encoder, each from the cache or trained now."""

    task: str
    make: Callable[[], Network]
    images: ImageFiles
    settings: FineTuning
    context: Context
    about: dict[str, Any]

    def selection_score(
        self,
        score: Callable[[Network, Sequence[int]], float],
        rate: float,
        remaining: np.ndarray,
        held_out: list[int],
    ) -> float:
        """The score of one rate on the images held out; nan if it diverged."""
        job = self._job(rate, self.settings.selection_fraction, remaining, f"rate{rate:g}")
        path = self._path(job, ".json")
        cached = read_cached(path, self.context.reporter.say)
        if distributed.all_processes(cached is not None):
            assert cached is not None
            job.checkpoint.unlink(missing_ok=True)  # of a run that ended right after the score
            return float(json.loads(cached))
        try:
            network, _ = self._train(job, f"trying rate {rate:g}")
            value = score(network.eval(), held_out)
            if math.isnan(value):
                job.checkpoint.unlink(missing_ok=True)
                raise UserError(
                    f"the {len(held_out)} held-out images show nothing that counts; "
                    f"raise tasks.{self.task}.validation_fraction"
                )
        except NonFiniteLossError:
            value = math.nan
        value = distributed.broadcast(value)
        _write(path, json.dumps(value).encode())
        job.checkpoint.unlink(missing_ok=True)
        return value

    def final_fit(self, rate: float) -> tuple[Network, TrainingTrace]:
        """The network trained on the whole split, and its trace."""
        job = self._job(rate, 1.0, np.arange(len(self.images.files)))
        path = self._path(job, ".pt")
        cached = read_cached(path, self.context.reporter.say)
        if distributed.all_processes(cached is not None):
            assert cached is not None
            job.checkpoint.unlink(missing_ok=True)
            content = io.BytesIO(cached)
            state = torch.load(content, map_location=job.device, weights_only=True)
            network = self.make().to(job.device)
            network.load_state_dict(state["network"])
            return network, TypeAdapter(TrainingTrace).validate_python(state["trace"])
        network, history = self._train(job, f"fine-tuning, rate {rate:g}")
        assert history.trace is not None
        buffer = io.BytesIO()
        torch.save({"network": network.state_dict(), "trace": asdict(history.trace)}, buffer)
        _write(path, buffer.getvalue())
        job.checkpoint.unlink(missing_ok=True)
        return network, history.trace

    def _train(self, job: TrainingJob, stage: str) -> tuple[Network, Pretraining]:
        seed_everything(job.seed)
        network = self.make()
        trainer = Trainer(network, job)
        with self.context.reporter.stage(stage, job.recipe.views) as bar:
            history = trainer.run(bar)
        if not all(bool(t.isfinite().all()) for t in network.state_dict().values()):
            raise NonFiniteLossError(f"{job.name}: the network's weights are not finite")
        return network, history

    def _path(self, job: TrainingJob, suffix: str) -> Path:
        return self.context.cache / "finetuned" / f"{job.key[:32]}{suffix}"

    def _job(self, rate: float, share: float, positions: np.ndarray, part: str = "") -> TrainingJob:
        """One training on some positions of the split, at one rate, for a share of the budget."""
        context = self.context
        recipe = self.settings.recipe(rate, share)
        key = self._key(recipe, positions)
        files = tuple(self.images.files[position] for position in positions)
        return TrainingJob(
            name=f"{context.method}, {self.task}",
            recipe=recipe,
            images=replace(self.images, files=files, damaged="stop"),
            labels=positions,
            seed=context.seed,
            device=context.device,
            checkpoint=context.cache / "checkpoints" / f"{context.method}-{key[:24]}.pt",
            key=key,
            remedy=_remedy(self.task),
            tracking=context.run_tracking(part),
        )

    def _key(self, recipe: Recipe, positions: np.ndarray) -> str:
        """Digest of everything that decides the weights, but not how the rate is selected."""
        selection = {"learning_rates", "selection_fraction", "validation_fraction"}
        return digest(
            {
                **self.about,
                "settings": self.settings.model_dump(mode="json", exclude=selection),
                "recipe": recipe.model_dump(mode="json"),
                "images": [self.images.fingerprint, positions.tolist()],
                "seed": self.context.seed,
                "versions": library_versions(),
                "device": [self.context.device.type, fast_bfloat16(self.context.device)],
            }
        )


def _write(path: Path, content: bytes) -> None:
    """Write a file in the main process, before any process goes on."""
    if distributed.is_main():
        write_cached(path, content)
    distributed.barrier()
