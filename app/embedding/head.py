"""The head: a linear classifier on the probe's pooled features, calibrated by its penalty.

A small set is linearly separable in a thousand features. Without a penalty the logits grow without
bound, p becomes one-hot, and the Fisher information, which is p (1 - p) at heart, sinks into
rounding. The L2 penalty is therefore chosen by cross-validated log-likelihood: the head claims as
much confidence as it shows on images it has not seen, and the embedding's size means something.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh, svd
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, cg

from app.embedding.dataset import LabelKind

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Labels = npt.NDArray[Any]  # (N,) int64 class numbers, or (N, C) bool

FOLDS = 5
PENALTIES: tuple[float, ...] = tuple(10.0 ** (k / 2) for k in range(-8, 5))
"""lambda in: mean weighted loss + lambda / 2 |W|^2, on features of unit root mean square."""
FALLBACK_PENALTY = 1.0
"""For a set in which every class has a single image: there is nothing to validate on."""
TOLERANCE = 1e-5
"""Largest gradient entry at which L-BFGS stops, on preconditioned coefficients."""
NEWTON_STEPS, ROUNDING = 3, 1e-11
"""Newton steps after that, unless no gradient entry is larger than this."""
SELECTION_IMAGES = 4_000
"""At most so many images choose the penalty; all of them fit the head."""


@dataclass(frozen=True, slots=True)
class Head:
    """A fitted head. With features f of one image, logits o = f W^T / scale + b.

    `weight`               (C, d) float64
    `bias`                 (C,) float64
    `scale`                root mean square of the features it was fitted on
    `class_weights`        (C,) for single_label: N / (C n_c); (C, 2) for multi_label: weight of an
                           absent and of a present label
    `penalty`              lambda as in PENALTIES
    `cv_log_likelihood`    mean balanced log-likelihood of held-out images at that penalty, nats
    `cv_accuracy`          share of held-out labels it gets right, at the same folds that chose the
                           penalty (so slightly hopeful); None where nothing could be held out
    """

    label_kind: LabelKind
    weight: Array
    bias: Array
    scale: float
    class_weights: Array
    penalty: float
    cv_log_likelihood: float | None
    cv_accuracy: float | None

    def probabilities(self, features: Array) -> Array:
        """(B, d) features to (B, C): softmax over classes, or a sigmoid for each label."""
        logits = features @ (self.weight.T / self.scale) + self.bias
        return _sigmoid(logits) if self.label_kind == "multi_label" else _softmax(logits)

    def to_features(self, logit_directions: Array) -> Array:
        """(B, C) cotangents of the logits to (B, d) cotangents of the features."""
        result: Array = logit_directions @ (self.weight / self.scale)
        return result

    def image_weights(self, labels: Labels) -> Array:
        """(B,) weights of single labels, or (B, C) of every label of a multi-label image."""
        return _image_weights(self.class_weights, labels)


def fit_head(
    features: npt.NDArray[np.float32] | Array,
    labels: Labels,
    n_classes: int,
    digests: Sequence[str],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Head:
    """Fits the head, class-balanced, by L-BFGS; the penalty by FOLDS-fold cross-validation.

    `features`  (N, d); `labels` (N,) int class numbers, or (N, C) bool for multi-label
    `digests`   one per image. Folds derive from them alone: the head is a function of the images,
                so that all randomness of an embedding is in its draws and shows in `draw_error`
    """
    kind: LabelKind = "multi_label" if labels.ndim == 2 else "single_label"
    report = on_progress or (lambda done, total: None)
    space = _PrincipalSpace.of(np.asarray(features, np.float64))
    class_weights = _class_weights(labels, n_classes)
    part = _selection(labels, _shuffled(digests))
    penalty, likelihood, accuracy = _choose_penalty(
        space, part, labels[part], class_weights, report
    )
    rows = np.arange(len(labels))
    solution = _minimise(
        space,
        rows,
        labels,
        class_weights,
        penalty,
        newton_steps=NEWTON_STEPS,
        on_step=lambda: report(len(PENALTIES), len(PENALTIES) + 1),
    )
    weight = solution[:, :-1] @ space.axes
    bias = solution[:, -1] - weight @ space.mean
    report(len(PENALTIES) + 1, len(PENALTIES) + 1)
    return Head(kind, weight, bias, space.scale, class_weights, penalty, likelihood, accuracy)


@dataclass(frozen=True, slots=True)
class _PrincipalSpace:
    """The features on their principal axes.

    The penalty is the same in every rotation, the optimum lies in the features' row space and the
    bias takes up their mean, so nothing is lost; a set of N < d images works in N columns, and the
    spectrum preconditions the optimiser.

    features / scale = mean + coordinates axes, coordinates (N, r), axes (r, d) orthonormal
    """

    coordinates: Array
    axes: Array
    mean: Array
    scale: float
    variances: Array  # (r,) mean square of each coordinate

    @classmethod
    def of(cls, features: Array) -> _PrincipalSpace:
        scale = float(np.sqrt(np.mean(features**2))) or 1.0
        x = features / scale
        mean = x.mean(axis=0)
        x -= mean
        if len(x) > x.shape[1]:
            variances, axes = eigh(x.T @ x / len(x))
            variances, axes = np.maximum(variances, 0.0), axes.T
        else:
            _, singular, axes = svd(x, full_matrices=False)
            variances = singular**2 / len(x)
        kept = variances > 1e-18 * max(float(variances.max()), 1e-300)
        return cls(x @ axes[kept].T, axes[kept], mean, scale, variances[kept])


def _minimise(
    space: _PrincipalSpace,
    rows: Indices,
    labels: Labels,
    class_weights: Array,
    penalty: float,
    *,
    start: Array | None = None,
    newton_steps: int = 0,
    on_step: Callable[[], None],
) -> Array:
    """(C, r + 1) coefficients on the principal axes and bias that minimise the penalised loss.

    loss = sum_n w_n cross_entropy_n / sum_n w_n + lambda / 2 |coefficients|^2, for multi-label the
    sum over labels of binary cross-entropies. L-BFGS runs on coefficients scaled by the square
    root of the curvature expected along each axis, sqrt(p (1 - p) variance + lambda). Its line
    search ends where differences of the loss sink into rounding; Newton steps go on to where the
    gradient does, so that the order of the images cannot be seen in the solution.
    """
    n_classes = len(class_weights)
    z = np.column_stack([space.coordinates[rows], np.ones(len(rows))])
    if labels.ndim == 1:
        truth = np.zeros((len(rows), n_classes))
        truth[np.arange(len(rows)), labels] = 1.0
        sample_weights = class_weights[labels][:, None]
        probabilities, share = _softmax, 1.0 / n_classes
    else:
        truth = labels.astype(np.float64)
        sample_weights = _image_weights(class_weights, labels)
        probabilities, share = _sigmoid, 0.5
    sample_weights = sample_weights / sample_weights.sum(axis=0)
    curvature = share * (1.0 - share)
    scales = np.sqrt(np.append(curvature * space.variances + penalty, curvature))
    ridge = np.append(np.full(len(space.variances), penalty), 0.0)

    def objective(flat: Array) -> tuple[float, Array]:
        on_step()
        coefficients = flat.reshape(n_classes, -1) / scales
        logits = z @ coefficients.T
        log_p, _ = _held_out(logits, labels)
        weights = sample_weights[:, 0] if labels.ndim == 1 else sample_weights
        loss = -float((weights * log_p).sum()) + 0.5 * float((ridge * coefficients**2).sum())
        residual = sample_weights * (probabilities(logits) - truth)
        gradient = residual.T @ z + ridge * coefficients
        return loss, (gradient / scales).ravel()

    initial = np.zeros((n_classes, z.shape[1])) if start is None else start * scales
    found = minimize(
        objective,
        initial.ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"gtol": TOLERANCE, "ftol": 0.0, "maxiter": 1_000, "maxfun": 2_000, "maxcor": 20},
    ).x

    def curvature_along(direction: Array) -> Array:
        on_step()
        step = direction.reshape(n_classes, -1) / scales
        p = probabilities(z @ (found.reshape(n_classes, -1) / scales).T)
        change = z @ step.T
        change = p * change if labels.ndim == 1 else p * (1 - p) * change
        if labels.ndim == 1:
            change -= p * change.sum(axis=1, keepdims=True)
        bent = (sample_weights * change).T @ z + ridge * step
        return np.ravel(bent / scales)

    hessian = LinearOperator((found.size, found.size), matvec=curvature_along, dtype=np.float64)
    for _ in range(newton_steps):
        gradient = objective(found)[1]
        if np.abs(gradient).max() < ROUNDING:
            break
        found = found + cg(hessian, -gradient, rtol=1e-6, maxiter=200)[0]
    result: Array = found.reshape(n_classes, -1) / scales
    return result


def _class_weights(labels: Labels, n_classes: int) -> Array:
    n = len(labels)
    if labels.ndim == 1:
        return n / (n_classes * np.maximum(np.bincount(labels, minlength=n_classes), 1))
    present = labels.sum(axis=0)
    return np.stack(
        [n / (2 * np.maximum(n - present, 1)), n / (2 * np.maximum(present, 1))], axis=1
    )


def _shuffled(digests: Sequence[str]) -> Indices:
    """Image numbers in an order that depends on each image's bytes only."""
    keys = [hashlib.blake2b(digest.encode()).digest() for digest in digests]
    return np.array(sorted(range(len(keys)), key=lambda i: (keys[i], i)), dtype=np.int64)


