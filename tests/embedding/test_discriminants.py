from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from app.embedding import discriminants as module
from app.embedding.discriminants import LEAST_SPREAD, PENALTY, discriminants
from app.embedding.vector import RANK

K, KINDS = 9, np.repeat([0, 1, 2], 3)


def made_up(n: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Responses of three scales whose class means lie apart, labels, and digests."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % n_classes
    means = generator.normal(size=(n_classes, K))
    scales = np.repeat([1.0, 30.0, 0.01], 3)
    responses = (means[labels] + generator.normal(size=(n, K))) * scales + 5 * scales
    return responses.astype(np.float32), labels, [f"{seed}-{i}" for i in range(n)]


def information(axes: np.ndarray) -> np.ndarray:
    return axes.T.astype(np.float64) @ axes


def standardised(responses: np.ndarray) -> np.ndarray:
    x = responses.astype(np.float64) - responses.mean(axis=0, dtype=np.float64)
    variance = (x**2).mean(axis=0)
    of_kind = np.array([variance[kind == KINDS].mean() for kind in KINDS])
    return x / np.sqrt(variance + LEAST_SPREAD**2 * of_kind)


def softmax(logits: np.ndarray) -> np.ndarray:
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("counts", [(20, 20, 20), (40, 10, 5)], ids=["even", "uneven"])
def test_the_axes_hold_the_fisher_information_of_the_responses(counts: tuple[int, ...]) -> None:
    """From its definition: a head by a general optimiser, J^T (diag p - p p^T) J image by image."""
    responses, _, digests = made_up(sum(counts), 3)
    labels = np.repeat(np.arange(3), counts)
    x = standardised(responses)
    scale = np.sqrt((x**2).mean())
    weights = (1 / np.array(counts))[labels]
    weights /= weights.sum()

    def loss(flat: np.ndarray) -> float:
        w = flat.reshape(3, K + 1)
        p = softmax(x / scale @ w[:, :K].T + w[:, K])
        return -weights @ np.log(p[np.arange(len(x)), labels]) + PENALTY / 2 * (w[:, :K] ** 2).sum()

    w = minimize(loss, np.zeros(3 * (K + 1)), options={"gtol": 1e-9}).x.reshape(3, K + 1)
    jacobian = w[:, :K] / scale
    expected = np.zeros((K, K))
    for row, weight in zip(x / scale, weights, strict=True):
        p = softmax((w[:, :K] @ row + w[:, K])[None])[0]
        expected += weight * jacobian.T @ (np.diag(p) - np.outer(p, p)) @ jacobian
    found = discriminants(responses, KINDS, labels, 3, digests)
    assert found.shape == (RANK, K)
    assert not found[2:].any()  # the rank is less than the number of classes
    np.testing.assert_allclose(information(found), expected, atol=1e-4 * expected.max())


def test_of_many_classes_the_largest_axes_are_kept() -> None:
    responses, labels, digests = made_up(120, 8)
    found = information(discriminants(responses, KINDS, labels, 8, digests))
    assert np.linalg.matrix_rank(found) == RANK
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "RANK", 7)
        whole = information(discriminants(responses, KINDS, labels, 8, digests))
    values, axes = np.linalg.eigh(whole)
    largest = (axes[:, -RANK:] * values[-RANK:]) @ axes[:, -RANK:].T
    np.testing.assert_allclose(found, largest, atol=1e-5 * values[-1])


@pytest.mark.parametrize("multi_label", [False, True])
def test_neither_order_nor_units_of_a_kind_matter(multi_label: bool) -> None:
    responses, labels, digests = made_up(60, 3)
    if multi_label:
        labels = np.stack([labels == 0, labels != 1], axis=1)
    found = discriminants(responses, KINDS, labels, 3 - multi_label, digests)
    assert np.linalg.norm(found) > 0
    order = np.random.default_rng(1).permutation(60)
    units = np.array([1.0, 1000.0, 0.1], np.float32)[KINDS]
    other = discriminants(
        responses[order] * units,
        KINDS,
        labels[order],
        3 - multi_label,
        [digests[i] for i in order],
    )
    np.testing.assert_allclose(other, found, atol=1e-5 * np.abs(found).max())


def test_a_response_that_hardly_varies_is_not_blown_up() -> None:
    """Its whole variation tells the classes apart, and yet it counts for less than a loud one."""
    responses, labels, digests = made_up(80, 2)
    responses[:, :3] = np.random.default_rng(2).normal(size=(80, 3))
    responses[:, 0] = 1e-6 * labels
    responses[:, 1] += 3 * labels
    axis = discriminants(responses, KINDS, labels, 2, digests)[0]
    assert abs(axis[0]) < 1e-4 * abs(axis[1])


def test_images_that_are_all_alike_have_no_discriminants() -> None:
    responses = np.ones((10, K), np.float32)
    labels = np.arange(10) % 2
    found = discriminants(responses, KINDS, labels, 2, [str(i) for i in range(10)])
    np.testing.assert_array_equal(found, np.zeros((RANK, K), np.float32))


def test_of_a_large_set_a_part_is_looked_at_whatever_its_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_IMAGES", 60)
    responses, labels, digests = made_up(600, 3)
    found = discriminants(responses, KINDS, labels, 3, digests)
    reversed_ = discriminants(responses[::-1], KINDS, labels[::-1], 3, digests[::-1])
    np.testing.assert_allclose(found, reversed_, atol=1e-5 * np.abs(found).max())
    monkeypatch.setattr(module, "MOST_IMAGES", 600)
    assert not np.allclose(found, discriminants(responses, KINDS, labels, 3, digests), rtol=0.01)
