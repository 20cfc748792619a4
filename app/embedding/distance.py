"""Distances between task embeddings, in numpy alone.

Metrics on vectors go element by element over filters: with e + eps for each entry, a and b denote
two embeddings, u = a / (a + b), v = b / (a + b); precisions a, b are read as variances s = 1 / a,
t = 1 / b of zero-mean Gaussians. Filters that are dead (zero) in both are left out of a pair's
distance.

`label`, `domain`, `discriminant` and, of all three, `combined` are one less how alike the parts of
two embeddings are.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from app.embedding.parts import Array, Parts, Population, Rows, Weights, chunks
from app.errors import InvalidRequest

ALPHA = 0.15
"""Weight of the distance to the trivial task (Achille et al. 2019, section 4.2)."""
COMBINED = Weights(label=4 / 9, domain=1 / 9, discriminants=4 / 9)
"""Chosen on twins of public tasks; `benchmarks/embedding_quality.py` prints what such a choice is
worth on sources that it has not seen."""

Compared = Literal["vector", "parts"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A distance by name.

    `compares`   the rows it takes: an embedding's `vector` (D,), or all its `parts` in one
                 (`parts.row_of`)
    `symmetric`  whether d(a, b) = d(b, a)
    `formula`    of metrics on `vector`: takes a (D,), B (M, D), a mask (M, D) of filters that count
    `weights`    of metrics on `parts`
    """

    name: str
    symmetric: bool
    compares: Compared
    description: str
    formula: Callable[[Array, Array, npt.NDArray[np.bool_]], Array] | None = None
    weights: Weights = field(default_factory=Weights)


