from __future__ import annotations

import hashlib

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from app.embedding.head import FALLBACK_PENALTY, Head, fit_head


def task(n: int, d: int, n_classes: int, signal: float, seed: int = 0):
    generator = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(n_classes), generator.integers(0, n_classes, n - n_classes)])
    centres = np.random.default_rng(1).normal(size=(n_classes, d))
    features = 3.0 + signal * centres[labels] + generator.normal(size=(n, d))
    digests = [hashlib.sha256(row.tobytes()).hexdigest() for row in features]
    return features, labels, digests


def fit(features, labels, digests, n_classes) -> Head:
    return fit_head(features, labels, n_classes, digests)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize(("n", "d"), [(40, 90), (120, 8)])
def test_the_optimum_is_scikit_learns(n_classes: int, n: int, d: int) -> None:
    features, labels, digests = task(n, d, n_classes, 0.5)
    head = fit(features, labels, digests, n_classes)
    strength = 1.0 / (head.penalty * n)
    if n_classes == 2:  # one logit there, two opposite ones here: half the penalty
        strength *= 2
    model = LogisticRegression(C=strength, class_weight="balanced", tol=1e-10, max_iter=100_000)
    model.fit(features / head.scale, labels)
    np.testing.assert_allclose(
        head.probabilities(features), model.predict_proba(features / head.scale), atol=1e-6
    )


def test_every_label_of_a_multi_label_task_is_its_own_balanced_regression() -> None:
    features, labels, digests = task(60, 20, 3, 0.5)
    several = np.stack([labels == 0, labels > 0, np.arange(60) % 2 == 0], axis=1)
    head = fit(features, several, digests, 3)
    for c in range(3):
        model = LogisticRegression(
            C=1.0 / (head.penalty * 60), class_weight="balanced", tol=1e-10, max_iter=100_000
        ).fit(features / head.scale, several[:, c])
        expected = model.predict_proba(features / head.scale)[:, 1]
        np.testing.assert_allclose(head.probabilities(features)[:, c], expected, atol=1e-6)


def test_labels_without_signal_get_a_strong_penalty_and_an_unsure_head() -> None:
    features, labels, digests = task(80, 200, 4, 0.0)
    noise = fit(features, labels, digests, 4)
    features, labels, digests = task(80, 200, 4, 1.0)
    signal = fit(features, labels, digests, 4)
    assert noise.penalty > 30 * signal.penalty
    assert noise.probabilities(features).max() < 0.7
    assert noise.cv_log_likelihood == pytest.approx(-np.log(4), abs=0.15)
    assert signal.cv_accuracy is not None and signal.cv_accuracy > 0.95


def test_the_head_is_as_confident_as_it_is_right_on_new_images() -> None:
    features, labels, digests = task(120, 300, 3, 0.25)
    head = fit(features, labels, digests, 3)
    fresh, truth, _ = task(3_000, 300, 3, 0.25, seed=7)
    p = head.probabilities(fresh)
    assert p.max(axis=1).mean() == pytest.approx((p.argmax(axis=1) == truth).mean(), abs=0.08)


def test_the_images_order_changes_nothing() -> None:
    features, labels, digests = task(50, 100, 3, 0.3)
    head = fit(features, labels, digests, 3)
    order = np.random.default_rng(3).permutation(50)
    other = fit(features[order], labels[order], [digests[i] for i in order], 3)
    assert other.penalty == head.penalty
    np.testing.assert_allclose(other.weight, head.weight, atol=1e-11)


def test_classes_of_one_image_each_leave_nothing_to_validate_on() -> None:
    features, labels, digests = task(3, 10, 3, 1.0)
    head = fit(features, labels, digests, 3)
    assert (head.penalty, head.cv_accuracy, head.cv_log_likelihood) == (
        FALLBACK_PENALTY,
        None,
        None,
    )


def test_a_label_every_image_has_gets_no_weight() -> None:
    features, labels, digests = task(40, 10, 2, 1.0)
    several = np.stack([labels == 0, np.ones(40, bool)], axis=1)
    head = fit(features, several, digests, 2)
    assert np.abs(head.weight[1]).max() < 1e-6
    assert head.probabilities(features)[:, 1].min() > 0.999


def test_class_weights_balance_unequal_classes() -> None:
    features, _, digests = task(40, 10, 2, 0.0)
    labels = np.r_[np.zeros(36, int), np.ones(4, int)]
    head = fit(features, labels, digests, 2)
    assert head.image_weights(labels)[labels == 0].sum() == pytest.approx(20)
    assert head.image_weights(labels)[labels == 1].sum() == pytest.approx(20)