def _selection(labels: Labels, order: Indices) -> Indices:
    """At most about SELECTION_IMAGES of `order`, the same share of every class."""
    share = min(1.0, SELECTION_IMAGES / len(order))
    if labels.ndim == 2 or share == 1.0:
        return order[: int(np.ceil(share * len(order)))]
    groups = (order[labels[order] == c] for c in np.unique(labels))
    return np.concatenate([group[: int(np.ceil(share * len(group)))] for group in groups])


def _folds(labels: Labels) -> Indices:
    """(N,) fold of each image, stratified; -1 for a class's only image, which always trains."""
    folds = np.arange(len(labels)) % FOLDS
    if labels.ndim == 1:
        for c in np.unique(labels):
            members = np.flatnonzero(labels == c)
            folds[members] = np.arange(len(members)) % FOLDS if len(members) > 1 else -1
    return folds


def _choose_penalty(
    space: _PrincipalSpace,
    part: Indices,
    labels: Labels,
    class_weights: Array,
    report: Callable[[int, int], None],
) -> tuple[float, float | None, float | None]:
    """The penalty, the held-out log-likelihood and the accuracy there.

    The strongest penalty whose held-out log-likelihood lies within one standard error of the best
    (the one-standard-error rule of Breiman et al., "Classification and Regression Trees", 1984,
    section 3.4.3). The likelihood is flat over decades of the penalty and the Fisher information
    is not: the best alone would let chance choose the embedding's size, and send a separable set
    to whatever end of the grid there is.

    From the strongest penalty down, each fit starting at the last one's solution; once two
    penalties in a row did worse than the best, weaker ones only overfit more.
    """
    folds = _folds(labels)
    used = [fold for fold in range(FOLDS) if (folds == fold).any() and (folds != fold).any()]
    if not used:
        return FALLBACK_PENALTY, None, None
    solutions: dict[int, Array | None] = dict.fromkeys(used)
    path = sorted(PENALTIES, reverse=True)
    scores: list[_Score] = []
    worse = 0
    for step, penalty in enumerate(path):

        def on_step(done: int = step) -> None:
            report(done, len(path) + 1)

        held_log_p, held_weights, held_correct = [], [], []
        for fold in used:
            train, held = folds != fold, folds == fold
            solution = _minimise(
                space,
                part[train],
                labels[train],
                class_weights,
                penalty,
                start=solutions[fold],
                on_step=on_step,
            )
            solutions[fold] = solution
            logits = space.coordinates[part[held]] @ solution[:, :-1].T + solution[:, -1]
            log_p, correct = _held_out(logits, labels[held])
            held_log_p.append(log_p)
            held_correct.append(correct)
            held_weights.append(_image_weights(class_weights, labels[held]))
        score = _score(penalty, held_log_p, held_weights, held_correct)
        improved = not scores or score.likelihood > max(s.likelihood for s in scores)
        scores.append(score)
        worse = 0 if improved else worse + 1
        report(step + 1, len(path) + 1)
        if worse == 2:
            break
    best = max(scores, key=lambda score: score.likelihood)
    enough = best.likelihood - best.error
    chosen = next(score for score in scores if score.likelihood >= enough)
    return chosen.penalty, chosen.likelihood, chosen.accuracy


