"""What a fine-tuning run consists of: images, batches, FLOPs, bytes and kernels, before any device.

Everything here is counted or follows from counts; time, money and the doubt about them are the
predictor's. Classifier: C classes on F features, C (F + 1) parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Literal

from app.catalogue import CandidateCard, RecipeCard
from app.errors import InvalidRequest

FLOPS_PER_MULTIPLY_ADD = 2
FLOAT32_BYTES = 4

CLASSIFIER_STEP_KERNELS = 20
"""Linear layer, loss, their gradients and a fused optimiser step."""

REFERENCE_PIXELS = 500 * 375
"""Of the JPEG that a device's rate of decoding is of."""

DECODED_AT_ALL = 0.2
"""Share of that JPEG's decoding that an image takes however small it is; the rest goes by pixels.
By benchmarks/decoding.py, JPEGs of 187,500 pixels to 12 million: within 12%. Small ones are faster
by up to 2.5 times, large PNGs slower by up to 3."""

OPTIMISER_STATES = {"adamw": 2, "sgd": 1}
"""Numbers kept per trained parameter: two moments, one momentum."""

OPTIMISER_PASSES = {"adamw": 7, "sgd": 5}
"""Arrays read and written per step: weight, gradient and states in; weight and states out."""


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What an estimate needs to know of a task; `complexity` waits for a predictor that uses it.

    `mean_pixels`  of an image file, before it is resized; None where nobody looked
    """

    n_images: int
    n_classes: int
    complexity: float | None
    label_kind: Literal["single_label", "multi_label"]
    mean_pixels: float | None = None

    def __post_init__(self) -> None:
        if self.n_images < 1 or self.n_classes < 1:
            raise InvalidRequest(
                "task-empty",
                f"{self.n_images} images in {self.n_classes} classes cannot be estimated.",
                "Give at least one image and one class.",
            )

    @property
    def decode_effort(self) -> float:
        """What decoding one image takes, in JPEGs of REFERENCE_PIXELS; 1 where that is not known.
        Linear in the mean, so that a mean of unequal images serves as well as all of them."""
        if self.mean_pixels is None:
            return 1.0
        return DECODED_AT_ALL + (1 - DECODED_AT_ALL) * self.mean_pixels / REFERENCE_PIXELS


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of a run.

    `flops`             floating-point operations, 2 per multiply-add
    `activation_bytes`  read and written by operations, as fp32
    `weight_bytes`      weights, gradients and optimiser states read and written, fp32
    `kernels`           operations launched
    `decoded_images`    image files read and decoded
    `decoding`          the same in JPEGs of REFERENCE_PIXELS
    """

    name: Literal["training", "evaluation", "features", "classifier", "inference"]
    flops: float
    activation_bytes: float
    weight_bytes: float
    kernels: int
    decoded_images: int = 0
    decoding: float = 0.0


@dataclass(frozen=True, slots=True)
class Split:
    """How the images are divided and walked through; a batch is never larger than the set."""

    train_images: int
    held_out_images: int
    batch_size: int
    steps: int


@dataclass(frozen=True, slots=True)
class Workload:
    """A whole run: its phases, and what memory holds at its fullest.

    `resident_bytes`   weights, gradients and optimiser states, fp32
    `bytes_per_image`  activations of one image of a batch, as fp32
    """

    split: Split
    phases: tuple[Phase, ...]
    resident_bytes: int
    bytes_per_image: int


def split(task: TaskFacts, recipe: RecipeCard) -> Split:
    """steps = epochs * ceil(train_images / batch); at least one image is left for training."""
    held_out = min(round(task.n_images * recipe.evaluation_share), task.n_images - 1)
    train = task.n_images - held_out
    batch = recipe.batch_of(train)
    return Split(train, held_out, batch, recipe.epochs * ceil(train / batch))


