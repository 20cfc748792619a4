"""Distances between task embeddings, element by element over filters, in numpy alone.

With e + eps for each entry, a and b denote two embeddings, u = a / (a + b), v = b / (a + b);
precisions a, b are read as variances s = 1 / a, t = 1 / b of zero-mean Gaussians. Filters that are
dead (zero) in both are left out of a pair's distance.

An embedding's domain part is log2 of the Fisher of its images with no question asked, its label
part what log2 of the task's Fisher adds to that. Each is centred on its own mean over live filters
and on a population's, and two parts compare by correlation: `label`, `domain` and, of both,
`combined`. On unit vectors that is an inner product.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from app.errors import InvalidRequest

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32] | Array

ALPHA = 0.15
"""Weight of the distance to the trivial task (Achille et al. 2019, section 4.2)."""
LABEL_SHARE = 2 / 3
"""Of the label part in `combined`. From 1/2 to 4/5 twins of public tasks are found about as often
(`benchmarks/embedding_quality.py`)."""
CHUNK_ENTRIES = 4_000_000
"""Matrix entries worked on at a time: bounds memory to some 100 MB."""


Part = Literal["vector", "both"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A distance by name.

    `part`       which arrays of an embedding it compares: rows are `vector` (D,), or `both`, vector
                 and domain in one (2 D,)
    `symmetric`  whether d(a, b) = d(b, a)
    `formula`    of metrics on `vector`: takes a (D,), B (M, D), a mask (M, D) of filters that count
    `weights`    of metrics on `both`: of the label and of the domain part's correlation
    """

    name: str
    symmetric: bool
    part: Part
    description: str
    formula: Callable[[Array, Array, npt.NDArray[np.bool_]], Array] | None = None
    weights: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Population:
    """Means over many tasks of a space of their centred parts: what all tasks have in common.

    `label`, `domain`  (D,) float32, in log2 units
    """

    label: npt.NDArray[np.float32]
    domain: npt.NDArray[np.float32]

    @classmethod
    def of(cls, rows: Rows, epsilon: float) -> Population:
        """From tasks (M, 2 D), vector and domain; a filter's mean is over those it lives in."""
        means = []
        for values, alive in _centred_parts(rows, epsilon):
            counts = np.maximum(alive.sum(axis=0), 1)
            means.append((values.sum(axis=0) / counts).astype(np.float32))
        return cls(*means)


def default_metric(population: Population | None) -> str:
    """`combined` where the space has a population to centre it on, else the paper's cosine."""
    return "cosine" if population is None else "combined"


def one_to_many(
    query: Rows,
    targets: Rows,
    metric: str,
    *,
    epsilon: float,
    trivial: float | None = None,
    population: Population | None = None,
    alpha: float = ALPHA,
) -> Array:
    """(M,) distances between one embedding (D,) and M others (M, D), exact, float64.

    Metrics on `both` take rows of vector and domain, (2 D,) and (M, 2 D), and need the space's
    `population`.

    For `asymmetric` and `asymmetric_kl` the rows are the sources and the query is the target: how
    good each source is to start from. `trivial` (the flat Fisher of the trivial task, a positive
    constant of the space) is needed by `asymmetric` alone.

    Raises InvalidRequest for an unknown metric, unequal lengths, negative or non-finite entries.
    """
    chosen = get_metric(metric)
    _check_rows(query[None], targets)
    if chosen.formula is None:
        unit = unit_rows(query[None], metric, epsilon=epsilon, population=population)[0]
        result = np.empty(len(targets))
        for part in _chunks(targets):
            rows = unit_rows(targets[part], metric, epsilon=epsilon, population=population)
            result[part] = _one_less(rows @ unit)
        return result
    distances = _distances(query, targets, chosen.formula, epsilon)
    if chosen.name == "asymmetric":
        distances -= alpha * _to_trivial(targets, trivial, epsilon)
    return distances


def one_to_one(
    query: Rows,
    target: Rows,
    metric: str,
    *,
    epsilon: float,
    trivial: float | None = None,
    population: Population | None = None,
) -> float:
    """The distance between two embeddings (D,); see `one_to_many` for who is source and target."""
    distances = one_to_many(
        query, target[None], metric, epsilon=epsilon, trivial=trivial, population=population
    )
    return float(distances[0])


