"""What a candidate's features tell of a task before it is trained there; higher for the better.

Features X (n, d) of n images from the candidate's frozen network, labels as Y (n, C): one-hot, or 0
and 1 for several labels an image. Both are centred, and X = U S V^T once; then every score but the
neighbours' is a sum over singular values:

    ridge, ridge_half, ridge_quarter   share of labels that a ridge classifier gets right of images
               left out one by one, H = U diag(s^2 / (s^2 + lambda)) U^T + 1/n and residuals
               (Y - HY)_i / (1 - H_ii); lambda is the one of PENALTIES with the least mean square of
               these. On all images, and the mean over halves and quarters of them
    knn        share that the NEIGHBOURS nearest by cosine get right, the image itself left out
    logme      largest log evidence of a Bayesian linear regression, per image, mean over classes
               (You, Liu, Wang, Long, "LogME", ICML 2021), on classes of unit variance
    h_score    tr(Sigma^-1 Sigma_between), Sigma with Ledoit and Wolf's shrinkage (Bao et al., "An
               information-theoretic approach to transferability", ICIP 2019; Ibrahim, Ponomareva,
               Mazumder, "Newer is not always better", ECML 2022)
    lfc        <X X^T, Y Y^T> / (|X X^T| |Y Y^T|), centred (Deshpande et al., "A linearized
               framework and a new benchmark for model selection for fine-tuning", 2021)
    leep       mean log of the probability that the source's own classifier gives the true class
               through their joint distribution (Nguyen, Hassner, Seeger, Archambeau, "LEEP", ICML
               2020); of a network that has one, for one label an image
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf_shrinkage

from app.cost.cells import Floats, Ints
from app.cost.score_names import SCORES, Score
from app.errors import InvalidRequest

PENALTIES = tuple(10.0 ** (k / 2) for k in range(-8, 5))
"""Of the ridge classifier, in squared singular values' mean."""

NEIGHBOURS = 5
LEAST_IMAGES = 8
LEAST_OF_A_CLASS = 3
"""Images on average, for shares: a class whose only image is left out is never told."""

TOGETHER = 1024
"""Images whose neighbours are looked for at once."""

ROUNDS, CLOSE = 100, 1e-6
"""Of the evidence's fixed point, which few rounds reach."""

LEAST = 1e-12


def scores(
    features: NDArray[np.floating],
    labels: Ints | NDArray[np.bool_],
    source_probabilities: NDArray[np.floating] | None = None,
) -> dict[Score, float]:
    """Of the scores those that can be had.

    `features`              (n, d)
    `labels`                (n,) class numbers, or (n, C) whether each label is the image's
    `source_probabilities`  (n, K) that the source's own classifier gives

    Raises InvalidRequest for fewer than LEAST_IMAGES, and where no two labels differ.
    """
    x, y = np.asarray(features, dtype=np.float64), one_hot(labels)
    several = labels.ndim == 2
    if len(x) < LEAST_IMAGES or not np.ptp(y, axis=0).any():
        raise InvalidRequest(
            "too-few-to-score",
            f"{len(x)} images in {y.shape[1]} classes tell nothing of a candidate.",
            f"Send at least {LEAST_IMAGES} images, of two classes or more.",
        )
    whole = _Spectrum(x, y)
    found: dict[Score, float] = {
        "logme": whole.logme(),
        "h_score": whole.h_score(),
        "lfc": whole.lfc(),
    }
    of_a_class = len(x) if several else len(x) / y.shape[1]
    if of_a_class >= LEAST_OF_A_CLASS:
        found |= {"ridge": whole.ridge(several), "knn": nearest(x, y, several)}
    parts: tuple[tuple[Score, int], ...] = (("ridge_half", 2), ("ridge_quarter", 4))
    for name, count in parts:
        if of_a_class / count >= LEAST_OF_A_CLASS:
            found[name] = _on_parts(x, y, count, several)
    if source_probabilities is not None and not several:
        found["leep"] = leep(np.asarray(source_probabilities, dtype=np.float64), y)
    return {name: found[name] for name in SCORES if name in found}


def one_hot(labels: Ints | NDArray[np.bool_]) -> Floats:
    """(n, C), of the classes that are there."""
    if labels.ndim == 2:
        return labels.astype(np.float64)
    return np.asarray(labels[:, np.newaxis] == np.unique(labels), dtype=np.float64)


def right(told: Floats, y: Floats, several: bool) -> float:
    """Share of images whose class has the highest number; of labels on their side of a half where
    there may be several an image. `told`, `y`: (n, C)."""
    if several:
        return float(((told > 0.5) == (y > 0.5)).mean())
    return float((told.argmax(axis=1) == y.argmax(axis=1)).mean())


