"""The fine-tuning job: load -> train -> apply, its checkpoints where any worker finds them.

Killed or handed back, it goes on in whatever worker takes it, from the last one that was put there.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sqlalchemy.exc import OperationalError

from app.catalogue import CandidateCard, DeviceCard, RecipeCard
from app.embedding.probe import choose_device
from app.errors import NO_SPACE, NotFound, Unavailable
from app.jobs.bench import Workbench
from app.jobs.progress import FETCHING, TRAINING, Progress
from app.jobs.stored import copy_blob, stored_images, stored_model
from app.store import archives, finetunes
from app.store.blobs import Blob, BlobStore
from app.store.finetunes import Asked
from app.store.jobs import Start
from app.store.outcomes import Run as OutcomeRun
from app.telemetry import log_event
from app.training.finetune import CHECKPOINT, Epoch, Limits, Run, fine_tune
from app.training.model import must_be_fetched
from app.training.names import FILES
from app.training.package import result_of, write_package

STOP_REASONS = {"patience": "converged", "recipe": "cap"}
"""In the outcome table's words: only who stopped by itself had nothing more to gain. A run that was
cut short by its target or budget does not show what the recipe gives, and is no outcome of it."""

CHECKPOINTS_SHARE = 0.05
"""Of a run's time, at most, goes into putting its checkpoints into the blob store."""


def finetune(start: Start, bench: Workbench) -> None:
    """Trains as it was asked for, and ends the job with an outcome."""
    with bench.database.session(read_only=True) as session:
        row = finetunes.of_job(session, start.job_id)
        finetune_id, task_name = row.id, row.task.name
        candidate = CandidateCard.model_validate(row.candidate, strict=False)
        recipe = RecipeCard.model_validate(row.recipe, strict=False)
        device = DeviceCard.model_validate(row.device, strict=False)
        asked, forecast, read_from = Asked(**row.asked), row.forecast, row.archives
        curve, checkpoint = list(row.curve), finetunes.files_of(row).get(finetunes.CHECKPOINT)
        parent = finetunes.run_of(session, start.tenant, candidate)
    progress = Progress(
        bench.database,
        start,
        interval_seconds=bench.settings.progress_interval_seconds,
        stopping=bench.stopping,
    )
    with ExitStack() as opened:
        directory = opened.enter_context(_scratch(bench.settings.finetune_dir / finetune_id))
        began = time.monotonic()
        images = stored_images(start, read_from, candidate.input_size, bench, progress)
        read_seconds = time.monotonic() - began
        if checkpoint is not None:
            with suppress(NotFound):  # lost, as by a restored backup: then from the beginning
                copy_blob(bench.blobs, checkpoint.sha256, directory / CHECKPOINT)
        told = _Told(start, bench, directory / CHECKPOINT, curve, checkpoint)
        if must_be_fetched(candidate):
            progress(FETCHING, 0, 1)
        run = fine_tune(
            images,
            candidate,
            recipe,
            directory,
            device=choose_device(bench.settings.device),
            model=opened.enter_context(stored_model(parent, bench)) if parent else None,
            precision=device.precision,
            seed=asked.seed,
            limits=Limits(asked.target, asked.patience, asked.budget_seconds),
            trace_every=asked.trace_every,
            on_features=lambda done, total: progress("features of the network", done, total),
            on_step=lambda done, total: progress(TRAINING, done, total),
            on_epoch=told,
        )
        run = replace(run, seconds=run.seconds + read_seconds)
        write_package(
            directory, run, candidate, recipe, images.classes, images.label_kind, task=task_name
        )
        files = {str(key): _put(bench.blobs, directory / file) for key, file in FILES.items()}
    whole = run.ended in STOP_REASONS
    outcome = _outcome(run, start, candidate, recipe, device) if whole else None
    with bench.database.session() as session:
        finetunes.finish(
            session,
            start.job_id,
            start.token,
            files=files,
            curve=[asdict(epoch) for epoch in run.curve],
            result=result_of(run, recipe),
            run=outcome,
            forecast=_for_steps(forecast, run, recipe),
        )
        archives.require_kept(session, bench.blobs, *(blob.sha256 for blob in files.values()))
    told.forget_checkpoint()


