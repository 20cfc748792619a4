"""The grid's cells, a JSON file each, and the outcome table that they make together.

A cell lies under the digest of what decides its result besides its name: the task's images, the
schedule, the sizes. A change of these finds no old cell.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from benchmarks.grid.scores import OF_FEATURES, SCORES, from_features
from benchmarks.grid.starts import EXPERT_SCHEDULE, Experts, Start
from benchmarks.grid.tasks import GridTask
from benchmarks.grid.training import (
    BATCH_NORM_MOMENTUM,
    BATCH_SIZE,
    MAX_SHIFT,
    Run,
    Schedule,
    fine_tune,
    fit_classifier,
)
from benchmarks.quality.questions import hashed

RecipeName = Literal["head_only", "full"]
SCHEDULE = Schedule()
_FULL = {
    "batch_size": BATCH_SIZE,
    "learning_rate": SCHEDULE.learning_rate,
    "weight_decay": SCHEDULE.weight_decay,
    "max_epochs": SCHEDULE.max_epochs,
}
"""What a run of the whole network says of itself in the outcome table."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of the grid, made or not."""

    task: GridTask
    start: Start
    recipe: RecipeName
    seed: int

    @property
    def name(self) -> str:
        return name_of(self.task.name, self.start.name, self.recipe, self.seed)

    @property
    def digest(self) -> str:
        """Of what decides the result: images, schedules, sizes."""
        images = self.task.learn.digests + self.task.judge.digests
        settings: list[Any] = [asdict(SCHEDULE), asdict(EXPERT_SCHEDULE)]
        settings += [BATCH_SIZE, BATCH_NORM_MOMENTUM, MAX_SHIFT]
        described = [self.task.classes, images, self.task.learn.pixels.shape[1], settings]
        return hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]


def name_of(task: str, start: str, recipe: str, seed: int) -> str:
    return f"{task}--{start}--{recipe}-{seed}"


def rows_of(table: Path) -> dict[str, dict[str, Any]]:
    """By cell name, of a table that the grid wrote earlier: runs under the present schedule, with
    the scores of their features. That images are the same is for who names the table to know."""
    rows = pl.read_csv(table, infer_schema_length=None).to_dicts()
    rows = [row for row in rows if _is_of_this_grid(row)]
    return {
        name_of(*(row[key] for key in ("task", "model", "recipe", "seed"))): row for row in rows
    }


def _is_of_this_grid(row: dict[str, Any]) -> bool:
    return row.keys() >= set(OF_FEATURES) and (
        row["recipe"] != "full" or all(row[key] == value for key, value in _FULL.items())
    )


@dataclass(frozen=True, slots=True)
class Shelf:
    """Cells that are made, and the features that head-only runs saw, under `root`.

    `known`  rows by cell name that an outcome table has (`rows_of`): these cells need no file
    """

    root: Path
    known: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    def path(self, cell: Cell) -> Path:
        return self.root / "cells" / cell.digest / f"{cell.name}.json"

    def load(self, cell: Cell) -> dict[str, Any] | None:
        """As `make` wrote it, or its row alone; None where neither is there whole."""
        try:
            return dict(json.loads(self.path(cell).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            row = self.known.get(cell.name)
        return row and {"row": {name: row[name] for name in row if name not in SCORES}}

    def features_path(self, cell: Cell) -> Path:
        return self.root / "features" / cell.digest / f"{cell.name}.npy"

    def scores(self, cell: Cell) -> dict[str, float] | None:
        """Of the features that the cell saw, reckoned once; None where it was not made."""
        features, kept = self.features_path(cell), self.root / "scores" / cell.digest
        path = kept / f"{cell.name}.json"
        if path.exists():
            found = dict(json.loads(path.read_text(encoding="utf-8")))
            if found.keys() == set(OF_FEATURES):  # another version's are reckoned anew
                return found
        if not features.exists():
            row = self.known.get(cell.name)
            return row and {name: row[name] for name in OF_FEATURES}
        found = from_features(np.load(features), cell.task)
        self._write(path, lambda scratch: scratch.write_text(json.dumps(found), encoding="utf-8"))
        return found

    def make(self, cell: Cell, experts: Experts) -> Run:
        if cell.recipe == "full":
            n_classes = len(cell.task.classes)
            network = experts.network(cell.start, n_classes=n_classes, seed=cell.seed)
            run = fine_tune(network, cell.task, SCHEDULE, cell.seed)
        else:
            network = experts.network(cell.start, n_classes=0, seed=cell.seed)
            run, features = fit_classifier(network, cell.task)
            self._write(self.features_path(cell), lambda path: np.save(path, features))
        text = json.dumps({"row": row(cell, run), **asdict(run)})
        self._write(self.path(cell), lambda path: path.write_text(text, encoding="utf-8"))
        return run

    def _write(self, path: Path, write: Any) -> None:
        """Whole or not at all, whoever else writes it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f"{os.getpid()}-{path.name}")
        write(scratch)
        scratch.replace(path)


def row(cell: Cell, run: Run) -> dict[str, Any]:
    """The run as the outcome table has it."""
    full = cell.recipe == "full"
    return {
        "task": cell.task.name,
        "group": cell.task.group,
        "model": cell.start.name,
        "recipe": cell.recipe,
        "seed": cell.seed,
        "device": "cpu-1thread",
        "n_train": run.n_train,
        "n_classes": len(cell.task.classes),
        **{key: value if full else None for key, value in _FULL.items()},
        "epochs": run.epochs,
        "steps": run.steps,
        "seconds": round(run.seconds, 3),
        "memory_mib": run.memory_mib and round(run.memory_mib),
        "stop_reason": run.stop_reason,
        "metric": "accuracy",
        "value": round(run.accuracy, 6),
        "n_held_out": run.judged,
    }


def planned(
    tasks: Sequence[GridTask], starts: Sequence[Start], again: Sequence[str], seeds: int
) -> Iterator[Cell]:
    """All cells of seed 0, by task in hash order; then other seeds of the tasks in `again`.

    An expert does not run on the task that it was trained on.
    """
    tasks = sorted(tasks, key=lambda task: hashed("grid", task.name))
    pairs = [(task, start) for task in tasks for start in starts if start.source != task.name]
    recipes: tuple[RecipeName, ...] = ("head_only", "full")
    yield from (Cell(task, start, recipe, 0) for task, start in pairs for recipe in recipes)
    for seed in range(1, seeds):
        for task, start in pairs:
            if task.name in again:
                yield Cell(task, start, "full", seed)
