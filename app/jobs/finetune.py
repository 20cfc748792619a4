"""The fine-tuning job: load -> train -> apply, its checkpoint in a folder of its own.

Killed, it goes on from its last epoch in the next worker; handed back, at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sqlalchemy.exc import OperationalError

from app.catalogue import CandidateCard, DeviceCard, RecipeCard
from app.embedding.probe import choose_device
from app.jobs.bench import Workbench
from app.jobs.progress import TRAINING, Progress
from app.jobs.stored import stored_images
from app.store import finetunes
from app.store.finetunes import Asked
from app.store.jobs import Start
from app.store.outcomes import Run as OutcomeRun
from app.telemetry import log_event
from app.training.checkpoint import Checkpoint
from app.training.finetune import CHECKPOINT, Epoch, Limits, Run, fine_tune
from app.training.package import result_of, write_package

STOP_REASONS = {"patience": "converged", "recipe": "cap"}
"""In the outcome table's words: only who stopped by itself had nothing more to gain. A run that was
cut short by its target or budget does not show what the recipe gives, and is no outcome of it."""


def finetune(start: Start, bench: Workbench) -> None:
    """Trains as it was asked for, and ends the job with an outcome."""
    with bench.database.session(read_only=True) as session:
        row = finetunes.of_job(session, start.job_id)
        finetune_id, task_name = row.id, row.task.name
        candidate = CandidateCard.model_validate(row.candidate, strict=False)
        recipe = RecipeCard.model_validate(row.recipe, strict=False)
        device = DeviceCard.model_validate(row.device, strict=False)
        asked, forecast, archives = Asked(**row.asked), row.forecast, row.archives
        told = len(row.curve)
        parent = finetunes.run_of(session, start.tenant, candidate)
    progress = Progress(
        bench.database,
        start,
        interval_seconds=bench.settings.progress_interval_seconds,
        stopping=bench.stopping,
    )
    directory = bench.settings.finetune_dir / finetune_id
    directory.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    images = stored_images(start, archives, candidate.input_size, bench, progress)
    read_seconds = time.monotonic() - began
    curve: list[dict[str, Any]] = []

    def on_epoch(epoch: Epoch) -> None:
        curve.append(asdict(epoch))
        if len(curve) <= told:
            return  # before it was taken up again
        try:
            with bench.database.session() as session:
                finetunes.tell(session, start.job_id, start.token, list(curve))
        except OperationalError:  # the next epoch tells of this one too
            log_event(
                "finetune.epoch_not_told",
                level=logging.WARNING,
                exc_info=True,
                job_id=start.job_id,
            )

    run = fine_tune(
        images,
        candidate,
        recipe,
        directory,
        device=choose_device(bench.settings.device),
        model=None if parent is None else bench.settings.finetune_dir / parent.id,
        precision=device.precision,
        seed=asked.seed,
        limits=Limits(asked.target, asked.patience, asked.budget_seconds),
        trace_every=asked.trace_every,
        on_features=lambda done, total: progress("features of the network", done, total),
        on_step=lambda done, total: progress(TRAINING, done, total),
        on_epoch=on_epoch,
    )
    run = replace(run, seconds=run.seconds + read_seconds)
    write_package(
        directory, run, candidate, recipe, images.classes, images.label_kind, task=task_name
    )
    whole = run.ended in STOP_REASONS
    outcome = _outcome(run, start, candidate, recipe, device) if whole else None
    with bench.database.session() as session:
        finetunes.finish(
            session,
            start.job_id,
            start.token,
            result=result_of(run, recipe),
            run=outcome,
            forecast=_for_steps(forecast, run, recipe),
        )
    _forget_checkpoint(directory)


def _outcome(
    run: Run, start: Start, candidate: CandidateCard, recipe: RecipeCard, device: DeviceCard
) -> OutcomeRun:
    numbers = {
        "n_train": run.n_train,
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


def _forget_checkpoint(directory: Path) -> None:
    Checkpoint(directory / CHECKPOINT, {}).delete()
    for scratch in directory.glob(".*"):  # of writers that were killed
        scratch.unlink(missing_ok=True)