def workload(task: TaskFacts, candidate: CandidateCard, recipe: RecipeCard) -> Workload:
    """Count a run. Held-out images are evaluated after every epoch."""
    parts = split(task, recipe)
    classifier = classifier_parameters(task, candidate)
    if recipe.scope == "full":
        trained = candidate.parameters + classifier
        bytes_per_image = candidate.activation_bytes
        phases = (
            _training(task, candidate, recipe, parts),
            _forward("evaluation", task, candidate, parts.held_out_images, recipe.epochs, parts),
        )
    else:
        trained = classifier
        bytes_per_image = candidate.largest_operation_bytes
        times = 1 if recipe.features_cached else recipe.epochs
        phases = (
            _forward("features", task, candidate, task.n_images, times, parts),
            _classifier(task, candidate, recipe, parts),
        )
    gradient_and_states = 1 + OPTIMISER_STATES[recipe.optimiser]
    kept = candidate.parameters + classifier + gradient_and_states * trained
    return Workload(parts, phases, FLOAT32_BYTES * kept, bytes_per_image)


def inference(candidate: CandidateCard) -> Phase:
    """One image through the network, decoded already, alone in its batch."""
    return Phase(
        name="inference",
        flops=float(FLOPS_PER_MULTIPLY_ADD * candidate.multiply_adds),
        activation_bytes=float(candidate.forward_bytes),
        weight_bytes=float(FLOAT32_BYTES * candidate.parameters),
        kernels=candidate.forward_operations,
    )


def classifier_parameters(task: TaskFacts, candidate: CandidateCard) -> int:
    return task.n_classes * (candidate.head_features + 1)


def _training(task: TaskFacts, candidate: CandidateCard, recipe: RecipeCard, parts: Split) -> Phase:
    """Forward, full backward and optimiser; a linear layer's backward costs two forwards."""
    seen = parts.train_images * recipe.epochs
    multiply_adds = candidate.training_multiply_adds + 3 * task.n_classes * candidate.head_features
    weights = candidate.parameters + classifier_parameters(task, candidate)
    weight_passes = 3 + OPTIMISER_PASSES[recipe.optimiser]  # forward, backward, gradient out
    return Phase(
        name="training",
        flops=float(FLOPS_PER_MULTIPLY_ADD * multiply_adds * seen),
        activation_bytes=float(candidate.training_bytes * seen),
        weight_bytes=float(FLOAT32_BYTES * weights * weight_passes * parts.steps),
        kernels=parts.steps * (candidate.training_operations + CLASSIFIER_STEP_KERNELS),
        decoded_images=seen,
        decoding=seen * task.decode_effort,
    )


def _forward(
    name: Literal["evaluation", "features"],
    task: TaskFacts,
    candidate: CandidateCard,
    images: int,
    times: int,
    parts: Split,
) -> Phase:
    """The network alone, without gradients. The classifier's share is lost in the network's."""
    seen, batches = images * times, ceil(images / parts.batch_size) * times
    return Phase(
        name=name,
        flops=float(FLOPS_PER_MULTIPLY_ADD * candidate.multiply_adds * seen),
        activation_bytes=float(candidate.forward_bytes * seen),
        weight_bytes=float(FLOAT32_BYTES * candidate.parameters * batches),
        kernels=batches * candidate.forward_operations,
        decoded_images=seen,
        decoding=seen * task.decode_effort,
    )


def _classifier(
    task: TaskFacts, candidate: CandidateCard, recipe: RecipeCard, parts: Split
) -> Phase:
    """Fit on features already there: forward and weight gradient each read them once; no gradient
    of the input. Held-out features pass forward once an epoch."""
    reads = recipe.epochs * (2 * parts.train_images + parts.held_out_images)
    weight_passes = 2 + OPTIMISER_PASSES[recipe.optimiser]
    weights = classifier_parameters(task, candidate)
    return Phase(
        name="classifier",
        flops=float(FLOPS_PER_MULTIPLY_ADD * task.n_classes * candidate.head_features * reads),
        activation_bytes=float(FLOAT32_BYTES * candidate.head_features * reads),
        weight_bytes=float(FLOAT32_BYTES * weights * weight_passes * parts.steps),
        kernels=parts.steps * CLASSIFIER_STEP_KERNELS,
    )
