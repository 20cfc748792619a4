"""How strong candidates are, from contests of different levels and spreads.

    y[t, m] = level[t] + spread[t] * strength[m] + noise

Contests differ in how far they pull the same candidates apart. Where they do so much, their order
says more: a least-squares fit weighs each contest by its spread, whereas standardised values count
a contest of pure noise as much as any. Spreads have the prior N(1, SPREAD_SD^2), so that a contest
of few candidates has the usual one. Fitted by alternating least squares; strengths have mean 0,
spreads mean 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.cost.cells import Floats, Ints

SPREAD_SD = 0.5
LEAST_SPREAD = 0.05
LEAST_NOISE = 1e-9
MOST_ROUNDS = 100
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class RankOne:
    """`level`, `spread` (T,); `strength` (M,); `seen` (M,): whether the candidate had a contest."""

    level: Floats
    spread: Floats
    strength: Floats
    seen: Floats


def fit_rank_one(y: Floats, contest: Ints, model: Ints, n_contests: int, n_models: int) -> RankOne:
    """`y` (n,) of the cells (`contest`, `model`), each at most once; all of them may be missing.

    The likelier of two fits: the sum has several optima. From strengths by least squares without
    spreads, and from none, where contests of few candidates may agree on any order.
    """
    table = np.zeros((n_contests, n_models))
    there = np.zeros((n_contests, n_models))
    table[contest, model] = y
    there[contest, model] = 1.0
    starts = (_additive(table, there), np.zeros(n_models))
    fits = [_alternate(table, there, start) for start in starts]
    return min(fits, key=lambda fit: _unlikely(table, there, fit))


def _alternate(table: Floats, there: Floats, strength: Floats) -> RankOne:
    per_contest = np.maximum(there.sum(axis=1), 1)
    seen = there.sum(axis=0)
    spread = np.ones(len(table))
    level = ((table - strength) * there).sum(axis=1) / per_contest
    precision = 1 / SPREAD_SD**2
    for _ in range(MOST_ROUNDS):
        before = strength
        rest = (table - level[:, None]) * there
        weight = (spread**2) @ there
        strength = np.where(seen > 0, spread @ rest / np.maximum(weight, 1e-12), 0.0)
        strength = np.where(seen > 0, strength - strength[seen > 0].mean(), 0.0)
        noise = ((rest - np.outer(spread, strength) * there) ** 2).sum() / there.sum()
        noise = max(noise, LEAST_NOISE)
        pulled = (there * strength**2).sum(axis=1) / noise
        spread = (rest @ strength / noise + precision) / (pulled + precision)
        spread = np.maximum(spread, LEAST_SPREAD)
        scale = spread.mean()
        spread, strength = spread / scale, strength * scale
        level = ((table - np.outer(spread, strength)) * there).sum(axis=1) / per_contest
        if np.abs(strength - before).max() < TOLERANCE:
            break
    return RankOne(level, spread, strength, seen)


def _unlikely(table: Floats, there: Floats, fit: RankOne) -> float:
    """Negative log posterior, but for a constant; the noise at its likeliest."""
    rest = (table - fit.level[:, None] - np.outer(fit.spread, fit.strength)) * there
    noise = max(float((rest**2).sum() / there.sum()), LEAST_NOISE)
    prior = float(((fit.spread - 1) ** 2).sum()) / (2 * SPREAD_SD**2)
    return float(there.sum()) / 2 * float(np.log(noise)) + prior


def _additive(table: Floats, there: Floats) -> Floats:
    """Strengths of y = level + strength by least squares."""
    per_contest = np.maximum(there.sum(axis=1), 1)[:, None]
    laplacian = np.diag(there.sum(axis=0)) - there.T @ (there / per_contest)
    centred = (table - table.sum(axis=1)[:, None] / per_contest) * there
    return np.asarray(np.linalg.lstsq(laplacian, centred.sum(axis=0), rcond=None)[0])
