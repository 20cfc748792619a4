"""Where a candidate that nobody tried stands beside those that were: by its published accuracy.

On the logit scale, what candidates reach on a task differs as their published top-1 accuracy on
ImageNet-1k does, times a slope. Before any outcome the slope is that of the ten ImageNet models on
eight tasks that Transfer-Learning-Library published fine-tuning accuracies of (0.87, from 0.40 on
DTD to 1.45 on CIFAR-10; S. Kornblith, J. Shlens, Q. V. Le, "Do better ImageNet models transfer
better?", CVPR 2019, found the relation); the tried candidates then move it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.cost.cells import Floats, Mask

SLOPE, SLOPE_SD = 0.87, 0.4
RESIDUAL_SD = 0.3
"""Logits by which a candidate lies off the line: 0.13 on those eight large tasks, more on small
ones, and where a recipe for ImageNet alone made the difference."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Of candidates, logits: `shift` (M,) of their means and `covariance` (M, M) to be added; 0 for
    those that were tried. Where the line lies is one doubt that all others share."""

    shift: Floats
    covariance: Floats


def standing(strength: Floats, tried: Mask, published: Floats) -> Standing:
    """`strength` (M,) logits of the `tried` ones; `published` (M,) logit of top-1 accuracy, nan
    where nothing was published."""
    n = len(strength)
    shift, covariance = np.zeros(n), np.zeros((n, n))
    told, known = tried & np.isfinite(published), ~tried & np.isfinite(published)
    if told.any():
        middle, base = published[told].mean(), strength[told].mean()
        x, y = published[told] - middle, strength[told] - base
        own = (RESIDUAL_SD / SLOPE_SD) ** 2
        precision = float(x @ x) + own
        slope = (float(x @ y) + own * SLOPE) / precision
        away = published[known] - middle
        shift[known] = base + slope * away
        line = 1 / told.sum() + np.outer(away, away) / precision
        covariance[np.ix_(known, known)] = RESIDUAL_SD**2 * (np.eye(len(away)) + line)
    return Standing(shift, covariance)
