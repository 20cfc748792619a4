"""Scores against independent implementations or their definitions, on made-up features."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.covariance import ledoit_wolf
from sklearn.linear_model import BayesianRidge, RidgeClassifier
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from app.cost.score_names import SCORES
from app.cost.scores import LEAST_IMAGES, NEIGHBOURS, PENALTIES, scores
from app.errors import InvalidRequest

CASES = {"more images than features": (60, 12, 3), "more features than images": (24, 40, 4)}


def made_up(n: int, d: int, classes: int, apart: float = 1.0, seed: int = 0):
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(n) % classes)
    middles = random.normal(size=(classes, d))
    return apart * middles[labels] + random.normal(size=(n, d)) + 3.0, labels


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest):
    return made_up(*request.param, apart=0.5)


def test_ridge_is_the_share_that_refits_without_each_image_get_right(case):
    x, labels = case
    y = np.eye(labels.max() + 1)[labels]
    squares = np.linalg.svd(x - x.mean(axis=0), compute_uv=False) ** 2
    squares = squares[squares > 1e-9]
    refitted = {}
    for penalty in PENALTIES:
        told = np.zeros_like(y)
        for i in range(len(x)):
            rest = np.arange(len(x)) != i
            # The features stay centred on all images: the intercept takes up the difference.
            z = np.column_stack([x - x.mean(axis=0), np.ones(len(x))])
            size = np.full(z.shape[1], penalty * squares.mean())
            size[-1] = 0.0
            gram = z[rest].T @ z[rest] + np.diag(size)
            told[i] = z[i] @ np.linalg.solve(gram, z[rest].T @ y[rest])
        refitted[float(((y - told) ** 2).mean())] = (told.argmax(axis=1) == labels).mean()
    assert scores(x, labels)["ridge"] == pytest.approx(refitted[min(refitted)], abs=1e-12)


def test_ridge_tells_about_what_scikit_learn_tells(case):
    x, labels = case
    theirs = cross_val_predict(RidgeClassifier(alpha=10.0), x, labels, cv=LeaveOneOut())
    assert scores(x, labels)["ridge"] == pytest.approx((theirs == labels).mean(), abs=0.15)


def test_neighbours_are_those_of_scikit_learn(case):
    x, labels = case
    theirs = cross_val_predict(
        KNeighborsClassifier(NEIGHBOURS, metric="cosine"), x, labels, cv=LeaveOneOut()
    )
    y = np.eye(labels.max() + 1)[labels]
    tied = 0.0
    direction = x / np.linalg.norm(x, axis=1, keepdims=True)
    alike = direction @ direction.T
    np.fill_diagonal(alike, -np.inf)
    for row in np.argsort(-alike, axis=1)[:, :NEIGHBOURS]:
        votes = np.sort(y[row].sum(axis=0))
        tied += votes[-1] == votes[-2]
    assert scores(x, labels)["knn"] == pytest.approx(
        (theirs == labels).mean(), abs=tied / len(x) + 1e-9
    )


def test_evidence_is_the_density_of_the_labels_at_its_best_precisions(case):
    """Of what is left once the mean is known, n - 1 dimensions, by scikit-learn's optimum."""
    x, labels = case
    n = len(x)
    y = np.eye(labels.max() + 1)[labels]
    y = (y - y.mean(axis=0)) / y.std(axis=0)
    basis = np.linalg.svd(np.eye(n) - 1 / n)[0][:, : n - 1]
    inside, told = basis.T @ (x - x.mean(axis=0)), []
    for column in y.T:
        fit = BayesianRidge(
            max_iter=5000,
            tol=1e-10,
            fit_intercept=False,
            alpha_1=0,
            alpha_2=0,
            lambda_1=0,
            lambda_2=0,
        ).fit(inside, basis.T @ column)
        covariance = np.eye(n - 1) / fit.alpha_ + inside @ inside.T / fit.lambda_
        told.append(multivariate_normal.logpdf(basis.T @ column, cov=covariance) / (n - 1))
    assert scores(x, labels)["logme"] == pytest.approx(np.mean(told), abs=2e-3)


def test_h_score_is_its_definition_with_a_shrunken_covariance(case):
    x, labels = case
    shrunken, _ = ledoit_wolf(x)
    means = np.stack([x[labels == c].mean(axis=0) for c in labels])
    between = np.cov(means.T, bias=True)
    expected = np.trace(np.linalg.solve(shrunken, between))
    assert scores(x, labels)["h_score"] == pytest.approx(expected, rel=1e-8)


