"""Where in the network two embeddings differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from app.embedding.vector import Vector


@dataclass(frozen=True, slots=True)
class Layer:
    """A measured layer of a probe; its filters are entries `start:stop` of an embedding."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class LayerDifference:
    """Of a layer's filters that are alive in one of two embeddings a, b at least.

    `shift`   mean of log2(a / b), less that of all layers: above 0, a asks more of this layer than
              it does of others
    `spread`  standard deviation of log2(a / b) within the layer: how differently filters are used
    """

    name: str
    filters: int
    shift: float
    spread: float


def by_layer(
    a: Vector, b: Vector, layers: Sequence[Layer], *, epsilon: float
) -> list[LayerDifference]:
    """(D,) each, of one space; layers without a live filter are left out."""
    alive = (a > 0) | (b > 0)
    if not alive.any():
        return []
    ratios = np.log2(a.astype(np.float64) + epsilon) - np.log2(b.astype(np.float64) + epsilon)
    overall = ratios[alive].mean()
    found = []
    for layer in layers:
        of_layer = ratios[layer.start : layer.stop][alive[layer.start : layer.stop]]
        if len(of_layer):
            found.append(
                LayerDifference(
                    layer.name,
                    len(of_layer),
                    float(of_layer.mean() - overall),
                    float(of_layer.std()),
                )
            )
    return found