@dataclass(frozen=True, slots=True)
class _Score:
    penalty: float
    likelihood: float
    error: float  # standard error of the likelihood
    accuracy: float


def _score(
    penalty: float, log_p: list[Array], weights: list[Array], correct: list[Flags]
) -> _Score:
    """From the held-out images of all folds; the labels of one image count as one observation."""
    by_image = [terms.reshape(len(terms), -1) for terms in log_p]
    weighted = [w.reshape(len(w), -1) for w in weights]
    total = sum(float(w.sum()) for w in weighted)
    likelihood = sum(float((w * t).sum()) for w, t in zip(weighted, by_image, strict=True)) / total
    squares = sum(
        float(((w * (t - likelihood)).sum(axis=1) ** 2).sum())
        for w, t in zip(weighted, by_image, strict=True)
    )
    accuracy = float(np.concatenate(correct).mean())
    return _Score(penalty, likelihood, float(np.sqrt(squares)) / total, accuracy)


def _held_out(logits: Array, labels: Labels) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Log-likelihood of the true labels and whether the most likely label is true."""
    if labels.ndim == 2:
        return -np.logaddexp(0.0, np.where(labels, -logits, logits)), (logits > 0) == labels
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    rows = np.arange(len(labels))
    return log_p[rows, labels], logits.argmax(axis=1) == labels


def _image_weights(class_weights: Array, labels: Labels) -> Array:
    if labels.ndim == 1:
        single: Array = class_weights[labels]
        return single
    return np.where(labels, class_weights[:, 1], class_weights[:, 0])


def _softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Array = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def _sigmoid(logits: Array) -> Array:
    result: Array = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return result