def default_metric(population: Population | None) -> str:
    """`combined` where the space has a population to centre it on, else the paper's cosine."""
    return "cosine" if population is None else "combined"


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """`distances` (M,); `lengths` (M, 2) of the parts compared (`Parts`), None under others."""

    distances: Array
    lengths: Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Ranker:
    """One embedding, ready to be compared with others as they come; see `one_to_many`."""

    metric: Metric
    query: Rows
    epsilon: float
    trivial: float | None
    population: Population | None
    alpha: float
    parts: Parts | None

    @classmethod
    def of(
        cls,
        query: Rows,
        metric: str,
        *,
        epsilon: float,
        trivial: float | None = None,
        population: Population | None = None,
        alpha: float = ALPHA,
    ) -> Ranker:
        """Raises InvalidRequest for an unknown metric or what the query cannot be compared by."""
        chosen = get_metric(metric)
        _check_rows(query[np.newaxis], query[np.newaxis], chosen, population)
        parts = None
        if chosen.formula is None:
            parts = Parts.of(query[np.newaxis], epsilon, population)
        elif chosen.name == "asymmetric":
            _require_trivial(trivial)
        return cls(chosen, query, epsilon, trivial, population, alpha, parts)

    @property
    def lengths(self) -> Array | None:
        """(2,) of the query's own parts."""
        if self.parts is None or self.parts.lengths is None:
            return None
        result: Array = self.parts.lengths[0]
        return result

    def rank(self, targets: Rows) -> Ranked:
        """How far others (M, D) are."""
        _check_rows(self.query[np.newaxis], targets, self.metric, self.population)
        if self.metric.formula is not None:
            distances = _distances(self.query, targets, self.metric.formula, self.epsilon)
            if self.metric.name == "asymmetric":
                distances -= self.alpha * _to_trivial(targets, self.trivial, self.epsilon)
            return Ranked(distances)
        distances, lengths = np.empty(len(targets)), np.empty((len(targets), 2))
        for part in chunks(targets):
            found = Parts.of(targets[part], self.epsilon, self.population)
            assert self.parts is not None  # noqa: S101
            distances[part] = _one_less(found.alike(self.parts, self.metric.weights)[:, 0])
            lengths[part] = found.lengths
        return Ranked(distances, lengths)


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

    Metrics on `parts` take rows of all parts and need the space's `population`.

    For `asymmetric` and `asymmetric_kl` the rows are the sources and the query is the target: how
    good each source is to start from. `trivial` (the flat Fisher of the trivial task, a positive
    constant of the space) is needed by `asymmetric` alone.

    Raises InvalidRequest for an unknown metric, unequal lengths, negative or non-finite entries.
    """
    ranker = Ranker.of(
        query, metric, epsilon=epsilon, trivial=trivial, population=population, alpha=alpha
    )
    return ranker.rank(targets).distances


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
    threads: int | None = None,
) -> Array:
    """(M, M) distances; entry [i, j] is from source i to target j. Symmetric ones exactly so.

    `threads`  that compute metrics on vectors; None: as many as there are cores
    """
    m = len(vectors)
    chosen = get_metric(metric)
    _check_rows(vectors, vectors, chosen, population)
    if chosen.formula is None:
        parts = Parts.of(vectors, epsilon, population)
        result = _one_less(parts.alike(parts, chosen.weights))
        np.fill_diagonal(result, 0.0)
        return (result + result.T) / 2
    result = np.zeros((m, m))
    formula = chosen.formula

    def fill(j: int) -> None:
        sources = vectors[:j] if chosen.symmetric else vectors
        result[: len(sources), j] = _distances(vectors[j], sources, formula, epsilon)

    with ThreadPoolExecutor(
        threads or os.cpu_count()
    ) as pool:  # numpy lets them compute side by side
        for _ in pool.map(fill, range(m)):
            pass
    if chosen.symmetric:
        return result + result.T
    if chosen.name == "asymmetric":
        result -= ALPHA * _to_trivial(vectors, trivial, epsilon)[:, None]
    return result


def _one_less(products: Array) -> Array:
    """Rounding may carry a product with itself past 1."""
    result: Array = np.clip(1.0 - products, 0.0, 2.0)
    return result


def _distances(
    query: Rows,
    targets: Rows,
    formula: Callable[[Array, Array, npt.NDArray[np.bool_]], Array],
    epsilon: float,
) -> Array:
    target_task = np.asarray(query, np.float64)
    alive, a = target_task > 0, target_task + epsilon
    result = np.empty(len(targets))
    for part in chunks(targets):
        block = np.asarray(targets[part], np.float64)
        result[part] = formula(a, block + epsilon, (block > 0) | alive)
    return result


def _to_trivial(sources: Rows, trivial: float | None, epsilon: float) -> Array:
    """(M,) cosine distances of sources (M, D) to the trivial task, over their own live filters."""
    result = np.empty(len(sources))
    flat = np.full(sources.shape[1], _require_trivial(trivial))
    for part in chunks(sources):
        block = np.asarray(sources[part], np.float64)
        result[part] = _cosine(flat, block + epsilon, block > 0)
    return result


def _require_trivial(trivial: float | None) -> float:
    if trivial is None or trivial <= 0:
        raise InvalidRequest(
            "trivial-unknown",
            "The asymmetric distance needs the trivial task's constant of this space.",
            "Build the reference library of this probe, or use another metric.",
        )
    return trivial


def get_metric(name: str) -> Metric:
    """The metric of that name; InvalidRequest lists the names there are."""
    if name not in METRICS:
        raise InvalidRequest(
            "unknown-metric",
            f"There is no metric {name!r}.",
            f"Choose one of: {', '.join(METRICS)}.",
        )
    return METRICS[name]


def _check_rows(query: Rows, targets: Rows, metric: Metric, population: Population | None) -> None:
    if targets.ndim != 2 or query.shape[1:] != targets.shape[1:]:
        raise InvalidRequest(
            "length-mismatch",
            f"Embeddings of {query.shape[-1]} and {targets.shape[-1]} entries do not compare.",
            "Compare embeddings of one probe.",
        )
    signed = None
    if metric.compares == "parts":  # discriminants point either way
        signed = 0 if population is None else 2 * len(population.label)
    for rows in (query, targets):
        if not np.isfinite(rows).all() or (rows[:, :signed] < 0).any():
            raise InvalidRequest(
                "vector-invalid",
                "An embedding holds a negative, infinite or NaN entry.",
                "Send finite entries of at least 0.",
            )


def _cosine(a: Array, b: Array, counts: npt.NDArray[np.bool_]) -> Array:
    """1 - cos(u, v): the paper's symmetric distance (section 4.1)."""
    share = a + b
    np.divide(counts, share, out=share)
    u, v = a * share, np.multiply(b, share, out=share)
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
            "parts",
            "the label, discriminant and domain distances weighted 4, 4 and 1",
            weights=COMBINED,
        ),
        Metric(
            "label",
            True,
            "parts",
            "one less the correlation of what the question adds to the images, filter by filter",
            weights=Weights(label=1.0),
        ),
        Metric(
            "discriminant",
            True,
            "parts",
            "one less the overlap of the responses that tell the classes apart",
            weights=Weights(discriminants=1.0),
        ),
        Metric(
            "domain",
            True,
            "parts",
            "one less the correlation of the images alone",
            weights=Weights(domain=1.0),
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
