"""Runs of `fine_tune` on unseen tasks, a JSON file each: what they took, gave and went through.

A cell lies under the digest of what decides its result besides its name: the task's images, the
candidate's weights and the recipe. A run that is broken off goes on from its last epoch.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.catalogue import CandidateCard, RecipeCard
from app.cost.evidence import SCORES
from app.cost.outcome_table import SCORE_PREFIX
from app.cost.timing import Spread, Timing
from app.embedding.archive import ArchiveLimits
from app.embedding.dataset import LabelledImages, read_labelled_images
from app.embedding.report import IntakeReport
from app.jobs.finetune import STOP_REASONS
from app.reference.sets import LabelledSet
from app.training.finetune import Run, fine_tune
from app.training.frozen import moved
from app.training.images import Batches
from app.training.model import candidate_network
from app.training.steps import time_steps
from app.training.told import told_by
from benchmarks.forecasts.tasks import UnseenTask
from benchmarks.grid.training import PeakMemory

SEED = 0
TIMED_BATCH, TIMED_SECONDS = 32, 10.0
"""As by `task2vec time --batch-size 32`: nearer to the batches of such small sets than the shipped
recipes' 64; for so long at most, training and forward passes apart."""

_MOST_PIXELS = 2**24
_JUDGED_TOGETHER = 32


@dataclass(frozen=True, slots=True)
class Cell:
    """One run, made or not."""

    task: UnseenTask
    candidate: CandidateCard
    recipe: RecipeCard

    @property
    def name(self) -> str:
        return f"{self.task.name}--{self.candidate.name}--{self.recipe.name}"

    @property
    def digest(self) -> str:
        card = self.candidate
        start = [card.network, card.input_size, card.weights.sha256]
        recipe = self.recipe.model_dump(mode="json", exclude={"description"})
        described = [self.task.labelled.digest, self.task.more.digest, start, recipe, SEED]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]


def planned(
    tasks: Sequence[UnseenTask],
    candidates: Sequence[CandidateCard],
    rounds: Sequence[tuple[RecipeCard, int]],
) -> list[Cell]:
    """Round by round, task by task: each recipe with the first so many candidates. However early
    this is broken off, no task has more than one run of a recipe and candidate before another."""
    return [
        Cell(task, candidate, recipe)
        for recipe, count in rounds
        for task in tasks
        for candidate in candidates[:count]
    ]


