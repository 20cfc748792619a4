"""Accuracy of candidates on a task, from outcomes of other tasks, scores, and what is seen of it.

On the logit scale, for candidate m in contest t (cells.py),

    y[t, m] = level[t] + width * u[t, m] + r[t, m]
    u[t, .] = w_0 * prior[t, .] + sum_k w_k * score_k[t, .]

`prior` is the candidates' strength in the other contests of the league (priors.py), with mean 0
and deviation 1 over them; `score_k` the normal scores of a predictor within the contest, and the
logit of RIDGE less the contest's level. Weights are a ridge fit within contests, to outcomes in
deviations of their contest, and every contest's prior comes from the others only, so that a prior
is trusted as far as it carries to a new task (stacking: D. Wolpert, "Stacked generalization",
1992). Leagues share weights and depart from them: what tells the order of frozen networks tells
less of trained ones. Predictions are averaged over PENALTIES, which spans what few contests cannot
decide; none is chosen.

(level[t], r[t, .]) of a new contest is Gaussian: r with the candidates' covariance over contests,
shrunk to its diagonal; the level about what the ease of the task lets expect, or about the league's
mean (level.py). Outcomes seen in the contest condition it, as far as the images that they were
measured on tell; this is what makes the estimate adapt. A candidate that was never tried stands
where its published accuracy puts it beside those that were, with more doubt (published.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from app.cost.cells import LEAST_SD, Cells, Floats, Ints, Mask
from app.cost.level import Level
from app.cost.priors import Priors, of_cells
from app.cost.published import standing

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Of a score's weight, as a share of the number of cells."""

PRIOR_PENALTY = 0.01

LEAST_CONTESTS = 2
"""From which a league tells by itself how far candidates lie apart."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Of the cells asked for, logits: `mean` (q,), `covariance` (q, q)."""

    mean: Floats
    covariance: Floats


@dataclass(frozen=True, slots=True)
class _League:
    """`level`: of its contests; `residuals` (M, M): covariance of candidates; `shift` (M,): of
    those that were never tried."""

    width: float
    level: Level
    residuals: Floats
    shift: Floats


