"""Logistic regression with an L2 penalty, on features of any number of images.

Memory does not grow with the number of images, but for their labels: a set of more than
CHUNK_IMAGES is never held in float64. Its features, an array or a memory map, are read chunk by
chunk in every evaluation of the loss, its gradient or its curvature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh, svd
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, cg

Array = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32] | Array
Indices = npt.NDArray[np.int64]
Labels = npt.NDArray[Any]  # (N,) int64 class numbers, or (N, C) bool

TOLERANCE = 1e-5
"""Largest gradient entry at which L-BFGS stops, on preconditioned coefficients."""
ROUNDING = 1e-11
"""Largest gradient entry that counts as none; Newton steps lead there."""
NEWTON_STEPS, NEWTON_GAIN = 5, 1e-3
"""At most so many, each solved until what is left of the gradient is this share of it: there is no
use in solving better than the loss is quadratic."""
SQUARED_ROWS = 256
"""Coordinates of so many images are squared at once."""
CG_STEPS, LEAST_CURVATURE = 400, 1e-9
"""Conjugate gradient steps of one of Newton's; the latter of what is expected on average."""
CHUNK_IMAGES = 4_096
"""Images that are worked on together: up to so many are kept as float64 coordinates, and the
largest matrices have so many rows of d + 1 or C float64 numbers."""
HISTORY, LEAST_HISTORY, HISTORY_BYTES = 20, 4, 128 * 2**20
"""Pairs of steps and gradients that L-BFGS remembers: fewer, but never less than so few, where
they would take more than so many bytes (from some 320 classes on 1,280 features)."""


@dataclass(frozen=True, slots=True)
class PrincipalSpace:
    """The features on their principal axes.

    The penalty is the same in every rotation, the optimum lies in the features' row space and the
    bias takes up their mean, so nothing is lost; a set of N < d images works in N columns, and the
    spectrum preconditions the optimiser.

    features / scale = mean + coordinates axes, coordinates (N, r), axes (r, d) orthonormal
    """

    axes: Array
    mean: Array
    scale: float
    variances: Array  # (r,) mean square of each coordinate

    @classmethod
    def of(cls, features: Features) -> PrincipalSpace:
        n, d = features.shape
        squares = sum(float(np.sum(x**2)) for x in _chunks(features))
        scale = float(np.sqrt(squares / features.size)) or 1.0
        mean = np.zeros(d)
        for x in _chunks(features):
            x /= scale
            mean += x.sum(axis=0)
        mean /= n
        if n <= min(d, CHUNK_IMAGES):
            [x] = _chunks(features)
            x /= scale
            x -= mean
            _, singular, axes = svd(x, full_matrices=False)
            variances = singular**2 / n
        else:
            scatter = np.zeros((d, d))
            for x in _chunks(features):
                x /= scale
                x -= mean
                scatter += x.T @ x
            variances, axes = eigh(scatter / n)
            variances, axes = np.maximum(variances, 0.0), axes.T
        kept = variances > 1e-18 * max(float(variances.max()), 1e-300)
        return cls(axes[kept], mean, scale, variances[kept])

    def coordinates(self, features: Features) -> Array:
        """(B, d) features to (B, r)."""
        x = np.array(features, np.float64)
        x /= self.scale
        x -= self.mean
        result: Array = x @ self.axes.T
        return result


def _chunks(features: Features) -> Iterator[Array]:
    """The features in float64, CHUNK_IMAGES at a time, each a copy."""
    for start in range(0, len(features), CHUNK_IMAGES):
        yield np.array(features[start : start + CHUNK_IMAGES], np.float64)


@dataclass(frozen=True, slots=True)
class Coordinates:
    """The images of one fit, on the principal axes."""

    space: PrincipalSpace
    z: Array  # (N, r + 1), the last column is 1

    def take(self, rows: Indices) -> Coordinates:
        return Coordinates(self.space, self.z[rows])

    def chunks(self) -> Iterator[tuple[slice, Array]]:
        for start in range(0, len(self.z), CHUNK_IMAGES):
            place = slice(start, start + CHUNK_IMAGES)
            yield place, self.z[place]

    def on_columns(self, coefficients: Array) -> Array:
        return coefficients

    def on_axes(self, gradient: Array) -> Array:
        return gradient


