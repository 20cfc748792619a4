from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from app.embedding.distance import METRICS, one_to_many, one_to_one, pairwise
from app.embedding.parts import Population
from app.embedding.vector import RANK
from app.errors import InvalidRequest

EPS = 1e-12
SYMMETRIC = [name for name, metric in METRICS.items() if metric.symmetric]
generator = np.random.default_rng(0)
VECTORS = np.exp(generator.normal(-10, 2, (6, 50))).astype(np.float32)

entries = st.one_of(st.just(0.0), st.floats(2.0**-20, 2.0**10, width=32))
pairs = arrays(np.float32, (2, 8), elements=entries)


def distance(a: np.ndarray, b: np.ndarray, metric: str) -> float:
    """From source a to target b; where parts count, the others are made up from it."""
    population = Population(*np.zeros((2, len(a)), np.float32))
    a, b = rows(np.stack([a, b]), metric)
    return one_to_one(b, a, metric, epsilon=EPS, trivial=1e-3, population=population)


def rows(vectors: np.ndarray, metric: str) -> np.ndarray:
    """(M, D), or with a domain part, alive where the vector is and unlike it, and discriminants."""
    if METRICS[metric].compares == "vector":
        return vectors
    domains = np.sqrt(vectors) * (1 + np.arange(vectors.shape[1]) % 3)
    first = vectors[:, :8].astype(np.float64)
    axes = np.stack([np.cos(first * k) * (first.sum(axis=1) > 0)[:, None] for k in range(RANK)], 1)
    return np.concatenate([vectors, domains, axes.reshape(len(vectors), -1)], axis=1)


@pytest.mark.parametrize("metric", SYMMETRIC)
@given(pair=pairs)
def test_symmetric_metrics_are_symmetric_and_not_negative(metric: str, pair: np.ndarray) -> None:
    assert distance(pair[0], pair[1], metric) == pytest.approx(
        distance(pair[1], pair[0], metric), abs=1e-12
    )
    assert distance(pair[0], pair[1], metric) >= -1e-12


@pytest.mark.parametrize("metric", [*SYMMETRIC, "asymmetric_kl"])
@given(pair=pairs)
def test_the_distance_to_itself_is_zero(metric: str, pair: np.ndarray) -> None:
    assert distance(pair[0], pair[0], metric) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_filters_dead_in_both_are_left_out(metric: str) -> None:
    dead = np.zeros(10, np.float32)
    a, b = VECTORS[:2]
    assert distance(np.r_[a, dead], np.r_[b, dead], metric) == pytest.approx(
        distance(a, b, metric), rel=1e-12
    )


def test_cosine_follows_the_papers_formula() -> None:
    a, b = VECTORS[:2].astype(np.float64)
    u, v = a / (a + b), b / (a + b)
    expected = 1 - u @ v / np.linalg.norm(u) / np.linalg.norm(v)
    assert distance(a, b, "cosine") == pytest.approx(expected, rel=1e-6)


