"""The history of an encoder: its budget, time, losses, and a trace that rounding cannot change."""

from __future__ import annotations

from dataclasses import dataclass, field

DAMAGED = "damaged_images"  # in `Pretraining.logged`: how many of the training images were skipped


@dataclass(frozen=True)
class LearningRates:
    """The learning rate of every step of a run.

    Attributes:
        first: of the first step.
        last: of the last step.
        maximum: over all steps.
        sha256: digest of all of them in order, with 9 significant digits each.
    """

    first: float
    last: float
    maximum: float
    sha256: str


@dataclass(frozen=True)
class TrainingTrace:
    """Trace of a training run: values that rounding cannot change.

    Two runs of the same code, seed and images have equal traces on any number of processes. Only
    the machines differ, and the losses drift, by rounding.

    Attributes:
        order: indices of the images of the first 3 batches, over all processes.
        pixels: for each of these batches, mean and standard deviation of every tensor of images, in
            the range that the loader gives (0 to 255 for bytes), to 6 significant digits.
        learning_rates: those of all steps.
        views: images that went through the encoder.
        losses: every loss at the first 10 steps, by name, averaged over processes.
        descents: by the same names, the inner product of gradient and weight change at these steps,
            per unit of learning rate; negative where the step descends.
        updates: by the same names, the steps of the whole run that changed the first weights.
        optimizers: by the same names, the kind of optimizer, and for each of its groups the
            settings that do not change and the number of weights, in words.
        machines: where the run was computed, in the order of its parts; one entry if it was not
            resumed elsewhere. Empty in records of before these were kept.
    """

    order: list[int]
    pixels: list[list[float]]
    learning_rates: LearningRates
    views: int
    losses: dict[str, list[float]]
    descents: dict[str, list[float]] = field(default_factory=dict)
    updates: dict[str, int] = field(default_factory=dict)
    optimizers: dict[str, str] = field(default_factory=dict)
    machines: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class LossCurve:
    """The losses of a run at 200 points or fewer.

    Attributes:
        steps: how many steps had been taken at each point, ascending.
        losses: by name, the mean over the steps since the point before.
    """

    steps: list[int]
    losses: dict[str, list[float]]


@dataclass(frozen=True)
class PretextScore:
    """How well a method solves its own task, beside an answer that needs no training.

    Both are means over the same validation images, which no encoder is trained on.

    Attributes:
        measure: what is measured, in words: "accuracy" or "squared error".
        higher_is_better: whether it is an accuracy, 0 to 1, and not an error.
        value: of the trained network.
        trivial_answer: what answers without training: "chance" or "the mean image".
        trivial: the same measure of this answer.
        low: of the improvement over it, the low end of a 95% interval; above 0 is better.
        high: its high end. The interval is normal: the mean of the images' differences, and 1.96
            standard errors on both sides.
        num_images: how many images.
    """

    measure: str
    higher_is_better: bool
    value: float
    trivial_answer: str
    trivial: float
    low: float
    high: float
    num_images: int

    @property
    def improves(self) -> bool:
        """Whether the network is better than the trivial answer, beyond the interval."""
        return self.low > 0


@dataclass(frozen=True)
class Pretraining:
    """Cost and outcome of a training run.

    Attributes:
        views_seen: images that went through the encoder, every view counted.
        seconds: wall time of the training loop, over all its runs.
        logged: losses and logged metrics, averaged over the last tenth of the run; `damaged_images`
            that turned out so in the run, where there were any.
        trace: what the run did; None for weights that were not trained here.
        loss_curve: the losses over the run; None for weights that were not trained here.
        pretext: the method's score at its own task; None where it has none, or the suite declares
            no validation images.
    """

    views_seen: int = 0
    seconds: float = 0.0
    logged: dict[str, float] = field(default_factory=dict)
    trace: TrainingTrace | None = None
    loss_curve: LossCurve | None = None
    pretext: PretextScore | None = None
