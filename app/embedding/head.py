"""The head: a linear classifier on the probe's pooled features, calibrated by its penalty.

A small set is linearly separable in a thousand features. Without a penalty the logits grow without
bound, p becomes one-hot, and the Fisher information, which is p (1 - p) at heart, sinks into
rounding. The L2 penalty is therefore chosen by cross-validated log-likelihood: the head claims as
much confidence as it shows on images it has not seen, and the embedding's size means something.

Memory does not grow with the number of images, but for their labels: a set of more than
CHUNK_IMAGES is never held in float64. Its features, an array or a memory map, are read chunk by
chunk in every evaluation of the loss, its gradient or its curvature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh, svd
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, cg

from app.embedding.dataset import LabelKind

Array = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32] | Array
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
DOUBT = 2.0
"""Standard errors at which a penalty's vote is down to 0.6. Over pairs of sets of one task from
other images, of 1, 2, the one-standard-error rule and the best alone, 2 keeps the Fisher's size
steadiest against its spread between tasks."""
SELECTION_IMAGES = 4_000
"""At most so many images choose the penalty; all of them fit the head."""
CHUNK_IMAGES = 4_096
"""Images that are worked on together: up to so many are kept as float64 coordinates, and the
largest matrices have so many rows of d + 1 or C float64 numbers."""
HISTORY, LEAST_HISTORY, HISTORY_BYTES = 20, 4, 128 * 2**20
"""Pairs of steps and gradients that L-BFGS remembers: fewer, but never less than so few, where
they would take more than so many bytes (from some 320 classes on 1,280 features)."""


@dataclass(frozen=True, slots=True)
class Head:
    """A fitted head. With features f of one image, logits o = f W^T / scale + b.

    `weight`               (C, d) float64
    `bias`                 (C,) float64
    `scale`                root mean square of the features it was fitted on
    `class_weights`        (C,) for single_label: N / (C n_c); (C, 2) for multi_label: weight of an
                           absent and of a present label
    `penalty`              lambda as in PENALTIES
    `cv_log_likelihood`    mean balanced log-likelihood of held-out images, nats, at the penalty
                           tried that is nearest
    `cv_accuracy`          share of held-out labels it gets right, at the same folds that chose the
                           penalty (so slightly hopeful); None where nothing could be held out
    `left_out`             what it would be without one fold of the images that chose the penalty,
                           fold by fold, each with the penalty that the others choose
    `left_out_share`       those images' share of all
    """

    label_kind: LabelKind
    weight: Array
    bias: Array
    scale: float
    class_weights: Array
    penalty: float
    cv_log_likelihood: float | None
    cv_accuracy: float | None
    left_out: tuple[Head, ...] = ()
    left_out_share: float = 1.0

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
    features: Features,
    labels: Labels,
    n_classes: int,
    digests: Sequence[str],
    *,
    penalties: Sequence[float] = PENALTIES,
    on_progress: Callable[[int, int], None] | None = None,
) -> Head:
    """Fits the head, class-balanced, by L-BFGS; the penalty by FOLDS-fold cross-validation.

    `features`     (N, d), in memory or a memory map; `labels` (N,) int class numbers, or (N, C)
                   bool for multi-label
    `digests`      one per image. Folds derive from them alone: the head is a function of the
                   images, so that all randomness of an embedding is in its draws and shows in
                   `draw_error`
    `penalties`    one or more to choose from, each positive. A single one is taken as it is; what
                   cross-validation says of it still stands in `cv_*`
    `on_progress`  called with steps done and their total, after every chunk; what it raises stops
                   the work
    """
    kind: LabelKind = "multi_label" if labels.ndim == 2 else "single_label"
    report = on_progress or (lambda done, total: None)
    space = _PrincipalSpace.of(features)
    rows: _Rows = _Streamed(space, features)
    if len(features) <= CHUNK_IMAGES:
        rows = rows.take(np.arange(len(features)))
    class_weights = _class_weights(labels, n_classes)
    part = _selection(labels, _shuffled(digests))
    choice = _choose_penalty(rows.take(part), labels[part], class_weights, penalties, report)

    def made(solution: Array, penalty: float, left_out: tuple[Head, ...] = ()) -> Head:
        weight = solution[:, :-1] @ space.axes
        return Head(
            label_kind=kind,
            weight=weight,
            bias=solution[:, -1] - weight @ space.mean,
            scale=space.scale,
            class_weights=class_weights,
            penalty=penalty,
            cv_log_likelihood=choice.likelihood,
            cv_accuracy=choice.accuracy,
            left_out=left_out,
            left_out_share=len(part) / len(labels),
        )

    solution = _minimise(
        rows,
        labels,
        class_weights,
        choice.penalty,
        newton_steps=NEWTON_STEPS,
        on_step=lambda: report(len(penalties), len(penalties) + 1),
    )
    report(len(penalties) + 1, len(penalties) + 1)
    return made(solution, choice.penalty, tuple(made(*found) for found in choice.left_out))


@dataclass(frozen=True, slots=True)
class _PrincipalSpace:
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
    def of(cls, features: Features) -> _PrincipalSpace:
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
class _Coordinates:
    """The images of one fit, on the principal axes."""

    space: _PrincipalSpace
    z: Array  # (N, r + 1), the last column is 1

    def take(self, rows: Indices) -> _Coordinates:
        return _Coordinates(self.space, self.z[rows])

    def chunks(self) -> Iterator[tuple[slice, Array]]:
        for start in range(0, len(self.z), CHUNK_IMAGES):
            place = slice(start, start + CHUNK_IMAGES)
            yield place, self.z[place]

    def on_columns(self, coefficients: Array) -> Array:
        return coefficients

    def on_axes(self, gradient: Array) -> Array:
        return gradient


@dataclass(frozen=True, slots=True)
class _Streamed:
    """The images of one fit, as their features.

    Instead of the images, the coefficients are taken from the principal axes to the features, and
    the gradient back: as exact, and nothing with a row for every image is ever stored.
    """

    space: _PrincipalSpace
    features: Features  # (N, d)

    def take(self, rows: Indices) -> _Coordinates:
        z = np.ones((len(rows), len(self.space.axes) + 1))
        for start in range(0, len(rows), CHUNK_IMAGES):
            place = slice(start, start + CHUNK_IMAGES)
            z[place, :-1] = self.space.coordinates(self.features[rows[place]])
        return _Coordinates(self.space, z)

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


_Rows = _Coordinates | _Streamed


def _minimise(
    rows: _Rows,
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

    `on_step`  called for every chunk that is worked on
    """
    n_classes = len(class_weights)
    single = labels.ndim == 1
    probabilities = _softmax if single else _sigmoid
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
            chunk_weights = _image_weights(weights, truth)
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

    def hessian(flat: Array) -> LinearOperator:
        columns = rows.on_columns(flat.reshape(n_classes, -1) / scales)
        known: list[Array] = []
        if len(labels) <= CHUNK_IMAGES:
            known = [probabilities(z @ columns.T) for _, z in rows.chunks()]

        def along(direction: Array) -> Array:
            step = direction.reshape(n_classes, -1) / scales
            step_columns = rows.on_columns(step)
            bent = np.zeros_like(columns)
            for place, z in rows.chunks():
                on_step()
                p = known[0] if known else probabilities(z @ columns.T)
                change = z @ step_columns.T
                change *= p if single else p * (1 - p)
                if single:
                    change -= p * change.sum(axis=1, keepdims=True)
                chunk_weights = _image_weights(weights, labels[place])
                change *= chunk_weights[:, None] if single else chunk_weights
                bent += change.T @ z
            return np.ravel((rows.on_axes(bent) + ridge * step) / scales)

        return LinearOperator((flat.size, flat.size), matvec=along, dtype=np.float64)

    for _ in range(newton_steps):
        gradient = objective(found)[1]
        if np.abs(gradient).max() < ROUNDING:
            break
        found = found + cg(hessian(found), -gradient, rtol=1e-6, maxiter=200)[0]
    result: Array = found.reshape(n_classes, -1) / scales
    return result