@dataclass(frozen=True, slots=True)
class Shelf:
    """Cells that are made, under `root`."""

    root: Path

    def path(self, cell: Cell) -> Path:
        return self.root / "cells" / cell.digest / f"{cell.name}.json"

    def load(self, cell: Cell) -> dict[str, Any] | None:
        try:
            return dict(json.loads(self.path(cell).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None

    def make(self, cell: Cell) -> dict[str, Any]:
        scratch = self.root / "running" / f"{cell.digest}-{cell.name}"
        scratch.mkdir(parents=True, exist_ok=True)
        made = run_of(cell, scratch)
        _write(self.path(cell), made)
        shutil.rmtree(scratch)
        return made

    def scores(self, cell: Cell) -> dict[str, float] | None:
        """What the candidate's features tell of the task, as the estimator names it."""
        try:
            told = json.loads(self._scores_path(cell).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return {name: told[name.removeprefix(SCORE_PREFIX)] for name in SCORES}

    def tell(self, cell: Cell) -> None:
        network = candidate_network(cell.candidate, None)
        images, _ = read(cell.task.labelled, cell.candidate.input_size)
        told = told_by(network, images, torch.device("cpu"))
        _write(self._scores_path(cell), dict(told.items()))

    def _scores_path(self, cell: Cell) -> Path:
        digest = cell.task.labelled.digest[:16]
        return self.root / "scores" / digest / f"{cell.candidate.name}.json"

    def timing(self, candidate: CandidateCard) -> Timing | None:
        """Of its steps on this processor, where they were timed."""
        try:
            kept = json.loads(self._timing_path(candidate).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        steps, forward = (Spread(**kept[name]) for name in ("step_seconds", "forward_seconds"))
        return Timing(kept["batch_size"], steps, forward)

    def time(self, candidate: CandidateCard) -> Timing:
        """As `task2vec time` does, in seconds of the processor: those on the wall times the share
        of them that the process had."""
        began, began_cpu = time.monotonic(), time.process_time()
        wall = time_steps(
            candidate,
            torch.device("cpu"),
            "fp32",
            batch_size=TIMED_BATCH,
            most_seconds=TIMED_SECONDS,
        )
        share = (time.process_time() - began_cpu) / (time.monotonic() - began)
        steps, forward = (
            Spread(share * each.low, share * each.typical, share * each.high)
            for each in (wall.step_seconds, wall.forward_seconds)
        )
        timing = Timing(wall.batch_size, steps, forward)
        _write(self._timing_path(candidate), asdict(timing))
        return timing

    def _timing_path(self, candidate: CandidateCard) -> Path:
        return self.root / "timings" / f"{candidate.name}.json"


def _write(path: Path, told: dict[str, Any]) -> None:
    """Whole or not at all, whoever else writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partly = path.with_name(f"{os.getpid()}-{path.name}")
    partly.write_text(json.dumps(told), encoding="utf-8")
    partly.replace(path)


def run_of(cell: Cell, directory: Path) -> dict[str, Any]:
    """The run as the service's job makes it, from the archive to the verdict, on this processor.

    `seconds` are of the processor. A run of the whole network is traced after every epoch, and what
    the traces take is left out by their share of the time on the wall.
    """
    memory = PeakMemory()
    began, began_cpu = time.monotonic(), time.process_time()
    images, _ = read(cell.task.labelled, cell.candidate.input_size)
    read_cpu, read_wall = time.process_time() - began_cpu, time.monotonic() - began
    began, began_cpu = time.monotonic(), time.process_time()
    run = fine_tune(
        images,
        cell.candidate,
        cell.recipe,
        directory,
        device=torch.device("cpu"),
        seed=SEED,
        trace_every=1 if cell.recipe.scope == "full" else 0,
    )
    share = (time.process_time() - began_cpu) / (time.monotonic() - began)
    more, _ = read(cell.task.more, cell.candidate.input_size)
    right, judged = _judged(run, more, images.classes)
    return {
        "task": cell.task.name,
        "source": cell.task.source,
        "model": cell.candidate.name,
        "recipe": cell.recipe.name,
        "n_images": len(images.digests),
        "n_classes": len(images.classes),
        "n_train": run.n_train,
        "batch_size": cell.recipe.batch_of(run.n_train),
        "learning_rate": cell.recipe.learning_rate,
        "weight_decay": cell.recipe.weight_decay,
        "max_epochs": cell.recipe.epochs,
        "epochs": len(run.curve),
        "steps": run.steps,
        "seconds": read_cpu + share * run.seconds,
        "wall_seconds": read_wall + run.seconds,
        "memory_mib": memory.mib(),
        "stop_reason": STOP_REASONS[run.ended],
        "value": run.verdict.accuracy,
        "n_held_out": run.n_held_out,
        "log_loss": run.verdict.log_loss,
        "more_right": right,
        "more_judged": judged,
        "curve": [asdict(epoch) for epoch in run.curve],
        "layers": {number: trace.layers for number, trace in run.traces.items()},
    }


def read(labelled: LabelledSet, size: int) -> tuple[LabelledImages, IntakeReport]:
    return read_labelled_images(
        [labelled.archive()],
        size=size,
        label_kind=labelled.label_kind,
        limits=ArchiveLimits(),
        max_image_pixels=_MOST_PIXELS,
        decoders=1,
    )


def _judged(run: Run, more: LabelledImages, classes: tuple[str, ...]) -> tuple[int, int]:
    """How many of the pictures that were kept back the network gets right, and of how many."""
    rows = np.arange(len(more.digests))
    batches = Batches.of(more, run.network, SEED).judging(rows, _JUDGED_TOGETHER)
    with torch.inference_mode():
        found = torch.cat([run.network(moved(b, torch.device("cpu"))).argmax(1) for b in batches])
    named = np.array(classes)[found.numpy()]
    return int((named == np.array(more.classes)[more.labels]).sum()), len(rows)
