"""What can be told of a start on a task before it is trained there.

From the features of its frozen network on the task's images: the service's own scores, but for the
one that needs a classifier of the source, which experts do not keep. From embeddings: minus the
distance of the expert's source task, which starts without one do not have. All are higher for the
better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app.cost.score_names import SCORES as NAMES
from app.cost.scores import scores
from app.embedding.distance import one_to_many
from app.embedding.parts import Population, row_of
from app.embedding.probe import Probe
from app.embedding.vector import TaskEmbedding
from app.reference.build import embedded
from benchmarks.grid.tasks import GridTask
from benchmarks.grid.training import Features

METRICS = ("cosine", "domain", "label", "combined")
OF_FEATURES = tuple(f"score_{name}" for name in NAMES if name != "leep")
SCORES = (*OF_FEATURES, *(f"score_{metric}" for metric in METRICS), "probe_accuracy")
"""Columns of what can be told before a run."""

Array = npt.NDArray[np.float64]


def from_features(features: Features, task: GridTask) -> dict[str, float]:
    found = scores(features, task.learn.labels)
    return {f"score_{name}": round(score, 6) for name, score in found.items()}


def embeddings_of(tasks: Sequence[GridTask], probe: Probe, root: Path) -> dict[str, TaskEmbedding]:
    """By name, each made once."""
    return {task.name: embedded(task.labelled, probe, root) for task in tasks}


def distances(
    targets: Mapping[str, TaskEmbedding], sources: Mapping[str, TaskEmbedding], metric: str
) -> dict[tuple[str, str], float]:
    """(target, source) -> distance; parts are centred on the targets of other names."""
    found: dict[tuple[str, str], float] = {}
    epsilon = next(iter(targets.values())).epsilon
    of_parts = metric != "cosine"
    rows = {
        name: row_of(each) if of_parts else each.vector
        for name, each in (*sources.items(), *targets.items())
    }
    for target in targets:
        others = [np.concatenate([e.vector, e.domain]) for n, e in targets.items() if n != target]
        population = Population.of(np.stack(others), epsilon) if of_parts else None
        query = row_of(targets[target]) if of_parts else targets[target].vector
        told = one_to_many(
            query,
            np.stack([rows[source] for source in sources]),
            metric,
            epsilon=epsilon,
            population=population,
        )
        found |= {(target, s): float(d) for s, d in zip(sources, told, strict=True)}
    return found
