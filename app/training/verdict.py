"""What a trained network's probabilities on held-out images say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

Array = npt.NDArray[np.float64]

BINS = 10
MOST_CONFUSED = 200


@dataclass(frozen=True, slots=True)
class ClassVerdict:
    """`recall`: share of the class's images that are found; `precision`: of those taken for it.
    None where there are none."""

    name: str
    images: int
    recall: float | None
    precision: float | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """On images that were not trained on.

    `accuracy`     share of images, or for multi-label of labels, that are right
    `interval`     where it would lie, at 95 %, over as many images of the same kind (Wilson)
    `log_loss`     mean, in nats; for multi-label over labels too
    `calibration`  expected calibration error: how far confidence lies from the share that is right,
                   mean over BINS of confidence weighted by their images (Guo et al., ICML 2017)
    `confusion`    (C, C) images of the row's class taken for the column's; None for multi-label,
                   and for more than MOST_CONFUSED classes
    """

    images: int
    accuracy: float
    interval: tuple[float, float]
    log_loss: float
    calibration: float
    classes: tuple[ClassVerdict, ...]
    confusion: tuple[tuple[int, ...], ...] | None


def verdict(probabilities: Array, labels: npt.NDArray[Any], classes: Sequence[str]) -> Verdict:
    """`probabilities` (N, C); `labels` (N,) class numbers, or (N, C) bool."""
    tiny = np.finfo(np.float64).tiny
    if labels.ndim == 2:
        found = probabilities > 0.5
        right = (found == labels).ravel()
        confidence = np.maximum(probabilities, 1 - probabilities).ravel()
        of_truth = np.where(labels, probabilities, 1 - probabilities)
        log_loss = float(-np.log(np.maximum(of_truth, tiny)).mean())
        taken, true, both = found.sum(0), labels.sum(0), (found & labels).sum(0)
        confusion: tuple[tuple[int, ...], ...] | None = None
    else:
        chosen = probabilities.argmax(axis=1)
        right = chosen == labels
        confidence = probabilities.max(axis=1)
        of_truth = probabilities[np.arange(len(labels)), labels]
        log_loss = float(-np.log(np.maximum(of_truth, tiny)).mean())
        counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
        np.add.at(counts, (labels, chosen), 1)
        taken, true, both = counts.sum(0), counts.sum(1), np.diag(counts)
        confusion = None
        if len(classes) <= MOST_CONFUSED:
            confusion = tuple(tuple(int(n) for n in row) for row in counts)
    return Verdict(
        images=len(labels),
        accuracy=float(right.mean()),
        # Labels of one image are not so many images.
        interval=_wilson(round(float(right.mean()) * len(labels)), len(labels)),
        log_loss=log_loss,
        calibration=_calibration(confidence, right),
        classes=tuple(
            ClassVerdict(
                name,
                int(true[number]),
                float(both[number] / true[number]) if true[number] else None,
                float(both[number] / taken[number]) if taken[number] else None,
            )
            for number, name in enumerate(classes)
        ),
        confusion=confusion,
    )


def _calibration(confidence: Array, right: npt.NDArray[np.bool_]) -> float:
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=BINS)
    return float(np.abs(gaps).sum() / len(right))


def _wilson(right: int, of: int) -> tuple[float, float]:
    """E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA
    22, 1927."""
    low, high = binomtest(right, of).proportion_ci(0.95, method="wilson")
    return float(low), float(high)
