from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from app.embedding.directions import DOMAIN_PENALTY, logit_directions
from app.embedding.fisher import estimate_fisher
from app.embedding.head import Head, fit_head
from app.embedding.probe import Probe, load_probe
from app.embedding.recorder import Recorder
from app.embedding.sample_mean import SampleMean
from tests.probes import coloured_noise, original_network, probe_card
from tests.reference.naive_fisher import naive_fisher

NETWORKS = [
    "test_resnet",
    "test_efficientnet",
    "test_convnext",
    "test_vit",
    "tf_efficientnet_lite0",
]


def features_of(probe: Probe, images) -> np.ndarray:
    return probe.features(images.pixels).numpy().astype(np.float64)


def head_of(probe: Probe, images) -> tuple[Head, np.ndarray]:
    features = features_of(probe, images)
    head = fit_head(features, images.labels, len(images.classes), images.digests)
    return head, features


def fisher_of(probe, images, head, features, estimator="exact", draws=2, seed=0, batch_size=16):
    return estimate_fisher(
        images,
        probe,
        head,
        features,
        estimator=estimator,
        draws=draws,
        tolerance=None,
        seed=seed,
        batch_size=batch_size,
        on_batch=lambda done: None,
    )


@pytest.fixture(scope="module")
def double_probe(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    card = probe_card(tmp_path_factory.mktemp("probe"), "test_resnet")
    return load_probe(card, "cpu", torch.float64)


@pytest.mark.parametrize("multi_label", [False, True], ids=["single_label", "multi_label"])
@pytest.mark.parametrize("network", NETWORKS)
def test_exact_equals_the_naive_oracle(network: str, multi_label: bool, tmp_path: Path) -> None:
    card = probe_card(tmp_path, network)
    probe = load_probe(card, "cpu", torch.float64)
    original = original_network(card, torch.float64)
    images = coloured_noise(5, 3, multi_label=multi_label)
    head, features = head_of(probe, images)
    if multi_label:  # the oracle knows no label weights
        head = replace(head, class_weights=np.ones_like(head.class_weights))

    found = fisher_of(probe, images, head, features)

    per_image = naive_fisher(
        original,
        [original.get_submodule(layer.name).weight for layer in probe.layers],
        torch.from_numpy(head.weight / head.scale),
        torch.from_numpy(head.bias),
        probe.normalise(images.pixels),
        multi_label=multi_label,
    )
    weights = np.ones(5) if multi_label else head.image_weights(images.labels)
    naive = torch.cat(per_image, dim=1).numpy()
    expected = (weights[:, None] * naive).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(found.vector, expected, rtol=1e-9, atol=1e-12 * expected.max())
    assert found.draw_error.max() == 0.0


@pytest.mark.parametrize("estimator", ["hutchinson", "mc"])
@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
def test_directions_have_the_fisher_covariance(estimator: str, kind: str) -> None:
    p = np.array([[0.6, 0.3, 0.1]])
    v = np.concatenate(
        [logit_directions(estimator, kind, p, ["image"], 0, i) for i in range(20_000)]
    )
    row = p[0]
    expected = (
        np.diag(row * (1 - row)) if kind == "multi_label" else np.diag(row) - np.outer(row, row)
    )
    np.testing.assert_allclose(v.T @ v / len(v), expected, atol=0.01)


@pytest.mark.parametrize(
    "p", [[0.6, 0.3, 0.1], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.5, 0.0], [1 - 1e-16, 1e-16, 0]]
)
def test_exact_directions_sum_to_the_fisher_covariance(p: list[float]) -> None:
    """In one pass fewer than there are classes, and also where p is saturated."""
    row = np.array([p])
    v = np.concatenate(
        [logit_directions("exact", "single_label", row, ["x"], 0, c) for c in range(2)]
    )
    np.testing.assert_allclose(v.T @ v, np.diag(row[0]) - np.outer(row[0], row[0]), atol=1e-15)


@pytest.mark.parametrize("estimator", ["hutchinson", "mc"])
def test_draws_are_unbiased_and_the_draw_error_covers_them(
    estimator: str, double_probe: Probe
) -> None:
    images = coloured_noise(24, 3)
    head, features = head_of(double_probe, images)
    exact = fisher_of(double_probe, images, head, features, batch_size=24).vector
    runs = [
        fisher_of(double_probe, images, head, features, estimator, 4, seed, 24)
        for seed in range(12)
    ]
    errors = np.stack([run.vector - exact for run in runs])
    alive = exact > 0
    spread = np.sqrt((errors**2).mean(axis=0))
    claimed = np.sqrt(np.mean([run.draw_error**2 for run in runs], axis=0))
    assert 0.7 < np.median(claimed[alive] / spread[alive]) < 1.4
    alive = claimed > 0
    z = errors.mean(axis=0)[alive] / (claimed[alive] / np.sqrt(len(runs)))
    assert abs(np.median(z)) < 2.5


def test_hutchinson_is_more_often_near_exact_than_mc_where_the_head_is_confident(
    double_probe: Probe,
) -> None:
    """Labels drawn from a peaked p rarely show the gradients that matter."""
    images = coloured_noise(24, 3)
    head, features = head_of(double_probe, images)
    spread = (features @ head.weight.T / head.scale).std()
    confident = replace(head, weight=head.weight * 2 / spread, bias=0 * head.bias)
    exact = fisher_of(double_probe, images, confident, features).vector
    errors = {
        estimator: np.median(
            [
                np.linalg.norm(
                    fisher_of(double_probe, images, confident, features, estimator, 2, seed).vector
                    - exact
                )
                for seed in range(8)
            ]
        )
        for estimator in ("hutchinson", "mc")
    }
    assert errors["hutchinson"] < 0.7 * errors["mc"]


