from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from app.embedding import regression
from app.embedding.head import Head, fit_head
from app.embedding.penalty import FALLBACK_PENALTY, FOLDS, PENALTIES


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
@pytest.mark.parametrize("chunk", [4_096, 25])
def test_the_optimum_is_scikit_learns(
    chunk: int, n_classes: int, n: int, d: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regression, "CHUNK_IMAGES", chunk)
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
    assert other.penalty == pytest.approx(head.penalty, rel=1e-9)
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


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize(("n", "d"), [(60, 90), (150, 12)])
def test_the_size_of_chunks_changes_nothing(
    n: int, d: int, multi_label: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, labels, digests = task(n, d, 3, 0.4)
    if multi_label:
        labels = np.stack([labels == 0, labels > 0, np.arange(n) % 2 == 0], axis=1)
    heads = []
    for chunk in (n, n - 1, 16, 7):
        monkeypatch.setattr(regression, "CHUNK_IMAGES", chunk)
        heads.append(fit(features.astype(np.float32), labels, digests, 3))
    whole = heads[0]
    for head in heads[1:]:
        assert head.penalty == pytest.approx(whole.penalty, rel=1e-6)
        assert head.cv_accuracy == whole.cv_accuracy
        assert head.cv_log_likelihood == pytest.approx(whole.cv_log_likelihood, rel=1e-6)
        np.testing.assert_allclose(head.weight, whole.weight, atol=1e-6)
        np.testing.assert_allclose(head.bias, whole.bias, atol=1e-6)


def test_short_memory_of_the_optimiser_leads_to_the_same_head(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features, labels, digests = task(60, 90, 4, 0.4)
    head = fit(features, labels, digests, 4)
    monkeypatch.setattr(regression, "HISTORY_BYTES", 0)
    other = fit(features, labels, digests, 4)
    assert other.penalty == pytest.approx(head.penalty, rel=1e-6)
    np.testing.assert_allclose(other.weight, head.weight, atol=1e-6)


@pytest.mark.parametrize("multi_label", [False, True])
def test_memory_does_not_grow_with_the_images(multi_label: bool, tmp_path: Path) -> None:
    """Both sets are larger than a chunk. The larger one alone is 39 MiB in float32."""

    def peak(n: int) -> int:
        features = np.memmap(tmp_path / f"{n}", np.float32, "w+", shape=(n, 256))
        labels = np.arange(n) % 2
        for start in range(0, n, 10_000):
            rows = slice(start, min(start + 10_000, n))
            noise = np.random.default_rng(start).normal(size=(rows.stop - start, 256))
            features[rows] = noise + 0.1 * labels[rows, None]
        if multi_label:
            labels = np.stack([labels == 0, labels == 1], axis=1)
        digests = [str(i) for i in range(n)]
        tracemalloc.start()
        fit_head(features, labels, 2, digests, penalties=(1.0,))
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    smaller, larger = peak(10_000), peak(40_000)
    assert larger < 64 * 2**20
    assert larger - smaller < 30_000 * 300  # what sorts the digests, and nothing with d entries


def test_a_single_penalty_is_taken_and_still_validated() -> None:
    features, labels, digests = task(60, 20, 3, 0.5)
    head = fit_head(features, labels, 3, digests, penalties=(0.3,))
    assert head.penalty == 0.3
    assert head.cv_accuracy is not None and head.cv_accuracy > 0.5
    assert head.cv_log_likelihood is not None and head.cv_log_likelihood > -np.log(3)
    lonely = fit_head(features[:3], labels[:3], 3, digests[:3], penalties=(0.3,))
    assert (lonely.penalty, lonely.cv_accuracy) == (0.3, None)


def test_progress_ends_at_its_total() -> None:
    features, labels, digests = task(60, 20, 3, 0.5)
    heard: list[tuple[int, int]] = []
    fit_head(
        features,
        labels,
        3,
        digests,
        penalties=(0.1, 1.0),
        on_progress=lambda done, total: heard.append((done, total)),
    )
    assert heard == sorted(heard)
    assert heard[-1] == (3, 3) and {total for _, total in heard} == {3}


def test_three_hundred_classes_of_three_images() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(300), 3)
    features = generator.normal(size=(300, 40))[labels] + 0.3 * generator.normal(size=(900, 40))
    digests = [str(i) for i in range(900)]
    head = fit_head(features, labels, 300, digests, penalties=(0.001, 0.01))
    assert head.cv_accuracy is not None and head.cv_accuracy > 0.7
    assert (head.probabilities(features).argmax(axis=1) == labels).mean() > 0.95


@pytest.mark.parametrize("rare", [1, 3])
def test_a_class_of_one_in_a_thousand_counts_as_much_as_the_other(rare: int) -> None:
    generator = np.random.default_rng(0)
    labels = np.r_[np.zeros(1_000 * rare, int), np.ones(rare, int)]
    features = generator.normal(size=(len(labels), 10)) + 4.0 * labels[:, None]
    head = fit(features, labels, [str(i) for i in range(len(labels))], 2)
    assert head.image_weights(labels)[labels == 1].sum() == pytest.approx(len(labels) / 2)
    p = head.probabilities(features)[:, 1]
    assert p[labels == 1].min() > 0.5 > p[labels == 0].mean()


def test_a_label_that_one_image_has() -> None:
    features, labels, digests = task(200, 10, 2, 1.0)
    several = np.stack([labels == 0, np.arange(200) == 17], axis=1)
    head = fit(features, several, digests, 2)
    assert head.cv_log_likelihood is not None and np.isfinite(head.cv_log_likelihood)
    p = head.probabilities(features)[:, 1]
    assert p.argmax() == 17
    assert p[several[:, 1]].mean() > p[~several[:, 1]].mean()


def test_the_penalty_is_a_vote_and_so_steadier_than_any_single_choice() -> None:
    """Sets of one task by chance of other images: their penalties differ less than the best do."""
    voted, best = [], []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        labels = np.arange(60) % 2
        features = generator.normal(0, 1, (60, 30))
        features[:, 0] += 1.5 * labels
        digests = [f"{seed} {i}" for i in range(60)]
        voted.append(np.log(fit_head(features, labels, 2, digests).penalty))
        scores = {
            penalty: fit_head(features, labels, 2, digests, penalties=(penalty,)).cv_log_likelihood
            for penalty in PENALTIES
        }
        best.append(np.log(max(scores, key=scores.get)))
    assert np.std(voted) < 0.8 * np.std(best)
    assert abs(np.mean(voted) - np.mean(best)) < 2 * np.std(best)


def test_each_left_out_head_is_the_one_its_images_alone_would_give() -> None:
    features, labels, digests = task(60, 20, 3, 0.5)
    head = fit_head(features, labels, 3, digests, penalties=(0.3,))
    assert len(head.left_out) == FOLDS
    assert head.left_out_share == 1.0
    assert all(other.penalty == 0.3 for other in head.left_out)
    spread = np.std([other.weight for other in head.left_out], axis=0).max()
    assert 0 < spread < np.abs(head.weight).max()
    middle = np.mean([other.weight for other in head.left_out], axis=0)
    assert np.abs(middle - head.weight).max() < 2 * spread
