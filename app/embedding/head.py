"""The head: a linear classifier on the probe's pooled features, calibrated by its penalty.

A small set is linearly separable in a thousand features. Without a penalty the logits grow without
bound, p becomes one-hot, and the Fisher information, which is p (1 - p) at heart, sinks into
rounding. The L2 penalty is therefore chosen by cross-validated log-likelihood: the head claims as
much confidence as it shows on images it has not seen, and the embedding's size means something.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.embedding.dataset import LabelKind
from app.embedding.penalty import PENALTIES, choose_penalty
from app.embedding.portion import balanced_part
from app.embedding.regression import (
    Array,
    Features,
    Labels,
    PrincipalSpace,
    image_weights_of,
    minimise,
    rows_of,
    sigmoid,
    softmax,
)

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
        return sigmoid(logits) if self.label_kind == "multi_label" else softmax(logits)

    def to_features(self, logit_directions: Array) -> Array:
        """(B, C) cotangents of the logits to (B, d) cotangents of the features."""
        result: Array = logit_directions @ (self.weight / self.scale)
        return result

    def image_weights(self, labels: Labels) -> Array:
        """(B,) weights of single labels, or (B, C) of every label of a multi-label image."""
        return image_weights_of(self.class_weights, labels)


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
    report = on_progress or (lambda done, total: None)
    space = PrincipalSpace.of(features)
    rows = rows_of(space, features)
    class_weights = _class_weights(labels, n_classes)
    part = balanced_part(labels, digests, SELECTION_IMAGES)
    choice = choose_penalty(rows.take(part), labels[part], class_weights, penalties, report)
    nearby = [solution for solution, _ in choice.left_out]
    solution = minimise(
        rows,
        labels,
        class_weights,
        choice.penalty,
        start=np.mean(nearby, axis=0) if nearby else None,
        on_step=lambda: report(len(penalties), len(penalties) + 1),
    )
    report(len(penalties) + 1, len(penalties) + 1)
    fitted = _head(space, solution, labels, class_weights, choice.penalty)
    return replace(
        fitted,
        cv_log_likelihood=choice.likelihood,
        cv_accuracy=choice.accuracy,
        left_out=tuple(
            _head(space, solution, labels, class_weights, penalty)
            for solution, penalty in choice.left_out
        ),
        left_out_share=len(part) / len(labels),
    )


def fit_unvalidated(features: Features, labels: Labels, n_classes: int, penalty: float) -> Head:
    """The head of that penalty, as `fit_head` would fit it, with nothing held out."""
    space = PrincipalSpace.of(features)
    class_weights = _class_weights(labels, n_classes)
    solution = minimise(
        rows_of(space, features), labels, class_weights, penalty, on_step=lambda: None
    )
    return _head(space, solution, labels, class_weights, penalty)


def _head(
    space: PrincipalSpace, solution: Array, labels: Labels, class_weights: Array, penalty: float
) -> Head:
    weight = solution[:, :-1] @ space.axes
    return Head(
        label_kind="multi_label" if labels.ndim == 2 else "single_label",
        weight=weight,
        bias=solution[:, -1] - weight @ space.mean,
        scale=space.scale,
        class_weights=class_weights,
        penalty=penalty,
        cv_log_likelihood=None,
        cv_accuracy=None,
    )


def _class_weights(labels: Labels, n_classes: int) -> Array:
    n = len(labels)
    if labels.ndim == 1:
        return n / (n_classes * np.maximum(np.bincount(labels, minlength=n_classes), 1))
    present = labels.sum(axis=0)
    return np.stack(
        [n / (2 * np.maximum(n - present, 1)), n / (2 * np.maximum(present, 1))], axis=1
    )