def pairwise(
    vectors: Rows,
    metric: str,
    *,
    epsilon: float,
    trivial: float | None = None,
    population: Population | None = None,
) -> Array:
    """(M, M) distances; entry [i, j] is from source i to target j. Symmetric ones exactly so."""
    m = len(vectors)
    chosen = get_metric(metric)
    _check_rows(vectors, vectors)
    if chosen.formula is None:
        unit = unit_rows(vectors, metric, epsilon=epsilon, population=population)
        result = _one_less(unit @ unit.T)
        np.fill_diagonal(result, 0.0)
        return (result + result.T) / 2
    result = np.zeros((m, m))
    for j in range(m):
        sources = vectors[:j] if chosen.symmetric else vectors
        result[: len(sources), j] = _distances(vectors[j], sources, chosen.formula, epsilon)
    if chosen.symmetric:
        return result + result.T
    if chosen.name == "asymmetric":
        result -= ALPHA * _to_trivial(vectors, trivial, epsilon)[:, None]
    return result


def unit_rows(rows: Rows, metric: str, *, epsilon: float, population: Population | None) -> Array:
    """Rows (M, 2 D) of vector and domain as points (M, 2 D + 2) of inner products 1 - distance.

    For metrics on `both`. Filters dead in a task stand where the population does, at 0. A part that
    stands there with all its filters correlates with nothing but its like: what each part has one
    more entry for. Raises InvalidRequest where there is no population.
    """
    if population is None:
        raise InvalidRequest(
            "population-unknown",
            f"The metric {metric!r} needs a population of tasks of this space to be centred on.",
            "Build the reference library of this probe, or use another metric.",
        )
    means = (population.label, population.domain)
    parts = []
    for (values, alive), mean, weight in zip(
        _centred_parts(rows, epsilon), means, get_metric(metric).weights, strict=True
    ):
        part = np.where(alive, values - mean, 0.0)
        norms = np.linalg.norm(part, axis=1, keepdims=True)
        unit = np.divide(part, norms, out=part, where=norms > 0)
        parts.append(np.sqrt(weight) * np.concatenate([unit, norms == 0], axis=1))
    return np.concatenate(parts, axis=1)


def _centred_parts(rows: Rows, epsilon: float) -> list[tuple[Array, npt.NDArray[np.bool_]]]:
    """Label and domain part (M, D) in log2, less their own mean over live filters; which are."""
    vector, domain = np.split(np.asarray(rows, np.float64), 2, axis=1)
    of_images = np.log2(domain + epsilon)
    asked = np.log2(vector + epsilon) - of_images
    found = []
    for values, alive in ((asked, (vector > 0) & (domain > 0)), (of_images, domain > 0)):
        counts = np.maximum(alive.sum(axis=1, keepdims=True), 1)
        mean = np.where(alive, values, 0.0).sum(axis=1, keepdims=True) / counts
        found.append((np.where(alive, values - mean, 0.0), alive))
    return found


def _one_less(products: Array) -> Array:
    """Rounding may carry a product with itself past 1."""
    result: Array = np.clip(1.0 - products, 0.0, 2.0)
    return result