def test_label_feature_correlation_is_that_of_the_centred_kernels(case):
    x, labels = case
    y = np.eye(labels.max() + 1)[labels]
    middle = np.eye(len(x)) - 1 / len(x)
    k, t = (middle @ z @ z.T @ middle for z in (x, y))
    expected = (k * t).sum() / np.linalg.norm(k) / np.linalg.norm(t)
    assert scores(x, labels)["lfc"] == pytest.approx(expected, rel=1e-9)


def test_leep_by_a_loop_over_images():
    x, labels = made_up(60, 5, 3)
    source = np.random.default_rng(1).dirichlet(np.ones(4), size=60)
    joint = np.zeros((3, 4))
    for label, p in zip(labels, source, strict=True):
        joint[label] += p / 60
    given = joint / joint.sum(axis=0)
    expected = np.mean([np.log(given[y] @ p) for y, p in zip(labels, source, strict=True)])
    found = scores(x, labels, source)
    assert found["leep"] == pytest.approx(expected, rel=1e-12)
    assert tuple(found) == SCORES


@pytest.mark.parametrize("name", [name for name in SCORES if name != "leep"])
def test_classes_farther_apart_score_higher(name: str):
    near, far = (scores(*made_up(80, 20, 4, apart)) for apart in (0.1, 1.5))
    assert far[name] > near[name]


def test_a_source_that_knows_the_classes_scores_higher():
    x, labels = made_up(40, 5, 4)
    knowing = np.full((40, 4), 0.02)
    knowing[np.arange(40), labels] = 0.94
    ignorant = np.full((40, 4), 0.25)
    assert scores(x, labels, knowing)["leep"] > scores(x, labels, ignorant)["leep"]


def test_fewer_images_are_told_fewer_right():
    quarter, half, whole = (
        np.mean([scores(*made_up(96, 30, 4, 0.5, seed))[name] for seed in range(5)])
        for name in ("ridge_quarter", "ridge_half", "ridge")
    )
    assert quarter < half < whole


def test_scores_are_the_same_in_another_unit(case):
    x, labels = case
    assert scores(1e3 * x, labels) == pytest.approx(scores(x, labels), rel=1e-6)


def test_several_labels_an_image_are_scored_label_by_label():
    x, labels = made_up(60, 10, 3, apart=2.0)
    flags = np.eye(3, dtype=bool)[labels]
    flags[:, 0] |= np.arange(60) % 2 == 0  # nothing in the features tells it
    found = scores(x, flags)
    assert "leep" not in found
    assert 0.75 < found["ridge"] < 0.95
    assert 0.7 < found["knn"] < 0.95


@pytest.mark.parametrize(
    ("x", "labels"),
    [
        (np.ones((LEAST_IMAGES - 1, 3)), np.arange(LEAST_IMAGES - 1) % 2),
        (np.random.default_rng(0).normal(size=(20, 3)), np.zeros(20, dtype=np.int64)),
    ],
    ids=["few images", "one class"],
)
def test_what_tells_nothing_is_refused(x, labels):
    with pytest.raises(InvalidRequest, match="tell nothing"):
        scores(x, labels)


@pytest.mark.parametrize("value", [1.0, 0.1])
def test_features_that_are_all_the_same_score_without_a_warning(value: float):
    labels = np.arange(12) % 2
    found = scores(np.full((12, 4), value), labels)
    assert np.isfinite(list(found.values())).all()
    assert (found["lfc"], found["h_score"]) == (0.0, 0.0)


def test_one_image_a_class_is_told_no_share_of():
    """Left out, its class is never told, however good the features are."""
    x = np.eye(20) + 0.01
    found = scores(x, np.arange(20))
    assert set(found) == {"logme", "h_score", "lfc"}
    labels = np.arange(60) % 15
    assert set(scores(np.random.default_rng(0).normal(size=(60, 9)), labels)) == {
        *("ridge", "knn", "logme", "h_score", "lfc")
    }, "four a class, too few for halves"


def test_labels_that_may_be_several_are_judged_one_by_one_even_where_they_are_not():
    x, labels = made_up(60, 10, 6, apart=1.0)
    flags = np.eye(6, dtype=bool)[labels]
    assert scores(x, flags)["ridge"] > scores(x, labels)["ridge"]
    found = scores(x, flags)
    assert min(found[name] for name in ("ridge", "ridge_half", "ridge_quarter")) > 0.6
