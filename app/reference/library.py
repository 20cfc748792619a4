"""The reference library as one file: many embeddings as small numbers, and where each comes from.

`vector`, `domain`  (T, D) float16, log2(e + epsilon) on a grid of 1/16: within 2.2 % of each entry,
                    well below most draw errors; dead filters lie at log2(epsilon)
`discriminants`     (T, RANK, K) float16, each task's of unit Frobenius norm
`draw_error`, `sampling_error`
                    (T, D) float16, relative to the vector's entries, within 19 % of themselves;
                    at most 46,341 times an entry
`complexity`        (T,) float64
`noise`             JSON, T times what `vector.Noise` holds
`trivial`           t0 of the asymmetric distance, the flat Fisher of the trivial task
`population_label`, `population_domain`
                    (D,) float32, means over all its tasks of their centred parts, in log2 units
`tasks`             JSON, T times name, tags, source, licence, label_kind, n_images, n_classes,
                    provenance
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from app.embedding.parts import Population
from app.embedding.vector import TaskEmbedding, require_one_space

_LOG_STEP = 1 / 16
_ERROR_LOG_STEP = 1 / 2
_LARGEST_ERROR_LOG = 15.5  # float16 ends at 16; filters with next to no gradient get there

Entry = tuple[Mapping[str, Any], TaskEmbedding]


def task_card(
    embedding: TaskEmbedding, *, name: str, tags: Sequence[str], source: str, licence: str
) -> dict[str, Any]:
    provenance = embedding.provenance
    return {
        "name": name,
        "tags": list(tags),
        "source": source,
        "licence": licence,
        "label_kind": provenance.label_kind,
        "n_images": provenance.n_images,
        "n_classes": provenance.n_classes,
        "provenance": asdict(provenance),
    }


def write_library(path: Path, entries: Sequence[Entry]) -> None:
    """Replaces the file at once, or leaves it alone; the tasks stand in it by name.

    Raises DifferentSpaces where the embeddings do not share one.
    """
    entries = sorted(entries, key=lambda entry: str(entry[0]["name"]))
    embeddings = [embedding for _, embedding in entries]
    space_id = require_one_space([embedding.space_id for embedding in embeddings])
    epsilon = embeddings[0].epsilon
    vectors = np.stack([embedding.vector for embedding in embeddings])
    domains = np.stack([embedding.domain for embedding in embeddings])
    population = Population.of(np.concatenate([vectors, domains], axis=1), epsilon)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    with scratch.open("wb") as stream:
        np.savez_compressed(
            stream,
            vector=_logs(vectors, epsilon),
            domain=_logs(domains, epsilon),
            discriminants=_scaled(np.stack([e.discriminants for e in embeddings])),
            draw_error=_relative(np.stack([e.draw_error for e in embeddings]), vectors),
            sampling_error=_relative(np.stack([e.sampling_error for e in embeddings]), vectors),
            noise=np.str_(json.dumps([asdict(e.noise) for e in embeddings], sort_keys=True)),
            complexity=np.array([embedding.complexity for embedding in embeddings]),
            epsilon=np.float64(epsilon),
            space_id=np.str_(space_id),
            trivial=np.float64(_trivial(vectors)),
            population_label=population.label,
            population_domain=population.domain,
            tasks=np.str_(json.dumps([card for card, _ in entries], sort_keys=True)),
        )
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(path)


def _logs(entries: npt.NDArray[np.float32], epsilon: float) -> npt.NDArray[np.float16]:
    logs = np.log2(entries.astype(np.float64) + epsilon)
    rounded = np.round(logs / _LOG_STEP) * _LOG_STEP
    return np.where(entries > 0, rounded, np.log2(epsilon)).astype(np.float16)


def _scaled(axes: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """How much the responses tell is not compared, only which: float16 holds them at any size."""
    norms = np.linalg.norm(axes, axis=(1, 2), keepdims=True)
    unit: npt.NDArray[np.float32] = np.divide(axes, norms, out=np.zeros_like(axes), where=norms > 0)
    return unit.astype(np.float16)


def _relative(
    errors: npt.NDArray[np.float32], entries: npt.NDArray[np.float32]
) -> npt.NDArray[np.float16]:
    ratio = np.divide(errors, entries, out=np.zeros_like(errors), where=entries > 0)
    logs = np.log2(ratio, out=np.full_like(ratio, -np.inf), where=ratio > 0)
    rounded = np.round(logs / _ERROR_LOG_STEP) * _ERROR_LOG_STEP
    return np.exp2(np.minimum(rounded, _LARGEST_ERROR_LOG)).astype(np.float16)


def _trivial(vectors: npt.NDArray[np.float32]) -> float:
    """The median entry over tasks and live filters.

    Provisional: the trivial task's own Fisher is zero, so its constant is a choice, to be fitted on
    real fine-tuning results.
    """
    return float(np.median(vectors[vectors > 0]))
