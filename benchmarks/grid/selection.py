"""Which start to choose for a task that nothing was trained on: rules, judged one task left out.

The relative error increase of a rule is the error of what it chooses over that of the best choice,
errors pooled over tasks before the ratio, as in the paper's Table 1. A best choice read off the
same runs is partly luck: `replicate_oracle` chooses by one seed's runs and is judged by others'.

Choices of a rule (the asymmetric distance's alpha and t0, the distance that starts without a source
task are given) are made on the other tasks alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import numpy.typing as npt

from app.cost.accuracy import AccuracyModel
from app.cost.baselines import outcome_prior
from app.cost.cells import Cells, make_cells, normal_scores
from app.cost.outcome_table import OutcomeTable
from app.cost.ranking_measures import weighted_tau
from app.embedding.distance import one_to_many
from app.embedding.vector import TaskEmbedding

Array = npt.NDArray[np.float64]
Choices = Array
"""(T, M) strength of every start on every task, higher for the better; nan: not to be chosen."""

ALPHAS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0)
KERNELS = (1.0, 0.5, 0.25, 0.1)
"""Bandwidths of similarity, in medians of the distances."""
RESAMPLES = 2000


def agreement(error: Array, strength: Choices) -> Array:
    """(T,) weighted tau of the order of starts with that of what they reached."""
    ran, strength = np.isfinite(error), np.where(np.isnan(strength), -np.inf, strength)
    return np.array(
        [
            weighted_tau(1.0 - error[task][ran[task]], strength[task][ran[task]])
            for task in range(len(error))
        ]
    )


def increase(error: Array, strength: Choices) -> float:
    """Percent; `error` (T, M), nan where a start did not run."""
    chosen = np.nanargmax(np.where(np.isnan(error), np.nan, strength), axis=1)
    taken = error[np.arange(len(error)), chosen]
    return 100.0 * float(taken.sum() / np.nanmin(error, axis=1).sum() - 1.0)


def interval(error: Array, strength: Choices, seed: int = 0) -> tuple[float, float]:
    """95%, bootstrapped over tasks."""
    random = np.random.default_rng(seed)
    draws = random.integers(0, len(error), (RESAMPLES, len(error)))
    low, high = np.quantile([increase(error[d], strength[d]) for d in draws], [0.025, 0.975])
    return float(low), float(high)


def chance(error: Array) -> float:
    """The expected increase of choosing blindly."""
    return 100.0 * float(np.nanmean(error, axis=1).sum() / np.nanmin(error, axis=1).sum() - 1.0)


def always(error: Array, start: int) -> Choices:
    strength = np.zeros_like(error)
    strength[:, start] = 1.0
    return strength


def by_outcomes(
    table: OutcomeTable, tasks: Sequence[str], starts: Sequence[str], far: Array | None = None
) -> Choices:
    """The estimator of the service, on what scores the table has.

    `far`  (T, T) distances between tasks: what starts reached on similar ones is one score more for
           each of KERNELS, and the estimator weighs it as it weighs any
    """

    def told(cells: Cells, known: npt.NDArray[np.bool_]) -> Array:
        if far is not None:
            order = [tasks.index(contest[0]) for contest in cells.contests]
            similar = _by_similar_contests(cells, known, far[np.ix_(order, order)])
            similar = normal_scores(similar, cells.contest)
            cells = replace(cells, scores=np.column_stack([cells.scores, similar]))
        model, strength = AccuracyModel(cells, known), np.full(len(cells.value), np.nan)
        for contest in np.unique(cells.contest[~known]):
            rows = np.flatnonzero(cells.contest == contest)
            strength[rows] = model.forecast(rows).mean
        return strength

    return _left_out(table, tasks, starts, told)


def _by_similar_contests(cells: Cells, known: npt.NDArray[np.bool_], far: Array) -> Array:
    """(n, kernels) mean standardised outcome of the cell's start in other known contests."""
    standard = np.full((len(cells.contests), len(cells.models)), np.nan)
    for contest in np.unique(cells.contest[known]):
        rows = np.flatnonzero(known & (cells.contest == contest))
        reach = cells.reach[rows]
        standard[contest, cells.model[rows]] = (reach - reach.mean()) / max(reach.std(), 1e-9)
    middle = _middle(far)
    found = [_of_others(standard, far, share * middle) for share in KERNELS]
    return np.column_stack([near[cells.contest, cells.model] for near in found])


def _of_others(standard: Array, far: Array, bandwidth: float) -> Array:
    """(T, M) mean over other tasks of (T, M), nan where there is none, weighted by
    exp(-distance / bandwidth)."""
    weight = np.exp(-far / bandwidth)
    np.fill_diagonal(weight, 0.0)
    total = weight @ np.nan_to_num(standard)
    return np.asarray(total / np.maximum(weight @ np.isfinite(standard), 1e-300))


