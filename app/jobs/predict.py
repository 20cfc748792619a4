"""The classifying job: load a run's model -> look at images -> apply. Killed, it begins anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from app.catalogue import DeviceCard, RecipeCard
from app.embedding.probe import choose_device
from app.embedding.unlabelled import read_images
from app.errors import TooLarge
from app.jobs.bench import Workbench
from app.jobs.progress import PREDICTING, Progress
from app.jobs.stored import stored_model
from app.limits import archive_limits
from app.store import predictions
from app.store.jobs import Start
from app.store.predictions import Listed
from app.training.model import read_model
from app.training.predict import predict

MOST_LISTED = 1_000_000
"""Probabilities of one answer, which is a row of the database: five of each file that an archive
may hold."""
DIGITS = 6


def classify(start: Start, bench: Workbench) -> None:
    """Ends the job with what the model makes of every image."""
    settings = bench.settings
    with bench.database.session(read_only=True) as session:
        row = predictions.of_job(session, start.job_id)
        run = row.finetune
        recipe = RecipeCard.model_validate(run.recipe, strict=False)
        trained_on = DeviceCard.model_validate(run.device, strict=False)
    progress = Progress(
        bench.database,
        start,
        interval_seconds=settings.progress_interval_seconds,
        stopping=bench.stopping,
    )
    with stored_model(run, bench) as directory:
        model = read_model(directory)
    with bench.blobs.open(row.sha256) as file:
        images = read_images(
            file,
            row.name,
            size=model.input_size,
            limits=archive_limits(settings),
            max_image_pixels=settings.max_image_pixels,
            decoders=settings.threads or None,
            on_progress=lambda done, total: progress("reading", done, total),
        )
    several = model.label_kind == "multi_label"
    files = np.bincount(list(images.rows.values()), minlength=len(images.pixels))
    listed: list[Listed] = []
    n_listed = 0
    for probabilities in predict(
        model,
        images.pixels,
        device=choose_device(settings.device),
        precision=trained_on.precision,
        batch_size=recipe.batch_size,
        on_images=lambda done, total: progress(PREDICTING, done, total),
    ):
        for found in above(probabilities, row.threshold) if several else top(probabilities, row.k):
            n_files = int(files[len(listed)])
            n_listed += n_files * len(found)
            if n_listed > MOST_LISTED:
                raise _too_many(several)
            listed.append(found if n_files else [])  # none where it could not be read
    result: dict[str, Any] = {
        "label_kind": model.label_kind,
        "classes": list(model.classes),
        **predictions.packed(listed),
        "images": images.rows,
        "refused": images.refused,
    }
    with bench.database.session() as session:
        predictions.finish(session, start.job_id, start.token, result)


def top(probabilities: npt.NDArray[np.float64], k: int) -> Iterator[Listed]:
    """Of each image (C,) the k most probable classes; of equals the first."""
    for image in probabilities:
        yield _listed(image, np.argsort(-image, kind="stable")[:k])


def above(probabilities: npt.NDArray[np.float64], threshold: float) -> Iterator[Listed]:
    """Of each image (C,) the classes more probable than that."""
    for image in probabilities:
        order = np.argsort(-image, kind="stable")
        yield _listed(image, order[image[order] > threshold])


def _listed(image: npt.NDArray[np.float64], numbers: npt.NDArray[np.int64]) -> Listed:
    return [(int(number), round(float(image[number]), DIGITS)) for number in numbers]


def _too_many(several: bool) -> TooLarge:
    return TooLarge(
        "too-many-probabilities",
        f"The answer would list more than {MOST_LISTED:,} probabilities.",
        f"Send fewer images at a time, or {'raise `threshold`' if several else 'lower `k`'}.",
    )
