"""The scoring job: load -> look at the task's images through each candidate -> apply, one by one.

Killed, it goes on with the candidates that are left. One whose weights cannot be had is no reason
to leave the others: its row says why.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import torch
from sqlalchemy.exc import OperationalError

from app.catalogue import CandidateCard
from app.cost.score_names import Score
from app.embedding.batches import is_out_of_memory
from app.embedding.dataset import LabelledImages
from app.embedding.probe import choose_device
from app.errors import (
    Cancelled,
    Conflict,
    InvalidRequest,
    NotFound,
    Task2VecError,
    Unavailable,
)
from app.jobs.bench import Workbench
from app.jobs.progress import FETCHING, SCORING, Progress
from app.jobs.stored import stored_images, stored_model
from app.store import finetunes, jobs
from app.store import scores as store
from app.store.jobs import Start
from app.store.tables import CandidateScore
from app.telemetry import log_event
from app.training.model import candidate_network, must_be_fetched
from app.training.told import BATCH_SIZE, told_by

MOST_IMAGES, LEAST_OF_A_CLASS = 1000, 5
"""Of a task, the same share of every class: more would change little of what is told. With very
many classes there are more: of one image nothing is told but its own answer."""


def score(start: Start, bench: Workbench) -> None:
    """Ends the job once every candidate has its scores, or a reason for having none."""
    with bench.database.session(read_only=True) as session:
        rows = [_Row.of(row) for row in store.of_job(session, start.job_id)]
    progress = Progress(
        bench.database,
        start,
        interval_seconds=bench.settings.progress_interval_seconds,
        stopping=bench.stopping,
    )
    device = choose_device(bench.settings.device)
    done = 0
    rows.sort(key=lambda row: row.read_from)
    for (archives, size), alike in groupby(rows, lambda row: row.read_from):
        images = stored_images(
            start,
            archives,
            size,
            bench,
            progress,
            most=MOST_IMAGES,
            least_of_a_class=LEAST_OF_A_CLASS,
        )
        n = len(images.digests)
        for row in alike:

            def heard(seen: int, before: int = done, images: int = n) -> None:
                progress(SCORING, before * images + seen, len(rows) * images)

            if must_be_fetched(row.card):
                progress(FETCHING, done * n, len(rows) * n)
            told = _told(row.card, images, partial(_scores, start, bench, row.card, device, heard))
            with bench.database.session() as session:
                store.tell(session, start.job_id, start.token, row.seq, **told)
            done += 1
    with bench.database.session() as session:
        jobs.finish_job(session, start.job_id, start.token, "succeeded")


@dataclass(frozen=True, slots=True)
class _Row:
    seq: int
    card: CandidateCard
    archives: tuple[str, ...]

    @classmethod
    def of(cls, row: CandidateScore) -> _Row:
        card = CandidateCard.model_validate(row.card, strict=False)
        return cls(row.seq, card, tuple(row.archives))

    @property
    def read_from(self) -> tuple[tuple[str, ...], int]:
        return self.archives, self.card.input_size


def _told(
    card: CandidateCard,
    images: LabelledImages,
    scores: Callable[[LabelledImages], Mapping[Score, float]],
) -> dict[str, Any]:
    """What goes into its row: what is wrong with one candidate is no reason to leave the others."""
    try:
        return {"n_images": len(images.digests), "scores": scores(images)}
    except (Cancelled, Conflict, OperationalError, OSError):
        raise  # of the job
    except (InvalidRequest, NotFound, Unavailable) as error:
        return {"problem": error.problem()}
    except Exception as error:
        if is_out_of_memory(error):
            what = f"{BATCH_SIZE} images do not fit in memory with {card.name}."
            remedy = "Ask again when the worker has less to do, or leave this candidate out."
            return {"problem": Unavailable("memory-exhausted", what, remedy).problem()}
        log_event("score.failed", level=logging.ERROR, exc_info=True, candidate=card.name)
        what = f"The worker could not look through {card.name}."
        remedy = "Leave this candidate out, and tell the operator, whose log says why."
        return {"problem": Task2VecError("internal", what, remedy).problem()}


def _scores(
    start: Start,
    bench: Workbench,
    card: CandidateCard,
    device: torch.device,
    heard: Callable[[int], None],
    images: LabelledImages,
) -> dict[Score, float]:
    with bench.database.session(read_only=True) as session:
        run = finetunes.run_of(session, start.tenant, card)
        has_classes = run is None or run.task.label_kind == "single_label"
    with stored_model(run, bench) if run else nullcontext() as directory:
        network = candidate_network(card, directory)
    return told_by(network, images, device, has_classes=has_classes, on_images=heard)