@dataclass(frozen=True, slots=True)
class Streamed:
    """The images of one fit, as their features.

    Instead of the images, the coefficients are taken from the principal axes to the features, and
    the gradient back: as exact, and nothing with a row for every image is ever stored.
    """

    space: PrincipalSpace
    features: Features  # (N, d)

    def take(self, rows: Indices) -> Coordinates:
        z = np.ones((len(rows), len(self.space.axes) + 1))
        for start in range(0, len(rows), CHUNK_IMAGES):
            place = slice(start, start + CHUNK_IMAGES)
            z[place, :-1] = self.space.coordinates(self.features[rows[place]])
        return Coordinates(self.space, z)

    def chunks(self) -> Iterator[tuple[slice, Array]]:
        """Each chunk of (B, d + 1) is overwritten by the next."""
        n, d = self.features.shape
        z = np.ones((min(n, CHUNK_IMAGES), d + 1))
        for start in range(0, n, CHUNK_IMAGES):
            place = slice(start, min(start + CHUNK_IMAGES, n))
            chunk = z[: place.stop - start]
            chunk[:, :-1] = self.features[place]
            yield place, chunk

    def on_columns(self, coefficients: Array) -> Array:
        """(C, r + 1) to (C, d + 1)."""
        weight = coefficients[:, :-1] @ self.space.axes
        bias = coefficients[:, -1] - weight @ self.space.mean
        return np.column_stack([weight / self.space.scale, bias])

    def on_axes(self, gradient: Array) -> Array:
        """(C, d + 1) to (C, r + 1): the transpose of `on_columns`."""
        centred = gradient[:, :-1] / self.space.scale - np.outer(gradient[:, -1], self.space.mean)
        return np.column_stack([centred @ self.space.axes.T, gradient[:, -1]])


Rows = Coordinates | Streamed


def rows_of(space: PrincipalSpace, features: Features) -> Rows:
    """All images of a fit: as coordinates, or streamed where they are more than one chunk."""
    rows = Streamed(space, features)
    return rows.take(np.arange(len(features))) if len(features) <= CHUNK_IMAGES else rows