def test_a_filter_without_gradient_is_exactly_zero(tmp_path: Path) -> None:
    card = probe_card(tmp_path, "test_resnet", silenced=("conv1.1", 3))
    probe = load_probe(card, "cpu")
    layer = probe.layers[0]
    images = coloured_noise(8, 2)
    head, features = head_of(probe, images)
    found = fisher_of(probe, images, head, features, "hutchinson")
    for part in (found.vector, found.domain, found.draw_error, found.sampling_error):
        assert part[layer.start + 3] == 0.0
        assert part[layer.start + 4] > 0.0


def test_a_recorder_lets_go_of_its_graph(double_probe: Probe) -> None:
    with Recorder(double_probe) as recorder:
        recorder.forward(coloured_noise(4, 2).pixels)
        recorder.backward(np.ones((4, double_probe.n_features)))
    left = weakref.ref(recorder)
    del recorder
    gc.collect()
    assert left() is None


def test_tally_gives_the_stratified_mean_and_error() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [5, 9, 1])
    means = generator.gamma(2.0, 1.0, (15, 4))
    weights = (15 / (3 * np.array([5, 9, 1])))[labels]
    tally = SampleMean(4)
    for rows in (slice(0, 3), slice(3, 8), slice(8, 15)):
        tally.add(means[rows], np.zeros((len(means[rows]), 4)), weights[rows], labels[rows])
    vector, draw_error, sampling_error = tally.result()

    groups = [means[labels == c] for c in range(3)]
    np.testing.assert_allclose(vector, np.mean([g.mean(axis=0) for g in groups], axis=0))
    within = [groups[0].var(axis=0, ddof=1), groups[1].var(axis=0, ddof=1)]
    pooled = (4 * within[0] + 8 * within[1]) / 12
    variance = (within[0] / 5 + within[1] / 9 + pooled) / 9
    np.testing.assert_allclose(sampling_error, np.sqrt(variance))
    assert not draw_error.any()


def test_sampling_error_covers_other_images_under_the_same_head(double_probe: Probe) -> None:
    head, _ = head_of(double_probe, coloured_noise(30, 2))
    head = replace(head, left_out=())
    runs = []
    for seed in range(10):
        images = coloured_noise(30, 2, seed=seed + 1)
        runs.append(
            fisher_of(double_probe, images, head, features_of(double_probe, images), batch_size=30)
        )
    vectors = np.stack([run.vector for run in runs])
    claimed = np.sqrt(np.mean([run.sampling_error**2 for run in runs], axis=0))
    alive = vectors.mean(axis=0) > 0
    ratio = claimed[alive] / vectors.std(axis=0, ddof=1)[alive]
    assert 0.7 < np.median(ratio) < 1.4


def test_sampling_error_covers_other_images_and_the_head_they_give(double_probe: Probe) -> None:
    """Everything anew: other images, their own penalty, their own head."""
    runs = []
    for seed in range(10):
        images = coloured_noise(40, 2, seed=seed + 1)
        head, features = head_of(double_probe, images)
        runs.append(fisher_of(double_probe, images, head, features, batch_size=40))
    vectors = np.stack([run.vector for run in runs])
    alive = (vectors > 0).all(axis=0)
    errors = np.stack([run.sampling_error for run in runs])[:, alive] / vectors[:, alive]
    claimed = np.sqrt((errors**2).mean(axis=0))
    ratio = claimed / np.log(vectors[:, alive]).std(axis=0, ddof=1)
    assert 0.6 < np.median(ratio) < 1.6


def test_one_image_a_class_leaves_a_sampling_error_of_all_images() -> None:
    tally = SampleMean(1)
    means = np.array([[1.0], [2.0], [6.0]])
    tally.add(means, np.zeros((3, 1)), np.ones(3), np.arange(3))
    vector, _, sampling_error = tally.result()
    assert vector == pytest.approx(3.0)
    assert sampling_error == pytest.approx(means.std(ddof=1) / np.sqrt(3))


@pytest.mark.parametrize("n", [6, 30])
def test_the_domain_part_is_the_fisher_of_random_labels_whatever_is_asked(
    double_probe: Probe, n: int
) -> None:
    """In expectation the Fisher of ridge regression on random labels; no real label has a say."""
    images = coloured_noise(n, 3)
    other = replace(images, labels=np.arange(n) % 2, classes=("even", "odd"))
    parts = []
    for asked in (images, other):
        head, features = head_of(double_probe, asked)
        parts.append(fisher_of(double_probe, asked, head, features).domain)
    np.testing.assert_allclose(parts[0], parts[1], rtol=1e-9)

    head, features = head_of(double_probe, images)
    draws = np.mean(
        [fisher_of(double_probe, images, head, features, seed=s).domain for s in range(40)], axis=0
    )
    x = features / head.scale
    _, singular, axes = np.linalg.svd((x - x.mean(axis=0)) / np.sqrt(n), full_matrices=False)
    expected = np.zeros(double_probe.dim)
    with Recorder(double_probe) as recorder:
        recorder.forward(images.pixels)
        for length, axis in zip(singular, axes, strict=True):
            ridge = length / (length**2 + DOMAIN_PENALTY)
            direction = np.tile(ridge * axis / head.scale, (n, 1))
            expected += recorder.backward(direction).mean(axis=0)
    alive = expected > 0
    assert np.median(draws[alive] / expected[alive]) == pytest.approx(1.0, abs=0.1)