class _Told:
    """Hears of each epoch: writes it down, and where it is time puts its checkpoint into the store.

    What does not answer is no reason to stop: the next epoch tells of this one too. A run comes so
    far once its checkpoint is there, and not before: another worker has nothing else.
    """

    def __init__(
        self,
        start: Start,
        bench: Workbench,
        path: Path,
        curve: list[dict[str, Any]],
        checkpoint: Blob | None,
    ) -> None:
        self._start, self._bench = start, bench
        self._path, self._curve = path, curve
        self._checkpoint = checkpoint
        self._due_at = 0.0

    def __call__(self, epoch: Epoch) -> None:
        if epoch.number > len(self._curve):  # else it is made again, after the last checkpoint
            self._curve.append(asdict(epoch))
        began = time.monotonic()
        due = began >= self._due_at
        try:
            checkpoint = _put(self._bench.blobs, self._path) if due else None
            self._tell(checkpoint)
        except (OperationalError, Unavailable) as error:
            if isinstance(error, Unavailable) and error.code == NO_SPACE:
                raise
            log_event(
                "finetune.epoch_not_told",
                level=logging.WARNING,
                exc_info=True,
                job_id=self._start.job_id,
            )
        if due:
            now = time.monotonic()
            self._due_at = now + (now - began) / CHECKPOINTS_SHARE

    def _tell(self, checkpoint: Blob | None) -> None:
        start, blobs = self._start, self._bench.blobs
        with self._bench.database.session() as session:
            finetunes.tell(session, start.job_id, start.token, list(self._curve), checkpoint)
            if checkpoint is not None:
                archives.require_kept(session, blobs, checkpoint.sha256)
        if checkpoint is not None:
            self.forget_checkpoint()
            self._checkpoint = checkpoint

    def forget_checkpoint(self) -> None:
        """The last one, which nobody needs any more; where that fails, housekeeping does it."""
        if self._checkpoint is None:
            return
        with (
            suppress(OperationalError, Unavailable),
            self._bench.database.session() as session,
        ):
            archives.delete_unneeded(session, self._bench.blobs, [self._checkpoint.sha256])


@contextmanager
def _scratch(directory: Path) -> Iterator[Path]:
    """An empty folder, which goes again; that of a worker that was killed, by housekeeping."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _put(blobs: BlobStore, path: Path) -> Blob:
    with path.open("rb") as file:
        return blobs.put(file)


def _outcome(
    run: Run, start: Start, candidate: CandidateCard, recipe: RecipeCard, device: DeviceCard
) -> OutcomeRun:
    numbers = {
        "n_train": run.n_train,
        "n_held_out": run.n_held_out,
        "batch_size": recipe.batch_of(run.n_train),
        "learning_rate": recipe.learning_rate,
        "momentum": recipe.momentum if recipe.optimiser == "sgd" else None,
        "weight_decay": recipe.weight_decay,
        "max_epochs": recipe.epochs,
        "epochs": len(run.curve),
        "steps": run.steps,
        "seconds": run.seconds,
        "memory_mib": run.memory_mib,
    }
    return OutcomeRun(
        names={
            "task": start.task_id,
            "model": candidate.name,
            "recipe": recipe.name,
            "device": device.name,
            "metric": "accuracy",
            "stop_reason": STOP_REASONS[run.ended],
        },
        value=run.verdict.accuracy,
        numbers={name: float(number) for name, number in numbers.items() if number is not None},
    )


def _for_steps(
    forecast: Mapping[str, Any] | None, run: Run, recipe: RecipeCard
) -> dict[str, Any] | None:
    """What was counted, for as many steps as were made: corrections are learnt from such pairs.
    Features that are computed once take as long however few steps follow."""
    if forecast is None or recipe.features_cached:
        return None if forecast is None else dict(forecast)
    share = run.steps / forecast["steps"]["typical"]
    counted = {
        name: number if name == "memory_mib" else number * share
        for name, number in forecast["counted"].items()
    }
    return {**forecast, "counted": counted}
