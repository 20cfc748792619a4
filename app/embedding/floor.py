"""The noise floor of a distance: what fresh draws of one task alone would show."""

from __future__ import annotations

from app.embedding.distance import Metric
from app.embedding.parts import Array
from app.embedding.vector import Noise


def noise_floor(metric: Metric, noise: Noise, lengths: Array | None = None) -> float | None:
    """The distance expected between two embeddings of one task from fresh draws, under a metric.

    Two copies of a part of length l, of which noise is a length n, correlate by 1 - n^2 / l^2.
    Discriminants come without draws. Where a source is compared with a target less a share of what
    only the source decides, the floor is that of the comparison.

    `lengths`  (2,) of the task's label and domain part (`Parts`), for metrics on parts

    None where it is not known: under a metric that has none, of an embedding of before.
    """
    if metric.compares == "vector":
        return noise.floors.get("cosine" if metric.name == "asymmetric" else metric.name)
    floor = 0.0
    for part, (weight, size) in enumerate(
        ((metric.weights.label, noise.label), (metric.weights.domain, noise.domain))
    ):
        if not weight:
            continue
        if size is None or lengths is None:
            return None
        floor += weight * (size / max(lengths[part] ** 2, size) if size else 0.0)
    return floor
