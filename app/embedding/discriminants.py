"""The responses that tell a task's classes apart, as a Fisher information.

A head on the probe's responses x (K of them, each over its spread in the set) has logits W x + b.
The Fisher information of x about the label, on average over images as the head weighs them,

    F = E_x[(d o / d x)^T (diag(p) - p p^T) (d o / d x)] = W^T S W,  S = mean of diag(p) - p p^T

is the embedding's matrix at the responses instead of the weights, whole instead of its diagonal; of
multi-label sets S is diagonal, the means of p (1 - p). Its rank is less than the number of classes,
and its largest RANK axes are kept. With a strong penalty W is the discriminant of Fisher (1936)
with a shrunken covariance, and F the scatter between classes as seen along it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from app.embedding.head import fit_unvalidated
from app.embedding.portion import balanced_part
from app.embedding.regression import Labels
from app.embedding.vector import RANK

Array = npt.NDArray[np.float64]

PENALTY = 3.0
"""lambda of the head, on responses of unit variance. From 1 to 10 twins of public tasks are found
about as often; the penalty that predicts best would be another for every set, and the axes with
it."""
MOST_IMAGES = 4_000
ROUNDING = 1e-9
"""Of the longest axis: what is shorter is rounding, of a rank that is less."""
LEAST_SPREAD = 0.3
"""Of the root mean square over the responses of one kind at one stage: what hardly varies in a set
is not blown up to count as much as what does."""


def discriminants(
    responses: npt.NDArray[np.float32],
    kinds: npt.NDArray[np.int64],
    labels: Labels,
    n_classes: int,
    digests: Sequence[str],
) -> npt.NDArray[np.float32]:
    """(RANK, K) float32 rows A with A^T A = F, as far as RANK axes hold it; rows of zeros fill up.

    `responses`  (N, K), in the images' order
    `kinds`      (K,) number of the stage and statistic that each response is of
    `labels`     (N,) class numbers, or (N, C) bool for multi-label
    `digests`    one per image: at most about MOST_IMAGES take part, chosen by them

    In units of the responses' spread, squared logits. The largest entry of a row is positive.
    """
    part = balanced_part(labels, digests, MOST_IMAGES)
    x = responses[part].astype(np.float64)
    x -= x.mean(axis=0)
    x /= _spread(x, kinds)
    head = fit_unvalidated(x, labels[part], n_classes, PENALTY)
    p = head.probabilities(x)
    weights = head.image_weights(labels[part])
    if head.label_kind == "multi_label":
        root = np.diag(np.sqrt(np.average(p * (1 - p), axis=0, weights=weights)))
    else:
        weights = weights / weights.sum()
        root = _root(np.diag(weights @ p) - (p.T * weights) @ p)
    return _principal(root @ (head.weight / head.scale)).astype(np.float32)


def _spread(x: Array, kinds: npt.NDArray[np.int64]) -> Array:
    """(K,) standard deviations, shrunken towards those of the same kind; 1 where there is none."""
    variance = (x**2).mean(axis=0)
    counts = np.bincount(kinds)
    of_kind = np.bincount(kinds, weights=variance) / np.maximum(counts, 1)
    spread = np.sqrt(variance + LEAST_SPREAD**2 * of_kind[kinds])
    return np.where(spread > 0, spread, 1.0)


def _root(matrix: Array) -> Array:
    values, vectors = np.linalg.eigh(matrix)
    result: Array = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return result


def _principal(rows: Array) -> Array:
    """(RANK, K), the first principal rows of (C, K)."""
    _, lengths, axes = np.linalg.svd(rows, full_matrices=False)
    kept = min(RANK, int((lengths > ROUNDING * lengths[0]).sum()))
    result = np.zeros((RANK, rows.shape[1]))
    result[:kept] = lengths[:kept, None] * axes[:kept]
    signs = np.sign(result[np.arange(RANK), np.abs(result).argmax(axis=1)])
    result *= np.where(signs == 0, 1.0, signs)[:, None]
    return result
