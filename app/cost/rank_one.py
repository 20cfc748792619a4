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
    """`y` (n,) of the cells (`contest`, `model`), each at most once; all of them may be missing."""
    table = np.zeros((n_contests, n_models))
    there = np.zeros((n_contests, n_models))
    table[contest, model] = y
    there[contest, model] = 1.0
    per_contest = np.maximum(there.sum(axis=1), 1)
    seen = there.sum(axis=0)
    level = table.sum(axis=1) / per_contest
    spread = np.ones(n_contests)
    strength = np.zeros(n_models)
    precision = 1 / SPREAD_SD**2
    for _ in range(MOST_ROUNDS):
        before = strength
        rest = (table - level[:, None]) * there
        weight = (spread**2) @ there
        strength = np.where(seen > 0, spread @ rest / np.maximum(weight, 1e-12), 0.0)
        strength = np.where(seen > 0, strength - strength[seen > 0].mean(), 0.0)
        noise = (((rest - np.outer(spread, strength) * there) ** 2).sum()) / there.sum()
        noise = max(noise, 1e-9)
        pulled = (there * strength**2).sum(axis=1) / noise
        spread = (rest @ strength / noise + precision) / (pulled + precision)
        spread = np.maximum(spread, LEAST_SPREAD)
        scale = spread.mean()
        spread, strength = spread / scale, strength * scale
        level = ((table - np.outer(spread, strength)) * there).sum(axis=1) / per_contest
        if np.abs(strength - before).max() < TOLERANCE:
            break
    return RankOne(level, spread, strength, seen)