def _middle(far: Array) -> float:
    """The median of distances between different tasks."""
    return float(np.median(far[~np.eye(len(far), dtype=bool)]))


def by_prior(table: OutcomeTable, tasks: Sequence[str], starts: Sequence[str]) -> Choices:
    return _left_out(table, tasks, starts, outcome_prior)


def _left_out(
    table: OutcomeTable,
    tasks: Sequence[str],
    starts: Sequence[str],
    rule: Callable[[Cells, npt.NDArray[np.bool_]], Array],
) -> Choices:
    cells = make_cells(table, "task")
    strength = np.full((len(tasks), len(starts)), np.nan)
    for group, name in enumerate(cells.groups):
        mine = cells.group == group
        for row, value in zip(np.flatnonzero(mine), rule(cells, ~mine)[mine], strict=True):
            strength[tasks.index(name), starts.index(cells.models[cells.model[row]])] = value
    return strength


def by_distance(error: Array, far: Array, fallback: Sequence[int]) -> Choices:
    """The nearest expert, unless all are farther than a threshold: then the first of `fallback`.

    `far`  (T, M) distances of source tasks, nan for starts without one
    """
    return by_best_distance(error, [far], fallback)


def by_best_distance(error: Array, tried: Sequence[Array], fallback: Sequence[int]) -> Choices:
    """The same with that of several distances which, with its threshold, chose best elsewhere."""
    strengths = [
        _thresholded(far, threshold, fallback)
        for far in tried
        for threshold in np.nanquantile(far, np.linspace(0, 1, 11))
    ]
    return _best_elsewhere(error, strengths)


def _best_elsewhere(error: Array, strengths: Sequence[Choices]) -> Choices:
    """For every task the rule that chose best on the others, the first of equals."""
    out = np.full_like(error, np.nan)
    for task in range(len(error)):
        others = np.arange(len(error)) != task
        best = min(strengths, key=lambda s: increase(error[others], s[others]))
        out[task] = best[task]
    return out


def _thresholded(far: Array, threshold: float, fallback: Sequence[int]) -> Choices:
    strength = np.where(np.isnan(far), -np.inf, -far)
    for place, start in enumerate(fallback):
        strength[:, start] = -threshold - 1e-9 * place
    return strength


def by_similar_tasks(error: Array, far: Array) -> Choices:
    """The mean standardised accuracy on other tasks, those weighing more that are near: by
    exp(-distance / bandwidth), the bandwidth that chose best elsewhere, infinity among them.

    `far`  (T, T) distances between tasks
    """
    accuracy = 1.0 - error
    spread = np.nanstd(accuracy, axis=1, keepdims=True)
    standard = (accuracy - np.nanmean(accuracy, axis=1, keepdims=True)) / np.maximum(spread, 1e-9)
    bandwidths = (np.inf, *(_middle(far) * np.array([2.0, 1.0, 0.5, 0.25, 0.1])))
    return _best_elsewhere(error, [_of_others(standard, far, each) for each in bandwidths])


def asymmetric_distances(
    targets: Mapping[str, TaskEmbedding], sources: Mapping[str, TaskEmbedding]
) -> dict[tuple[float, float], dict[tuple[str, str], float]]:
    """(alpha, t0) -> (target, source) -> distance, over a grid; t0 in quantiles of live filters."""
    stacked = np.stack([each.vector for each in sources.values()])
    trivial = np.quantile(stacked[stacked > 0], [0.05, 0.25, 0.5, 0.75, 0.95])
    epsilon = next(iter(targets.values())).epsilon
    found = {}
    for alpha, t0 in product(ALPHAS, trivial.tolist()):
        found[alpha, t0] = {
            (name, source): float(distance)
            for name, target in targets.items()
            for source, distance in zip(
                sources,
                one_to_many(
                    target.vector,
                    stacked,
                    "asymmetric",
                    epsilon=epsilon,
                    trivial=t0,
                    alpha=alpha,
                ),
                strict=True,
            )
        }
    return found


def replicate_oracle(errors: Array) -> float:
    """`errors` (S, T, M) of several seeds: the increase of choosing by one seed, judged by the mean
    of the others, against the best by that mean."""
    taken, best = 0.0, 0.0
    for seed in range(len(errors)):
        judge = np.delete(errors, seed, axis=0).mean(axis=0)
        chosen = np.nanargmin(errors[seed], axis=1)
        taken += float(judge[np.arange(len(judge)), chosen].sum())
        best += float(np.nanmin(judge, axis=1).sum())
    return 100.0 * (taken / best - 1.0)