class _Spectrum:
    """`u` (n, r), `s` (r,) of centred features; `y` (n, C) centred; `uy` (r, C) = U^T Y."""

    def __init__(self, x: Floats, y: Floats) -> None:
        self.truth = y
        self.centred = x - x.mean(axis=0)
        self.y = y - y.mean(axis=0)
        u, s, _ = np.linalg.svd(self.centred, full_matrices=False)
        there = s > LEAST * max(float(np.linalg.norm(x)), LEAST)  # of rounding when centring
        self.u, self.s = u[:, there], s[there]
        self.uy = self.u.T @ self.y

    def ridge(self, several: bool) -> float:
        squares, n = self.s**2, len(self.y)
        scale = float(squares.mean()) if len(squares) else 1.0
        best, least = self.truth, np.inf
        for penalty in PENALTIES:
            kept = squares / (squares + penalty * scale)
            leverage = (self.u**2) @ kept + 1 / n
            missed = (self.y - self.u @ (kept[:, np.newaxis] * self.uy)) / np.maximum(
                1 - leverage, LEAST
            )[:, np.newaxis]
            square = float((missed**2).mean())
            if square < least:
                best, least = self.truth - missed, square
        return right(best, self.truth, several)

    def logme(self) -> float:
        """log N(y; 0, 1/beta + X X^T / alpha) / n at the best alpha and beta, by the fixed point of
        MacKay's updates: gamma = sum s^2 / (s^2 + alpha / beta), alpha = gamma / |m|^2,
        beta = (n - 1 - gamma) / |y - X m|^2; n - 1, for centring takes one dimension."""
        squares, n = self.s**2, len(self.y) - 1
        there = self.y.std(axis=0) > 0
        y = self.uy[:, there] / self.y[:, there].std(axis=0)
        rest = np.maximum(len(self.y) - (y**2).sum(axis=0), 0.0)  # outside of the features' span
        return float(
            np.mean([_evidence(squares, y[:, c] ** 2, rest[c], n) for c in range(len(rest))])
        )

    def h_score(self) -> float:
        n, d = self.centred.shape
        squares = self.s**2
        if not len(squares):
            return 0.0
        shrinkage = float(ledoit_wolf_shrinkage(self.centred, assume_centered=True))
        variances = (1 - shrinkage) * squares / n + shrinkage * squares.sum() / (n * d)
        there = self.y.any(axis=0)
        counts = self.truth[:, there].sum(axis=0)
        # Classes' means are S U^T Y / counts in V's axes; weighted by counts / n.
        between = squares * ((self.uy[:, there] ** 2) / (counts * n)).sum(axis=1)
        return float((between / variances).sum())

    def lfc(self) -> float:
        kernels = np.linalg.norm(self.s**2) * np.linalg.norm(self.y.T @ self.y)
        return float((self.s**2 @ (self.uy**2).sum(axis=1)) / max(float(kernels), LEAST))


def _evidence(squares: Floats, projected: Floats, rest: float, n: int) -> float:
    """Per image; `projected` (r,) squares of y's coordinates, `rest` of what lies outside."""
    alpha, beta = 1.0, 1.0
    for _ in range(ROUNDS):
        ratio = alpha / beta
        gamma = float((squares / (squares + ratio)).sum())
        length = float((squares * projected / (squares + ratio) ** 2).sum())
        missed = rest + float((projected * (ratio / (squares + ratio)) ** 2).sum())
        alpha = max(gamma, LEAST) / max(length, LEAST)
        beta = max(n - gamma, LEAST) / max(missed, LEAST)
        if abs(alpha / beta / ratio - 1) < CLOSE:
            break
    ratio = alpha / beta
    length = float((squares * projected / (squares + ratio) ** 2).sum())
    missed = rest + float((projected * (ratio / (squares + ratio)) ** 2).sum())
    determinant = float(np.log1p(squares / ratio).sum())
    fit = n * np.log(beta) - determinant - beta * missed - alpha * length
    return float((fit - n * np.log(2 * np.pi)) / (2 * n))


def _on_parts(x: Floats, y: Floats, parts: int, several: bool) -> float:
    """Mean over the parts that the images fall into, every class over all of them."""
    order = np.lexsort((np.arange(len(y)), y.argmax(axis=1)))
    chosen: Sequence[Ints] = [order[start::parts] for start in range(parts)]
    return float(np.mean([_Spectrum(x[part], y[part]).ridge(several) for part in chosen]))


def nearest(x: Floats, y: Floats, several: bool) -> float:
    """k of NEIGHBOURS, fewer where there are not so many others."""
    directions = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), LEAST)
    k = min(NEIGHBOURS, len(x) - 1)
    told = np.zeros_like(y)
    for rows in np.array_split(np.arange(len(x)), -(-len(x) // TOGETHER)):
        alike = directions[rows] @ directions.T
        alike[np.arange(len(rows)), rows] = -np.inf
        found = np.argpartition(-alike, k - 1, axis=1)[:, :k]
        # The nearer one decides between classes of as many neighbours.
        weights = 1 + np.take_along_axis(alike, found, axis=1) / (2 * k + 1)
        weights /= weights.sum(axis=1, keepdims=True)
        for place in range(k):
            told[rows] += weights[:, place, np.newaxis] * y[found[:, place]]
    return right(told, y, several)


def leep(probabilities: Floats, y: Floats) -> float:
    """`probabilities` (n, K) of source classes, `y` (n, C) one-hot."""
    joint = y.T @ probabilities / len(y)
    given = joint / np.maximum(joint.sum(axis=0), LEAST)
    told = ((probabilities @ given.T) * y).sum(axis=1)
    return float(np.log(np.maximum(told, LEAST)).mean())
