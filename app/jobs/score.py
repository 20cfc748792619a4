"""The scoring job: load -> look at the task's images through each candidate -> apply, one by one.

Killed, it goes on with the candidates that are left. One whose weights cannot be had is no reason
to leave the others: its row says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import groupby
from typing import Any, cast

import numpy as np
import torch

from app.catalogue import CandidateCard
from app.cost.score_names import Score
from app.cost.scores import scores
from app.embedding.batches import is_out_of_memory
from app.embedding.dataset import AskedLabelKind, LabelledImages, read_labelled_images
from app.embedding.pretrained import pretrained
from app.embedding.probe import choose_device
from app.errors import InvalidRequest, Task2VecError, Unavailable
from app.jobs.bench import Workbench
from app.jobs.progress import SCORING, Progress
from app.limits import archive_limits
from app.store import jobs
from app.store import scores as store
from app.store.jobs import Start
from app.training.frozen import frozen_outputs
from app.training.images import Batches

MOST_IMAGES = 1000
"""Of a task, the same share of every class: more would change little of what is told."""
BATCH_SIZE = 32


def score(start: Start, bench: Workbench) -> None:
    """Ends the job once every candidate has its scores, or a reason for having none."""
    with bench.database.session(read_only=True) as session:
        rows = [
            (row.seq, CandidateCard.model_validate(row.card, strict=False), tuple(row.archives))
            for row in store.of_job(session, start.job_id)
        ]
    progress = Progress(
        bench.database,
        start,
        interval_seconds=bench.settings.progress_interval_seconds,
        stopping=bench.stopping,
    )
    device = choose_device(bench.settings.device)
    done = 0
    rows.sort(key=lambda row: (row[2], row[1].input_size, row[0]))
    for (archives, size), alike in groupby(rows, lambda row: (row[2], row[1].input_size)):
        images = _read(start, archives, size, bench, progress)
        n = len(images.digests)
        for seq, card, _ in alike:

            def heard(seen: int, before: int = done, images: int = n) -> None:
                progress(SCORING, before * images + seen, len(rows) * images)

            told = _told(images, card, device, heard)
            with bench.database.session() as session:
                store.tell(session, start.job_id, start.token, seq, **told)
            done += 1
    with bench.database.session() as session:
        jobs.finish_job(session, start.job_id, start.token, "succeeded")


def _told(
    images: LabelledImages,
    card: CandidateCard,
    device: torch.device,
    heard: Callable[[int], None],
) -> dict[str, Any]:
    try:
        return {"n_images": len(images.digests), "scores": _scores(images, card, device, heard)}
    except (InvalidRequest, Unavailable) as error:
        return {"problem": error.problem()}
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        full: Task2VecError = Unavailable(
            "memory-exhausted",
            f"{BATCH_SIZE} images do not fit in memory with {card.name}.",
            "Ask again when the worker has less to do, or leave this candidate out.",
        )
        return {"problem": full.problem()}


def _scores(
    images: LabelledImages,
    card: CandidateCard,
    device: torch.device,
    heard: Callable[[int], None],
) -> dict[Score, float]:
    network: Any = pretrained(card.network, card.weights, card.input_size, card.name)
    network.eval().to(device=device, memory_format=torch.channels_last)
    inputs = Batches.of(images, network, seed=0).judging(np.arange(len(images.digests)), BATCH_SIZE)
    features: list[torch.Tensor] = []
    logits: list[torch.Tensor] = []
    for some, theirs in frozen_outputs(network, inputs, device, "fp32"):
        features.append(some)
        logits.append(theirs)
        heard(sum(map(len, features)))
    of_source = torch.cat(logits).softmax(dim=1).numpy() if network.num_classes else None
    return scores(torch.cat(features).numpy(), images.labels, of_source)


def _read(
    start: Start, archives: Sequence[str], size: int, bench: Workbench, progress: Progress
) -> LabelledImages:
    with ExitStack() as files:
        images, _ = read_labelled_images(
            [files.enter_context(bench.blobs.open(sha256)) for sha256 in archives],
            size=size,
            label_kind=cast("AskedLabelKind", start.label_kind),
            limits=archive_limits(bench.settings),
            max_image_pixels=bench.settings.max_image_pixels,
            most=MOST_IMAGES,
            decoders=bench.settings.threads or None,
            on_progress=lambda done, total: progress("intake", done, total),
        )
    return images