def minimise(
    rows: Rows,
    labels: Labels,
    class_weights: Array,
    penalty: float,
    *,
    start: Array | None = None,
    rounding: float = ROUNDING,
    on_step: Callable[[], None],
) -> Array:
    """(C, r + 1) coefficients on the principal axes and bias that minimise the penalised loss.

    loss = sum_n w_n cross_entropy_n / sum_n w_n + lambda / 2 |coefficients|^2, for multi-label the
    sum over labels of binary cross-entropies. L-BFGS runs on coefficients scaled by the square
    root of the curvature expected along each axis, sqrt(p (1 - p) variance + lambda). Its line
    search ends where differences of the loss sink into rounding; Newton steps go on to where the
    gradient does, so that the order of the images cannot be seen in the solution. They are solved
    by conjugate gradients, preconditioned by the curvature's own diagonal: under a weak penalty few
    images still have a say, and the expected curvature is far from what they leave.

    `rounding`  largest gradient entry that may be left
    `on_step`   called for every chunk that is worked on
    """
    n_classes = len(class_weights)
    single = labels.ndim == 1
    probabilities = softmax if single else sigmoid
    variances = rows.space.variances
    share = 1.0 / n_classes if single else 0.5
    curvature = share * (1.0 - share)
    scales = np.sqrt(np.append(curvature * variances + penalty, curvature))
    ridge = np.append(np.full(len(variances), penalty), 0.0)
    weights = class_weights / _total_weight(class_weights, labels)

    def objective(flat: Array) -> tuple[float, Array]:
        coefficients = flat.reshape(n_classes, -1) / scales
        columns = rows.on_columns(coefficients)
        loss, gradient = 0.0, np.zeros_like(columns)
        for place, z in rows.chunks():
            on_step()
            truth = labels[place]
            chunk_weights = image_weights_of(weights, truth)
            log_p, residual = _log_p_and_residual(z @ columns.T, truth)
            loss -= float((chunk_weights * log_p).sum())
            residual *= chunk_weights[:, None] if single else chunk_weights
            gradient += residual.T @ z
        loss += 0.5 * float((ridge * coefficients**2).sum())
        gradient = rows.on_axes(gradient) + ridge * coefficients
        return loss, (gradient / scales).ravel()

    initial = np.zeros((n_classes, len(scales))) if start is None else start * scales
    history = HISTORY_BYTES // (2 * initial.nbytes)
    found = minimize(
        objective,
        initial.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={
            "gtol": TOLERANCE,
            "ftol": 0.0,
            "maxiter": 1_000,
            "maxfun": 2_000,
            "maxcor": min(max(history, LEAST_HISTORY), HISTORY),
        },
    ).x

    def newton_step(flat: Array, gradient: Array, rtol: float) -> Array:
        columns = rows.on_columns(flat.reshape(n_classes, -1) / scales)
        known: list[Array] = []
        if isinstance(rows, Coordinates):
            known = [probabilities(z @ columns.T) for _, z in rows.chunks()]

        def along(direction: Array) -> Array:
            step = direction.reshape(n_classes, -1) / scales
            step_columns = rows.on_columns(step)
            bent = np.zeros_like(columns)
            for number, (place, z) in enumerate(rows.chunks()):
                on_step()
                p = known[number] if known else probabilities(z @ columns.T)
                change = z @ step_columns.T
                change *= p if single else p * (1 - p)
                if single:
                    change -= p * change.sum(axis=1, keepdims=True)
                chunk_weights = image_weights_of(weights, labels[place])
                change *= chunk_weights[:, None] if single else chunk_weights
                bent += change.T @ z
            return np.ravel((rows.on_axes(bent) + ridge * step) / scales)

        diagonal = np.ones(flat.size)
        if isinstance(rows, Coordinates):
            curved = np.tile(ridge, (n_classes, 1))
            for (place, z), p in zip(rows.chunks(), known, strict=True):
                chunk_weights = image_weights_of(weights, labels[place])
                spread = p * (1 - p) * (chunk_weights[:, None] if single else chunk_weights)
                for start in range(0, len(z), SQUARED_ROWS):
                    part = slice(start, start + SQUARED_ROWS)
                    curved += spread[part].T @ z[part] ** 2
            diagonal = np.maximum((curved / scales**2).ravel(), LEAST_CURVATURE)

        size = (flat.size, flat.size)
        step: Array = cg(
            LinearOperator(size, matvec=along, dtype=np.float64),
            -gradient,
            rtol=rtol,
            maxiter=CG_STEPS,
            M=LinearOperator(size, matvec=lambda residual: residual / diagonal, dtype=np.float64),
        )[0]
        return step

    for _ in range(NEWTON_STEPS):
        gradient = objective(found)[1]
        largest = np.abs(gradient).max()
        if largest < rounding:
            break
        found = found + newton_step(found, gradient, max(NEWTON_GAIN, 0.1 * rounding / largest))
    result: Array = found.reshape(n_classes, -1) / scales
    if single:  # the same bias more for every class says nothing, and no term of the loss sees it
        result[:, -1] -= result[:, -1].mean()
    return result


def _log_p_and_residual(logits: Array, labels: Labels) -> tuple[Array, Array]:
    """Log-likelihood of the true labels, and p - truth in the place of the logits."""
    if labels.ndim == 2:
        log_p, _ = held_out_log_p(logits, labels)
        residual = sigmoid(logits)
        residual -= labels
        return log_p, residual
    at_truth = np.arange(len(labels)), labels
    logits -= logits.max(axis=1, keepdims=True)
    log_p = logits[at_truth]
    np.exp(logits, out=logits)
    total = logits.sum(axis=1, keepdims=True)
    log_p -= np.log(total[:, 0])
    logits /= total
    logits[at_truth] -= 1.0
    return log_p, logits


def _total_weight(class_weights: Array, labels: Labels) -> Array:
    """Sum over the images of their weights: (1,), or (C, 1) for multi-label."""
    total = np.zeros(1 if labels.ndim == 1 else labels.shape[1])
    for start in range(0, len(labels), CHUNK_IMAGES):
        weights = image_weights_of(class_weights, labels[start : start + CHUNK_IMAGES])
        total += weights.reshape(len(weights), -1).sum(axis=0)
    return total if labels.ndim == 1 else total[:, None]


def held_out_log_p(logits: Array, labels: Labels) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Log-likelihood of the true labels and whether the most likely label is true."""
    if labels.ndim == 2:
        return -np.logaddexp(0.0, np.where(labels, -logits, logits)), (logits > 0) == labels
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    rows = np.arange(len(labels))
    return log_p[rows, labels], logits.argmax(axis=1) == labels


def image_weights_of(class_weights: Array, labels: Labels) -> Array:
    if labels.ndim == 1:
        single: Array = class_weights[labels]
        return single
    return np.where(labels, class_weights[:, 1], class_weights[:, 0])


def softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def sigmoid(logits: Array) -> Array:
    result: Array = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return result
