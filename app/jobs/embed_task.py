"""The embedding jobs: load -> compute -> apply, with no session open while they compute.

A `reindex` is one too: of a task that has an embedding, through another probe.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from typing import cast

from app import tracing
from app.embedding.dataset import AskedLabelKind, read_labelled_images
from app.embedding.embed import embed_images
from app.embedding.strips import class_strips
from app.jobs.bench import Workbench
from app.jobs.progress import Progress
from app.jobs.sources import fetch_source
from app.limits import archive_limits
from app.settings import Settings
from app.store import archives, embeddings, jobs, strips, tasks
from app.store.blobs import Blob
from app.store.intake import Intake, of_embedding
from app.store.jobs import Start
from app.store.spaces import REINDEX


def recipe_digest(
    archives: tuple[Blob, ...], label_kind: str, space_id: str, precision: str, settings: Settings
) -> str:
    """SHA-256 of all that decides an embedding's numbers: who asks for the same may share it."""
    recipe = {
        "archives": [archive.sha256 for archive in archives],
        "label_kind": label_kind,
        "space_id": space_id,
        "estimator": settings.estimator,
        "precision": precision,
        "draws": settings.draws,
        "tolerance": settings.tolerance,
        "seed": settings.seed,
    }
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()


def embed(start: Start, bench: Workbench) -> None:
    settings = bench.settings
    probe = bench.probe(start.probe)  # first: what it takes to load is no part of any phase
    progress = Progress(
        bench.database,
        start,
        interval_seconds=settings.progress_interval_seconds,
        stopping=bench.stopping,
    )
    sent = start.archives or (_fetch(start, bench, progress),)
    recipe = recipe_digest(sent, start.label_kind, probe.space_id, probe.precision, settings)
    if _share(start, recipe, bench):
        return

    with ExitStack() as files:
        images, report = read_labelled_images(
            [files.enter_context(bench.blobs.open(archive.sha256)) for archive in sent],
            size=probe.card.input_size,
            label_kind=cast("AskedLabelKind", start.label_kind),
            limits=archive_limits(settings),
            max_image_pixels=settings.max_image_pixels,
            decoders=settings.threads or None,
            on_progress=lambda done, total: progress("intake", done, total),
        )
    embedding = embed_images(
        images,
        probe,
        estimator=settings.estimator,
        draws=settings.draws,
        tolerance=settings.tolerance,
        seed=settings.seed,
        memory_mib=settings.embedding_memory_mib,
        on_progress=lambda step: progress(step.phase, step.done, step.total),
    )
    intake = Intake(
        label_kind=images.label_kind,
        n_images=len(images.labels),
        n_classes=len(images.classes),
        summary=report.summary(),
        files=report.files,
    )
    pictures = class_strips(images)
    tracing.phase("store")
    with bench.database.session() as session:
        # The fence first: a worker that lost the job leaves no row behind.
        jobs.hold(session, start.job_id, start.token)
        row = embeddings.add(session, start.tenant, recipe, embedding)
        strips.keep(session, row, pictures)
        jobs.finish_job(
            session, start.job_id, start.token, "succeeded", intake=intake, embedding=row
        )


def _share(start: Start, recipe: str, bench: Workbench) -> bool:
    """Ends the job with the embedding of an earlier task of the same bytes, if there is one."""
    with bench.database.session() as session:
        row = embeddings.find(session, start.tenant, recipe)
        intake = None if row is None else of_embedding(session, row.seq)
        if row is None or (intake is None and start.kind != REINDEX):  # a reindex has its task's
            return False
        jobs.finish_job(
            session, start.job_id, start.token, "succeeded", intake=intake, embedding=row
        )
    return True


def _fetch(start: Start, bench: Workbench, progress: Progress) -> Blob:
    archive = fetch_source(
        start.source or "",
        prefixes=bench.settings.source_prefixes,
        networks=bench.settings.source_networks,
        blobs=bench.blobs,
        max_bytes=bench.settings.max_upload_bytes,
        on_bytes=lambda done, total: progress("fetch", done, total),
    )
    with bench.database.session() as session:
        archives.require_kept(session, bench.blobs, archive.sha256)
        tasks.attach_archive(session, start.job_id, start.token, archive)
    return archive