def test_jsd_and_kl_equal_divergences_integrated_numerically() -> None:
    a, b = np.array([0.5, 3.0]), np.array([2.0, 1.0])
    x = np.linspace(-60, 60, 400_001)

    def density(variance: float) -> np.ndarray:
        return np.exp(-(x**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)

    def kl(s: float, t: float) -> float:
        p, log_ratio = density(s), 0.5 * np.log(t / s) + x**2 * (0.5 / t - 0.5 / s)
        return float(np.trapezoid(p * log_ratio, x))

    variances = list(zip(1 / a, 1 / b, strict=True))
    jsd = np.mean([(kl(s, (s + t) / 2) + kl(t, (s + t) / 2)) / 2 for s, t in variances])
    assert distance(a, b, "jsd") == pytest.approx(jsd, rel=1e-6)
    assert distance(a, b, "asymmetric_kl") == pytest.approx(sum(kl(s, t) for s, t in variances))
    larger = sum(max(kl(s, t), kl(t, s)) for s, t in variances)
    assert distance(a, b, "kl") == pytest.approx(larger)


def test_entropy_is_ln_2_less_the_mean_binary_entropy() -> None:
    a, b = np.array([1.0, 1.0]), np.array([1.0, 3.0])
    second = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    expected = np.log(2) - (np.log(2) + second) / 2
    assert distance(a, b, "entropy") == pytest.approx(expected)


def test_asymmetric_prefers_the_source_further_from_the_trivial_task() -> None:
    a, b = VECTORS[:2].astype(np.float64)
    plain = distance(a, b, "cosine")
    trivial = distance(a, np.full(50, 1e-3), "cosine")
    assert distance(a, b, "asymmetric") == pytest.approx(plain - 0.15 * trivial)
    assert distance(a, b, "asymmetric") != distance(b, a, "asymmetric")


@pytest.mark.parametrize("metric", METRICS)
def test_pairwise_agrees_with_single_pairs(metric: str) -> None:
    population = Population(*np.zeros((2, VECTORS.shape[1]), np.float32))
    matrix = pairwise(
        rows(VECTORS, metric), metric, epsilon=EPS, trivial=1e-3, population=population
    )
    for i in range(len(VECTORS)):
        for j in range(len(VECTORS)):
            assert matrix[i, j] == pytest.approx(distance(VECTORS[i], VECTORS[j], metric), abs=1e-9)
    if METRICS[metric].symmetric:
        np.testing.assert_array_equal(matrix, matrix.T)
        assert not matrix.diagonal().any()


@pytest.mark.parametrize("metric", ["cosine", "combined"])
def test_chunks_change_nothing(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, population = rows(VECTORS, metric), Population(*np.zeros((2, 50), np.float32))

    def found() -> tuple[np.ndarray, np.ndarray]:
        near = one_to_many(tasks[0], tasks, metric, epsilon=EPS, population=population)
        return near, pairwise(tasks, metric, epsilon=EPS, population=population)

    whole = found()
    monkeypatch.setattr("app.embedding.parts._CHUNK_ENTRIES", 260)
    for one, other in zip(found(), whole, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-15)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_entries_that_are_no_information_are_refused(bad: float) -> None:
    vector = VECTORS[0].copy()
    vector[3] = bad
    with pytest.raises(InvalidRequest, match="NaN"):
        one_to_many(vector, VECTORS, "cosine", epsilon=EPS)


def test_unknown_metrics_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="Choose one of: cosine"):
        one_to_many(VECTORS[0], VECTORS, "euclid", epsilon=EPS)
    with pytest.raises(InvalidRequest, match="do not compare"):
        one_to_many(VECTORS[0, :9], VECTORS, "cosine", epsilon=EPS)
    with pytest.raises(InvalidRequest, match="trivial"):
        one_to_many(VECTORS[0], VECTORS, "asymmetric", epsilon=EPS)


def made_up_tasks(count: int, responses: int = 6) -> np.ndarray:
    """(count, 2 * 40 + RANK * responses), drawn anew at every call."""
    vectors, domains = np.exp(generator.normal(-8, 2, (2, count, 40)))
    axes = generator.normal(size=(count, RANK * responses))
    return np.concatenate([vectors, domains, axes], axis=1)


def test_parts_compare_as_they_are_defined() -> None:
    """Correlations in logarithms of another base, which they do not see; overlaps of whole F."""
    tasks = made_up_tasks(5)
    population = Population.of(tasks[:, :80], EPS)
    vectors, domains, axes = np.split(tasks, [40, 80], axis=1)
    alike = []
    for part in (np.log(vectors) - np.log(domains), np.log(domains)):
        part = part - part.mean(axis=1, keepdims=True)
        part = part - part.mean(axis=0)
        unit = part / np.linalg.norm(part, axis=1, keepdims=True)
        alike.append(unit @ unit.T)
    fisher = np.stack([a.T @ a for a in axes.reshape(5, RANK, -1)]).reshape(5, -1)
    fisher /= np.linalg.norm(fisher, axis=1, keepdims=True)
    alike.append(np.sqrt(fisher @ fisher.T))
    expected = {
        "label": 1 - alike[0],
        "domain": 1 - alike[1],
        "discriminant": 1 - alike[2],
        "combined": 1 - (4 * alike[0] + alike[1] + 4 * alike[2]) / 9,
    }
    for metric, matrix in expected.items():
        found = pairwise(tasks, metric, epsilon=EPS, population=population)
        np.testing.assert_allclose(found, matrix, atol=1e-5)


def test_discriminants_are_the_same_in_any_turn_and_size() -> None:
    tasks = made_up_tasks(3)
    population = Population.of(tasks[:, :80], EPS)
    turned = tasks.copy()
    turn = np.linalg.qr(generator.normal(size=(RANK, RANK)))[0]
    turned[:, 80:] = 7.0 * (turn @ tasks[:, 80:].reshape(3, RANK, -1)).reshape(3, -1)
    for metric in ("discriminant", "combined"):
        moved = one_to_many(turned[0], tasks, metric, epsilon=EPS, population=population)
        still = one_to_many(tasks[0], tasks, metric, epsilon=EPS, population=population)
        np.testing.assert_allclose(moved, still, atol=1e-12)


def test_responses_that_tell_nothing_are_like_nothing_else() -> None:
    tasks = made_up_tasks(3)
    tasks[:2, 80:] = 0
    population = Population.of(tasks[:, :80], EPS)
    found = pairwise(tasks, "discriminant", epsilon=EPS, population=population)
    np.testing.assert_allclose(found[0], [0, 0, 1], atol=1e-12)


def test_scale_is_complexity_and_no_distance_of_parts() -> None:
    tasks = rows(VECTORS, "combined")
    louder = tasks.copy()
    louder[:, :50] *= 100.0
    louder[:, 50:100] *= 7.0
    population = Population.of(tasks[:, :100], EPS)
    for metric in ("label", "domain", "combined"):
        moved = one_to_one(louder[0], tasks[0], metric, epsilon=EPS, population=population)
        assert moved == pytest.approx(0.0, abs=1e-6)


def test_parts_without_a_population_are_refused() -> None:
    tasks = rows(VECTORS, "combined")
    with pytest.raises(InvalidRequest, match="reference library"):
        one_to_many(tasks[0], tasks, "combined", epsilon=EPS)


def test_embeddings_of_before_have_no_parts_to_compare() -> None:
    tasks, population = np.tile(VECTORS, 2), Population(*np.zeros((2, 50), np.float32))
    with pytest.raises(InvalidRequest, match="Embed the tasks again"):
        one_to_many(tasks[0], tasks, "combined", epsilon=EPS, population=population)