def _chunks(rows: Rows) -> Iterator[slice]:
    step = max(1, CHUNK_ENTRIES // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        yield slice(start, start + step)


def _distances(
    query: Rows,
    targets: Rows,
    formula: Callable[[Array, Array, npt.NDArray[np.bool_]], Array],
    epsilon: float,
) -> Array:
    target_task = np.asarray(query, np.float64)
    alive, a = target_task > 0, target_task + epsilon
    result = np.empty(len(targets))
    for part in _chunks(targets):
        block = np.asarray(targets[part], np.float64)
        result[part] = formula(a, block + epsilon, (block > 0) | alive)
    return result


def _to_trivial(sources: Rows, trivial: float | None, epsilon: float) -> Array:
    """(M,) cosine distances of sources (M, D) to the trivial task, over their own live filters."""
    if trivial is None or trivial <= 0:
        raise InvalidRequest(
            "trivial-unknown",
            "The asymmetric distance needs the trivial task's constant of this space.",
            "Build the reference library of this probe, or use another metric.",
        )
    result = np.empty(len(sources))
    flat = np.full(sources.shape[1], trivial)
    for part in _chunks(sources):
        block = np.asarray(sources[part], np.float64)
        result[part] = _cosine(flat, block + epsilon, block > 0)
    return result


def get_metric(name: str) -> Metric:
    """The metric of that name; InvalidRequest lists the names there are."""
    if name not in METRICS:
        raise InvalidRequest(
            "unknown-metric",
            f"There is no metric {name!r}.",
            f"Choose one of: {', '.join(METRICS)}.",
        )
    return METRICS[name]


def _check_rows(query: Rows, targets: Rows) -> None:
    if targets.ndim != 2 or query.shape[1:] != targets.shape[1:]:
        raise InvalidRequest(
            "length-mismatch",
            f"Embeddings of {query.shape[-1]} and {targets.shape[-1]} entries do not compare.",
            "Compare embeddings of one probe.",
        )
    for rows in (query, targets):
        if not np.isfinite(rows).all() or (rows < 0).any():
            raise InvalidRequest(
                "vector-invalid",
                "An embedding holds a negative, infinite or NaN entry.",
                "Send finite entries of at least 0.",
            )


def _cosine(a: Array, b: Array, counts: npt.NDArray[np.bool_]) -> Array:
    """1 - cos(u, v): the paper's symmetric distance (section 4.1)."""
    total = a + b
    u = np.where(counts, a / total, 0.0)
    v = np.where(counts, b / total, 0.0)
    dot = np.einsum("md,md->m", u, v)
    norms = np.einsum("md,md->m", u, u) * np.einsum("md,md->m", v, v)
    cosine = np.divide(dot, np.sqrt(norms), out=np.ones_like(dot), where=norms > 0)
    result: Array = np.clip(1.0 - cosine, 0.0, 1.0)
    return result


def _jsd(a: Array, b: Array, counts: npt.NDArray[np.bool_]) -> Array:
    """Mean over filters of (KL(s || m) + KL(t || m)) / 2 with m = (s + t) / 2, nats.

    For zero-mean Gaussians this is (ln m - (ln s + ln t) / 2) / 2, as the ratios average to 1.
    """
    ratio = (a + b) ** 2 / (4.0 * a * b)
    return _mean(0.25 * np.log(ratio), counts)


def _kl_terms(source: Array, target: Array) -> Array:
    """KL(N(0, 1/source) || N(0, 1/target)), nats, element-wise: (r - 1 - ln r) / 2."""
    ratio = target / source
    terms: Array = 0.5 * (ratio - 1.0 - np.log(ratio))
    return terms


def _kl(a: Array, b: Array, counts: npt.NDArray[np.bool_]) -> Array:
    """Sum over filters of the larger of the two directed divergences."""
    terms = np.where(counts, np.maximum(_kl_terms(a, b), _kl_terms(b, a)), 0.0)
    result: Array = terms.sum(axis=1)
    return result


def _asymmetric_kl(a: Array, b: Array, counts: npt.NDArray[np.bool_]) -> Array:
    """Sum over filters of KL from each source (rows b) to the target (a)."""
    result: Array = np.where(counts, _kl_terms(b, np.broadcast_to(a, b.shape)), 0.0).sum(axis=1)
    return result


def _entropy(a: Array, b: Array, counts: npt.NDArray[np.bool_]) -> Array:
    """ln 2 minus the mean binary entropy of u, nats."""
    u, v = a / (a + b), b / (a + b)
    surprise = u * np.log(np.maximum(u, 1e-300)) + v * np.log(np.maximum(v, 1e-300))
    return np.where(counts.any(axis=1), np.log(2.0) + _mean(surprise, counts), 0.0)


def _mean(terms: Array, counts: npt.NDArray[np.bool_]) -> Array:
    total = np.where(counts, terms, 0.0).sum(axis=1)
    result: Array = total / np.maximum(counts.sum(axis=1), 1)
    return result


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("cosine", True, "vector", "the paper's symmetric distance", _cosine),
        Metric("jsd", True, "vector", "Jensen-Shannon divergence of the precisions", _jsd),
        Metric("kl", True, "vector", "sum of the larger directed divergences", _kl),
        Metric("entropy", True, "vector", "lack of entropy of the shares", _entropy),
        Metric(
            "combined",
            True,
            "both",
            "one less the correlation of both parts, the label's counting twice",
            weights=(LABEL_SHARE, 1 - LABEL_SHARE),
        ),
        Metric(
            "label",
            True,
            "both",
            "one less the correlation of what the question adds to the images",
            weights=(1.0, 0.0),
        ),
        Metric(
            "domain",
            True,
            "both",
            "one less the correlation of the images alone",
            weights=(0.0, 1.0),
        ),
        Metric(
            "asymmetric",
            False,
            "vector",
            "from a source to this task, less a share of the source's distance to the trivial task",
            _cosine,
        ),
        Metric(
            "asymmetric_kl",
            False,
            "vector",
            "divergence from a source to this task",
            _asymmetric_kl,
        ),
    )
}