class AccuracyModel:
    """Fitted to the cells of `known` (n,); every cell of the table can be asked for.

    `published`  (M,) logit of each candidate's top-1 accuracy, nan where there is none
    `priors`     of the known cells, where the caller has them
    """

    def __init__(
        self,
        cells: Cells,
        known: Mask,
        published: Floats | None = None,
        priors: Priors | None = None,
    ) -> None:
        if not known.any():
            raise ValueError("no cell is known")
        self._cells = cells
        self._known = known
        self._published = np.full(len(cells.models), np.nan) if published is None else published
        levels = cells.ridge_levels()
        # The best measure first (level.py).
        self._ease = np.column_stack([levels, cells.probe_ease])
        ahead = np.nan_to_num(cells.ridge - levels[cells.contest])
        scores = np.column_stack([cells.scores, ahead])
        priors = Priors.of(cells, known) if priors is None else priors
        features = np.column_stack([priors.left_out, scores])
        weights = self._weights(known, features)  # (leagues, k)
        asked = np.column_stack([of_cells(cells, priors.strengths), scores])
        of_cell = weights[cells.league[cells.contest]]
        self._u = (asked * of_cell).sum(axis=1)
        fitted = (features * of_cell).sum(axis=1)
        self._leagues = {
            int(league): self._league(
                int(league), known, fitted, priors.strengths[league] * weights[league, 0]
            )
            for league in np.unique(cells.league)
        }

    def forecast(self, asked: Ints, observed: Ints | None = None) -> Forecast:
        """Of the cells `asked`, indices of one contest, given those `observed` in the same one."""
        league = self._leagues[int(self._cells.league[self._cells.contest[asked[0]]])]
        seen = np.array([], dtype=np.int64) if observed is None else observed
        both = np.concatenate([asked, seen])
        models = self._cells.model[both]
        level, level_sd = league.level.at(self._ease[self._cells.contest[asked[0]]])
        mean = level + league.width * self._u[both] + league.shift[models]
        covariance = level_sd**2 + league.residuals[np.ix_(models, models)]
        n = len(asked)
        if len(seen):
            noise = np.diag(LEAST_SD**2 + self._cells.noise[seen])
            gain = np.linalg.solve(covariance[n:, n:] + noise, covariance[n:, :n]).T
            mean = mean[:n] + gain @ (self._cells.reach[seen] - mean[n:])
            covariance = covariance[:n, :n] - gain @ covariance[n:, :n]
        return Forecast(mean[:n], covariance[:n, :n])

    def known_of(self, contest: int) -> Ints:
        """The cells of a contest that the model was fitted to."""
        return np.flatnonzero(self._known & (self._cells.contest == contest))

    def _weights(self, known: Mask, features: Floats) -> Floats:
        """(leagues, k), fitted within the contests where candidates differ: features less the
        contest's mean to outcomes less theirs, in deviations of these. A league weighs as its
        parent does."""
        cells = self._cells
        parts, targets, rows_of = [], [], []
        for contest in np.unique(cells.contest[known]):
            rows = np.flatnonzero(known & (cells.contest == contest))
            reach = cells.reach[rows]
            if np.ptp(reach) > 0:
                parts.append(features[rows] - features[rows].mean(axis=0))
                targets.append((reach - reach.mean()) / reach.std())
                rows_of.append(rows)
        kind = np.where(cells.parent < 0, np.arange(len(cells.parent)), cells.parent)
        if not parts:
            return np.tile(np.eye(features.shape[1])[0], (len(kind), 1))
        of_row = kind[cells.league[cells.contest[np.concatenate(rows_of)]]]
        return _ridge(np.concatenate(parts), np.concatenate(targets), of_row, len(kind))[kind]

    def _league(self, league: int, known: Mask, fitted: Floats, strength: Floats) -> _League:
        """From its known contests; from those of its parent too where one at most of its own has
        several outcomes, and from all known ones where those of its parent have none. `strength`
        (M,), of the width's deviations."""
        cells = self._cells
        contests = np.unique(cells.contest[known])
        own = contests[cells.league[contests] == league]
        above = contests[cells.league[contests] == cells.parent[league]]
        telling = self._telling(known)
        alone = np.isin(own, telling).sum() >= LEAST_CONTESTS
        used = own if alone else np.concatenate([own, above])
        used = used if np.isin(used, telling).any() else contests
        rows = [np.flatnonzero(known & (cells.contest == contest)) for contest in used]
        spreads = [cells.reach[r].std() for r in rows if np.ptp(cells.reach[r]) > 0]
        width = float(np.exp(np.mean(np.log(spreads)))) if spreads else LEAST_SD

        residuals = np.full((len(used), len(cells.models)), np.nan)
        for number, r in enumerate(rows):
            if len(r) > 1:
                rest = self._rest(r, width, fitted)
                residuals[number, cells.model[r]] = rest - rest.mean()
        covariance = _shrunk_covariance(residuals)

        def level_of(some: Ints, parent: Level | None = None) -> Level:
            rows_of = [np.flatnonzero(known & (cells.contest == contest)) for contest in some]
            levels = np.array([self._rest(rows, width, fitted).mean() for rows in rows_of])
            models = [cells.model[rows] for rows in rows_of]
            # Of what candidates are by themselves, and of the images that they were measured on.
            away = np.array([covariance[np.ix_(each, each)].mean() for each in models])
            measured = np.array([cells.noise[rows].mean() for rows in rows_of])
            return Level(levels, self._ease[some], away + measured, parent)

        tried = np.isin(np.arange(len(cells.models)), cells.model[known])
        untried = standing(width * strength, tried, self._published)
        return _League(
            width=width,
            level=level_of(own, level_of(above))
            if len(above)
            else level_of(own if len(own) else used),
            residuals=covariance + untried.covariance,
            shift=untried.shift,
        )

    def _telling(self, known: Mask) -> Ints:
        """Contests of several known outcomes: of one alone, nobody knows what the candidate did and
        what the task."""
        contests, counts = np.unique(self._cells.contest[known], return_counts=True)
        return np.asarray(contests[counts > 1])

    def _rest(self, rows: Ints, width: float, fitted: Floats) -> Floats:
        """What candidates' strengths leave of these outcomes."""
        return np.asarray(self._cells.reach[rows] - width * fitted[rows])


def _ridge(features: Floats, target: Floats, kind: Ints, n_kinds: int) -> Floats:
    """(n_kinds, k) weights, the mean over PENALTIES: those that all rows share, and how each kind
    departs from them, which is drawn to 0 as the shared ones are; one kind alone does not."""
    n, k = features.shape
    there = np.unique(kind)
    departing = there if len(there) > 1 else there[:0]
    wide = np.hstack([features, *(features * (kind == each)[:, None] for each in departing)])
    gram, moment = wide.T @ wide, wide.T @ target
    out = np.zeros((n_kinds, k))
    for penalty in PENALTIES:
        penalties = np.full(wide.shape[1], penalty)
        penalties[0] = PRIOR_PENALTY
        found = np.linalg.solve(gram + n * np.diag(penalties), moment).reshape(-1, k)
        out += found[0] / len(PENALTIES)
        out[departing] += found[1:] / len(PENALTIES)
    return out


def _shrunk_covariance(residuals: Floats) -> Floats:
    """(M, M) from (T, M) with nan where a candidate was not tried: the posterior mean under an
    inverse Wishart prior of M degrees of freedom, whose scale is the pooled variance. A candidate
    that was never tried has that variance and no covariance."""
    n_models = residuals.shape[1]
    tried = np.isfinite(residuals)
    n_contests = int(tried.any(axis=1).sum())
    filled = np.where(tried, residuals, 0.0)
    pooled = float((filled**2).sum() / max(tried.sum() - n_contests, 1)) if n_contests else 0.0
    pooled = max(pooled, LEAST_SD**2)
    times = tried.astype(float).T @ tried.astype(float)
    scatter = filled.T @ filled
    # Every pair by the contests that it shares, as if it had shared all: scaled on both sides, it
    # stays a covariance.
    own = np.sqrt(max(n_contests, 1) / np.maximum(np.diag(times), 1))
    scatter *= np.outer(own, own)
    return np.asarray((scatter + n_models * pooled * np.eye(n_models)) / (n_contests + n_models))
