"""From labelled images to a task embedding: features, head, Fisher, discriminants, errors."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from app import __version__
from app.embedding.batches import batch_size_for, in_batches
from app.embedding.dataset import LabelledImages
from app.embedding.discriminants import discriminants
from app.embedding.fisher import MOST_DRAWS, estimate_fisher, passes_of
from app.embedding.head import fit_head
from app.embedding.image import PREPROCESSING
from app.embedding.noise import noise_of
from app.embedding.probe import BATCH_SIZE, Probe
from app.embedding.spool import spooled
from app.embedding.vector import Estimator, Provenance, TaskEmbedding
from app.errors import InvalidRequest

TOLERANCE = 0.02
"""Twins of other images lie at ten times as much and more: the noise of draws does not show."""


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
    draws: int = MOST_DRAWS,
    tolerance: float | None = TOLERANCE,
    seed: int = 0,
    batch_size: int | None = None,
    memory_mib: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> TaskEmbedding:
    """The task's embedding in the probe's space; the same for any order and batch size.

    `draws`        at most so many cotangents an image, 1 to MOST_DRAWS; `exact` has none, and is
                   taken wherever it needs no more passes
    `tolerance`    noise floor (a cosine distance) at which drawing stops; None: at `draws`
    `batch_size`   images that run together, at least BATCH_SIZE; None: as memory allows. Where it
                   runs out after all, half as many go on
    `memory_mib`   of a GPU for the activations of a batch; None: half of what is free
    `on_progress`  called after every batch; what it raises (Cancelled, say) stops the work

    Raises InvalidRequest where draws, batch size or the images' size do not fit.
    """
    batch_size = batch_size or batch_size_for(probe, memory_mib)
    _check(images, probe, draws, tolerance, batch_size)
    report = on_progress or (lambda progress: None)
    started = time.perf_counter()
    n, n_classes = len(images.digests), len(images.classes)
    if tolerance is None and passes_of("exact", draws, images.label_kind, n_classes) <= draws:
        estimator = "exact"

    kinds = probe.response_kinds
    features = spooled((n, probe.n_features), np.float32)
    responses = spooled((n, len(kinds)), np.float32)
    for rows, found in in_batches(
        np.arange(n), batch_size, lambda part: probe.look(images.pixels[part])
    ):
        features[rows], responses[rows] = (seen.float().numpy(force=True) for seen in found)
        report(Progress("features", int(rows[-1]) + 1, n))
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
        tolerance=tolerance,
        seed=seed,
        batch_size=batch_size,
        on_batch=lambda done: report(Progress("fisher", done, n)),
    )
    return TaskEmbedding(
        vector=fisher.vector.astype(np.float32),
        domain=fisher.domain.astype(np.float32),
        discriminants=discriminants(responses, kinds, images.labels, n_classes, images.digests),
        draw_error=fisher.draw_error.astype(np.float32),
        sampling_error=fisher.sampling_error.astype(np.float32),
        noise=noise_of(
            fisher.vector,
            fisher.draw_error,
            fisher.domain,
            fisher.domain_error,
            probe.card.epsilon,
            seed,
        ),
        epsilon=probe.card.epsilon,
        space_id=probe.space_id,
        provenance=Provenance(
            probe=probe.card.name,
            probe_digest=probe.digest,
            preprocessing=PREPROCESSING,
            estimator=fisher.estimator,
            draws=fisher.draws,
            stopped=fisher.stopped,
            tolerance=tolerance,
            seed=seed,
            n_images=n,
            n_classes=n_classes,
            label_kind=images.label_kind,
            penalty=head.penalty,
            cv_log_likelihood=head.cv_log_likelihood,
            cv_accuracy=head.cv_accuracy,
            code_version=__version__,
            device=str(probe.device),
            precision=probe.precision,
            seconds=time.perf_counter() - started,
        ),
    )


def _check(
    images: LabelledImages, probe: Probe, draws: int, tolerance: float | None, batch_size: int
) -> None:
    size = probe.card.input_size
    if images.pixels.shape[1:] != (size, size, 3):
        raise InvalidRequest(
            "image-size",
            f"The images are {images.pixels.shape[1:]}, the probe {probe.card.name} takes "
            f"({size}, {size}, 3).",
            "Read the images at the probe's input size.",
        )
    if not 1 <= draws <= MOST_DRAWS:
        raise InvalidRequest(
            "draws-out-of-range",
            f"{draws} draws an image were asked for.",
            f"Ask for 1 to {MOST_DRAWS}; for more, use `exact`.",
        )
    if tolerance is not None and not 0 < tolerance < 1:
        raise InvalidRequest(
            "tolerance-out-of-range",
            f"The tolerance is {tolerance}.",
            "It is a cosine distance: more than 0 and less than 1.",
        )
    if batch_size < BATCH_SIZE:
        raise InvalidRequest(
            "batch-size-out-of-range",
            f"The batch size is {batch_size}.",
            f"Use at least {BATCH_SIZE}: smaller batches round differently.",
        )
