"""Noise: how far apart fresh draws alone put two embeddings of one task."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from scipy.special import polygamma

from app.embedding.distance import one_to_one
from app.embedding.vector import Noise

Array = npt.NDArray[np.float64]

REPLICATES = 16
_LEAST = 1e-12
FLOORED = ("cosine", "jsd", "entropy")
"""Divergences have no floor worth stating: a filter that one draw hardly excites decides them."""


def noise_of(
    vector: Array,
    draw_error: Array,
    domain: Array,
    domain_error: Array,
    epsilon: float,
    seed: int,
) -> Noise:
    """From entries and their draws' standard errors, (D,) each."""
    asked, images = (
        _log_variance(error / (entries + epsilon))
        for error, entries in ((draw_error, vector), (domain_error, domain))
    )
    lives = domain > 0
    return Noise(
        floors=noise_floors(vector, draw_error, epsilon, seed, FLOORED),
        label=float((asked + images)[lives & (vector > 0)].sum()),
        domain=float(images[lives].sum()),
    )


def noise_floors(
    vector: Array, draw_error: Array, epsilon: float, seed: int, metrics: Iterable[str]
) -> dict[str, float]:
    """Distances expected between two embeddings of one task from fresh draws, by metric.

    By parametric bootstrap: pairs of vectors whose entries are gamma distributed with these means
    and standard errors, which keeps them positive and dead filters at zero.

    `vector`, `draw_error`  (D,)
    """
    metrics = tuple(metrics)
    if not draw_error.any():
        return dict.fromkeys(metrics, 0.0)
    alive = (vector > 0) & (draw_error > 0)
    mean, variance = vector[alive], draw_error[alive] ** 2
    generator = np.random.default_rng(seed)
    distances = []
    for _ in range(REPLICATES):
        pair = np.stack([vector, vector])
        pair[:, alive] = generator.gamma(mean**2 / variance, variance / mean, (2, len(mean)))
        distances.append([one_to_one(pair[0], pair[1], name, epsilon=epsilon) for name in metrics])
    return dict(zip(metrics, np.mean(distances, axis=0).tolist(), strict=True))


def _log_variance(relative_error: Array) -> Array:
    """(D,) variance of log2 of gamma distributed entries; errors above 1 count as 1.

    With shape k the relative error is k^-1/2, and the logarithm's variance trigamma(k), in nats.
    """
    shape = 1.0 / np.clip(relative_error**2, _LEAST, 1.0)
    variance: Array = polygamma(1, shape) / np.log(2) ** 2
    return np.where(relative_error > 0, variance, 0.0)
