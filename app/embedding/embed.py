"""From labelled images to a task embedding: features, head, Fisher, errors, provenance."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app import __version__
from app.embedding.dataset import LabelledImages
from app.embedding.distance import one_to_one
from app.embedding.fisher import estimate_fisher, passes_of
from app.embedding.head import fit_head
from app.embedding.image import PREPROCESSING
from app.embedding.probe import BATCH_SIZE, Probe
from app.embedding.vector import Estimator, Provenance, TaskEmbedding
from app.errors import InvalidRequest

NOISE_REPLICATES = 16


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` in a phase: images for `features` and `fisher`, steps for `head`."""

    phase: str
    done: int
    total: int


def embed_images(
    images: LabelledImages,
    probe: Probe,
    *,
    estimator: Estimator = "hutchinson",
    draws: int = 2,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    on_progress: Callable[[Progress], None] | None = None,
) -> TaskEmbedding:
    """The task's embedding in the probe's space; the same for any order and batch size.

    `batch_size`   images that run together, at least BATCH_SIZE
    `draws`        cotangents an image for `hutchinson` and `mc`, at least 2: their spread is the
                   draw error. `exact` has none, and is taken wherever it needs no more passes than
                   the draws would
    `on_progress`  called after every batch; what it raises (Cancelled, say) stops the work

    Raises InvalidRequest where draws, batch size or the images' size do not fit.
    """
    _check(images, probe, estimator, draws, batch_size)
    report = on_progress or (lambda progress: None)
    started = time.perf_counter()
    n, n_classes = len(images.digests), len(images.classes)
    if passes_of("exact", draws, images.label_kind, n_classes) <= draws:
        estimator = "exact"

    features = np.empty((n, probe.n_features), np.float32)
    for start in range(0, n, batch_size):
        rows = slice(start, start + batch_size)
        features[rows] = probe.features(images.pixels[rows]).numpy(force=True)
        report(Progress("features", min(start + batch_size, n), n))
    head = fit_head(
        features,
        images.labels,
        n_classes,
        images.digests,
        on_progress=lambda done, total: report(Progress("head", done, total)),
    )
    fisher = estimate_fisher(
        images,
        probe,
        head,
        features,
        estimator=estimator,
        draws=draws,
        seed=seed,
        batch_size=batch_size,
        on_batch=lambda done: report(Progress("fisher", done, n)),
    )
    return TaskEmbedding(
        vector=fisher.vector.astype(np.float32),
        domain=fisher.domain.astype(np.float32),
        draw_error=fisher.draw_error.astype(np.float32),
        sampling_error=fisher.sampling_error.astype(np.float32),
        noise_floor=noise_floor(fisher.vector, fisher.draw_error, probe.card.epsilon, seed),
        epsilon=probe.card.epsilon,
        space_id=probe.space_id,
        provenance=Provenance(
            probe=probe.card.name,
            probe_digest=probe.digest,
            preprocessing=PREPROCESSING,
            estimator=estimator,
            draws=passes_of(estimator, draws, images.label_kind, n_classes),
            seed=seed,
            n_images=n,
            n_classes=n_classes,
            label_kind=images.label_kind,
            penalty=head.penalty,
            cv_log_likelihood=head.cv_log_likelihood,
            cv_accuracy=head.cv_accuracy,
            code_version=__version__,
            device=str(probe.device),
            seconds=time.perf_counter() - started,
        ),
    )


def noise_floor(
    vector: npt.NDArray[np.float64],
    draw_error: npt.NDArray[np.float64],
    epsilon: float,
    seed: int,
) -> float:
    """Cosine distance expected between two embeddings of one task from fresh draws.

    By parametric bootstrap: pairs of vectors whose entries are gamma distributed with these means
    and standard errors, which keeps them positive and dead filters at zero.
    """
    if not draw_error.any():
        return 0.0
    alive = (vector > 0) & (draw_error > 0)
    mean, variance = vector[alive], draw_error[alive] ** 2
    generator = np.random.default_rng(seed)
    distances = []
    for _ in range(NOISE_REPLICATES):
        pair = np.stack([vector, vector])
        pair[:, alive] = generator.gamma(mean**2 / variance, variance / mean, (2, len(mean)))
        distances.append(one_to_one(pair[0], pair[1], "cosine", epsilon=epsilon))
    return float(np.mean(distances))


def _check(
    images: LabelledImages, probe: Probe, estimator: Estimator, draws: int, batch_size: int
) -> None:
    size = probe.card.input_size
    if images.pixels.shape[1:] != (size, size, 3):
        raise InvalidRequest(
            "image-size",
            f"The images are {images.pixels.shape[1:]}, the probe {probe.card.name} takes "
            f"({size}, {size}, 3).",
            "Read the images at the probe's input size.",
        )
    if estimator != "exact" and not 2 <= draws <= 16:
        raise InvalidRequest(
            "draws-out-of-range",
            f"{draws} draws an image were asked for.",
            "Ask for 2 to 16: the draw error needs two; for more, use `exact`.",
        )
    if batch_size < BATCH_SIZE:
        raise InvalidRequest(
            "batch-size-out-of-range",
            f"The batch size is {batch_size}.",
            f"Use at least {BATCH_SIZE}: smaller batches round differently.",
        )