def _log_p_and_residual(logits: Array, labels: Labels) -> tuple[Array, Array]:
    """Log-likelihood of the true labels, and p - truth in the place of the logits."""
    if labels.ndim == 2:
        log_p, _ = _held_out(logits, labels)
        residual = _sigmoid(logits)
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
        weights = _image_weights(class_weights, labels[start : start + CHUNK_IMAGES])
        total += weights.reshape(len(weights), -1).sum(axis=0)
    return total if labels.ndim == 1 else total[:, None]


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


@dataclass(frozen=True, slots=True)
class _Choice:
    """`left_out`: coefficients and penalty without each fold. None: nothing could be held out."""

    penalty: float
    likelihood: float | None
    accuracy: float | None
    left_out: tuple[tuple[Array, float], ...] = ()


@dataclass(frozen=True, slots=True)
class _Trial:
    """One penalty on held-out images: `terms` (n,) weighted log-likelihoods, `correct` labels."""

    penalty: float
    terms: Array
    correct: Flags


def _choose_penalty(
    rows: _Coordinates,
    labels: Labels,
    class_weights: Array,
    penalties: Sequence[float],
    report: Callable[[int, int], None],
) -> _Choice:
    """The penalty by a vote of those that are about as good as the best on held-out images.

    `rows` and `labels` of the images that choose, in the order that makes the folds.

    From the strongest penalty down, each fit starting at the last one's solution; once two
    penalties in a row did worse than the best, weaker ones only overfit more.
    """
    folds = _folds(labels)
    used = [fold for fold in range(FOLDS) if (folds == fold).any() and (folds != fold).any()]
    if not used:
        return _Choice(penalties[0] if len(penalties) == 1 else FALLBACK_PENALTY, None, None)
    weights = _image_weights(class_weights, labels)
    image_weights = weights if weights.ndim == 1 else weights.sum(axis=1)
    solutions: dict[int, Array | None] = dict.fromkeys(used)
    path = sorted(penalties, reverse=True)
    trials: list[_Trial] = []

    def fitted(fold: int, penalty: float, on_step: Callable[[], None]) -> Array:
        train = np.flatnonzero(folds != fold)
        return _minimise(
            rows.take(train),
            labels[train],
            class_weights,
            penalty,
            start=solutions[fold],
            newton_steps=NEWTON_STEPS,  # what was left of the gradient would show in the vote
            on_step=on_step,
        )

    for step, penalty in enumerate(path):

        def on_step(done: int = step) -> None:
            report(done, len(path) + 1)

        terms = np.zeros(len(labels))
        correct = np.zeros(labels.shape, dtype=bool)
        for fold in used:
            held = np.flatnonzero(folds == fold)
            solutions[fold] = solution = fitted(fold, penalty, on_step)
            log_p, correct[held] = _held_out(rows.take(held).z @ solution.T, labels[held])
            weighted = weights[held] * log_p
            terms[held] = weighted if weighted.ndim == 1 else weighted.sum(axis=1)
        trials.append(_Trial(penalty, terms, correct[folds >= 0]))
        report(step + 1, len(path) + 1)
        likelihoods = [trial.terms.sum() for trial in trials]
        if len(trials) > 2 and max(likelihoods[-2:]) <= max(likelihoods[:-2]):
            break
    penalty = _voted(trials, folds >= 0)
    nearest = min(trials, key=lambda trial: abs(np.log(trial.penalty / penalty)))
    held_out = folds >= 0
    left_out = []
    for fold in used:
        voted = _voted(trials, held_out & (folds != fold)) if len(used) > 1 else penalty
        left_out.append((fitted(fold, voted, lambda: report(len(path), len(path) + 1)), voted))
    return _Choice(
        penalty,
        float(nearest.terms.sum() / image_weights[held_out].sum()),
        float(nearest.correct.mean()),
        tuple(left_out),
    )


def _voted(trials: Sequence[_Trial], images: Flags) -> float:
    """The penalties' mean on a log scale, weighted by how far each is from the best.

    A penalty whose held-out log-likelihood lies t standard errors of their difference, image by
    image, below the best has the weight exp(-(t / DOUBT)^2 / 2). The likelihood is flat over
    decades of the penalty and the Fisher information is not: a choice of one, the best or the
    strongest within a standard error, jumps between sets that differ by chance, and with it the
    embedding's size.
    """
    if len(trials) == 1:
        return trials[0].penalty
    terms = np.stack([trial.terms[images] for trial in trials])
    gaps = terms[np.argmax(terms.sum(axis=1))] - terms
    errors = np.sqrt(((gaps - gaps.mean(axis=1, keepdims=True)) ** 2).sum(axis=1))
    total = gaps.sum(axis=1)
    t = np.divide(total, errors, out=np.where(total > 0, np.inf, 0.0), where=errors > 0)
    votes = np.exp(-0.5 * (t / DOUBT) ** 2)
    logs = np.log([trial.penalty for trial in trials])
    return float(np.exp(votes @ logs / votes.sum()))


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
