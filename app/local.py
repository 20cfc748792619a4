"""Embeddings and distances on this machine, without a service. Only embedding needs torch."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from app.catalogue import ProbeCard, get_card
from app.embedding.dataset import AskedLabelKind, read_labelled_images
from app.embedding.distance import default_metric, get_metric, pairwise
from app.embedding.parts import Population, row_of
from app.embedding.report import IntakeReport
from app.embedding.vector import TaskEmbedding, require_one_space
from app.folder import Archive, open_archive
from app.limits import archive_limits
from app.settings import Settings

OnProgress = Callable[[str, int, int], None]


def embed_here(
    archive: Path | Archive, settings: Settings, label_kind: AskedLabelKind, on_progress: OnProgress
) -> tuple[TaskEmbedding, IntakeReport]:
    import torch

    from app.embedding.embed import embed_images
    from app.embedding.probe import choose_device, choose_dtype, load_probe

    if settings.threads:
        torch.set_num_threads(settings.threads)
    card = get_card(settings.models_dir, ProbeCard, settings.probe)
    with _seekable(archive) as file:
        images, report = read_labelled_images(
            [file],
            size=card.input_size,
            label_kind=label_kind,
            limits=archive_limits(settings),
            max_image_pixels=settings.max_image_pixels,
            decoders=settings.threads or None,
            on_progress=lambda done, total: on_progress("intake", done, total),
        )
    on_progress("loading the probe", 0, 0)
    dtype = choose_dtype(settings.precision, choose_device(settings.device))
    embedding = embed_images(
        images,
        load_probe(card, settings.device, dtype),
        estimator=settings.estimator,
        draws=settings.draws,
        tolerance=settings.tolerance,
        seed=settings.seed,
        memory_mib=settings.embedding_memory_mib,
        on_progress=lambda step: on_progress(step.phase, step.done, step.total),
    )
    return embedding, report


def write_embedding(path: Path, embedding: TaskEmbedding) -> None:
    """All or nothing: a file that is there is a whole one."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(embedding.to_npz())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def compare_here(
    embeddings: Sequence[TaskEmbedding], metric: str | None, models_dir: Path
) -> dict[str, Any]:
    """What `POST /v1/distances` answers, without its tasks."""
    space_id = require_one_space([embedding.space_id for embedding in embeddings])
    trivial, population = _of_library(models_dir, space_id)
    chosen = get_metric(metric or default_metric(population))
    whole = chosen.compares == "parts"
    distances = pairwise(
        np.stack([row_of(each) if whole else each.vector for each in embeddings]),
        chosen.name,
        epsilon=embeddings[0].epsilon,
        trivial=trivial,
        population=population,
    )
    return {
        "metric": chosen.name,
        "symmetric": chosen.symmetric,
        "space_id": space_id,
        "distances": distances.tolist(),
    }


def _of_library(models_dir: Path, space_id: str) -> tuple[float | None, Population | None]:
    """t0 of the asymmetric distance and the population, as the space's library states them."""
    for path in sorted((models_dir / "reference").glob("*.npz")):
        with np.load(path, allow_pickle=False) as library:
            if str(library["space_id"]) != space_id:
                continue
            trivial = float(library["trivial"])
            if "population_label" not in library:
                return trivial, None
            means = library["population_label"], library["population_domain"]
            return trivial, Population(*means)
    return None, None


@contextmanager
def _seekable(archive: Path | Archive) -> Iterator[BinaryIO]:
    if isinstance(archive, Path) and not archive.is_dir():
        with archive.open("rb") as file:
            yield file
        return
    with tempfile.TemporaryFile() as copy, open_archive(archive) as made:
        shutil.copyfileobj(made, copy)
        copy.seek(0)
        yield copy
