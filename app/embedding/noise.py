"""The noise floor: how far apart the randomness of draws alone puts two embeddings of a task."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from app.embedding.distance import one_to_one

Array = npt.NDArray[np.float64]

REPLICATES = 16


def noise_floor(vector: Array, draw_error: Array, epsilon: float, seed: int) -> float:
    """Cosine distance expected between two embeddings of one task from fresh draws.

    By parametric bootstrap: pairs of vectors whose entries are gamma distributed with these means
    and standard errors, which keeps them positive and dead filters at zero.

    `vector`, `draw_error`  (D,)
    """
    if not draw_error.any():
        return 0.0
    alive = (vector > 0) & (draw_error > 0)
    mean, variance = vector[alive], draw_error[alive] ** 2
    generator = np.random.default_rng(seed)
    distances = []
    for _ in range(REPLICATES):
        pair = np.stack([vector, vector])
        pair[:, alive] = generator.gamma(mean**2 / variance, variance / mean, (2, len(mean)))
        distances.append(one_to_one(pair[0], pair[1], "cosine", epsilon=epsilon))
    return float(np.mean(distances))
