"""Runs of fine-tuning -> cells: one candidate in one contest, the best it reached there.

A contest is one task under one recipe and one metric: what is compared with each other. Contests
under the same recipe and metric form a league: their candidates' strengths are the same thing.
Shipped outcomes form leagues of their own, for a recipe of the same name is not the same elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri
from scipy.stats import rankdata

from app.cost.outcome_table import ENDED_WITHOUT_RESULT, OutcomeTable
from app.errors import InvalidRequest

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

League = tuple[str, str, bool]
"""Recipe, metric, and whether its outcomes were shipped."""

SHIPPED = "shipped:"
"""Begins the names of tasks whose outcomes come with the service."""

PROBE_ACCURACY = "probe_accuracy"
"""Column: cross-validated share that the probe's head gets right, from the task's embedding."""

N_HELD_OUT = "n_held_out"
"""Column: images that a value was measured on."""

RIDGE = "score_ridge"
"""The predictor that is a share of images got right (scores.py): of it not only the order carries
from task to task, and its level over candidates tells how easy a task is, better than the probe."""

NO_SCORES: Mapping[str, Mapping[str, float]] = MappingProxyType({})

LOGIT_MARGIN = 0.01
"""Values are kept so far from 0 and 1: between 0.998 and 0.999 lies the size of a test set, not
strength, and on the logit scale it would outweigh everything else."""


LEAST_SD = 1e-3
"""Logits: however alike outcomes are."""


@dataclass(frozen=True, slots=True)
class Cells:
    """n cells; the contests, leagues and groups of a table are numbered from 0.

    `contest`, `model`, `group`  (n,) which
    `league`                     (contests,) which league each contest belongs to
    `parent`                     (leagues,) the league of shipped outcomes under the same recipe and
                                 metric, -1 where there is none
    `value`                      (n,) best value of the metric, 0 to 1
    `reach`                      (n,) logit: what candidates are fitted to
    `noise`                      (n,) variance of `reach` over other images to measure it on, 0
                                 where these were not counted
    `probe_ease`                 (contests,) logit of how often the probe is right on the task, from
                                 its embedding; nan where that is not known
    `raw`                        (n, k) predictors, nan where one is missing; `score_names` (k,)
    `scores`                     (n, k) normal scores of their ranks within the contest, 0 where one
                                 is missing
    `contests`                   names: task, recipe, metric
    """

    contest: Ints
    model: Ints
    group: Ints
    league: Ints
    parent: Ints
    probe_ease: Floats
    value: Floats
    reach: Floats
    noise: Floats
    raw: Floats
    scores: Floats
    score_names: tuple[str, ...]
    contests: tuple[tuple[str, str, str], ...]
    models: tuple[str, ...]
    groups: tuple[str, ...]

    @property
    def ridge(self) -> Floats:
        """(n,) logit of RIDGE, nan where it is missing."""
        if RIDGE not in self.score_names:
            return np.full(len(self.value), np.nan)
        return to_logit(self.raw[:, self.score_names.index(RIDGE)])

    def ridge_levels(self) -> Floats:
        """(contests,) of RIDGE, logits, nan where nobody was looked at: where candidates differ by
        the same everywhere, the least-squares fit of contest + candidate, the shortest. So it does
        not hang on which candidates happen to have been looked at in a contest; one that no other
        contest knows says nothing of it."""
        of_cell = self.ridge
        there = np.isfinite(of_cell)
        ridge, contest, model = of_cell[there], self.contest[there], self.model[there]
        met = np.zeros((len(self.contests), len(self.models)))
        np.add.at(met, (contest, model), 1.0)
        count = met.sum(axis=1)
        share = met / np.maximum(count, 1)[:, np.newaxis]
        mean = np.bincount(contest, ridge, len(count)) / np.maximum(count, 1)
        within = np.bincount(model, ridge - mean[contest], len(self.models))
        laplacian = np.diag(met.sum(axis=0)) - met.T @ share
        effects = np.linalg.pinv(laplacian, hermitian=True) @ within
        return np.where(count > 0, mean - share @ effects, np.nan)


def to_logit(value: Floats) -> Floats:
    return np.asarray(logit(np.clip(value, LOGIT_MARGIN, 1 - LOGIT_MARGIN)))


def from_logit(x: Floats) -> Floats:
    return np.asarray(expit(x))


def make_cells(table: OutcomeTable, group: str) -> Cells:
    """Reduce the table's finished runs to cells.

    The best of a grid of runs is a noisy maximum: `value` is that, for it is what a user gets; but
    candidates are fitted to the mean of the best ceil(sqrt(n)) logits of n runs, which says as
    much of the candidate and less of luck. They are not taken to be of other images each, so that
    their noise is what one of them has. Raises InvalidRequest where no run finished.
    """
    runs = table.runs.filter(
        pl.col("value").is_not_null() & ~pl.col("stop_reason").is_in(ENDED_WITHOUT_RESULT)
    )
    if runs.is_empty():
        raise InvalidRequest(
            "outcomes-none-finished",
            "No run of the table finished with a value.",
            "Give outcomes of runs that did.",
        )
    names = ["task", "recipe", "metric"]
    keys = [*names, "model"]
    eases = _eases(runs)
    ordered = runs.sort([*keys, "value"], descending=[*[False] * len(keys), True])
    groups, value, reach, noise, scores, of_group = [], [], [], [], [], []
    for key, cell in ordered.group_by(keys, maintain_order=True):
        logits = to_logit(cell["value"].to_numpy())
        groups.append(key)
        value.append(float(cell["value"][0]))
        best = ceil(sqrt(len(logits)))
        reach.append(float(logits[:best].mean()))
        noise.append(float(_sampling_variance(cell[:best]).mean()))
        scores.append([cell[name].mean() for name in table.score_names])
        of_group.append(str(cell[group][0]))
    contests = sorted({key[:3] for key in groups})
    models = sorted({key[3] for key in groups})
    of_contest = [_league_of(contest) for contest in contests]
    leagues = sorted(set(of_contest))
    contest = np.array([contests.index(key[:3]) for key in groups], dtype=np.int64)
    group_names = sorted(set(of_group))
    raw = np.array(scores, dtype=np.float64).reshape(len(groups), len(table.score_names))
    return Cells(
        contest=contest,
        model=np.array([models.index(key[3]) for key in groups], dtype=np.int64),
        group=np.array([group_names.index(name) for name in of_group], dtype=np.int64),
        league=np.array([leagues.index(league) for league in of_contest], dtype=np.int64),
        parent=np.array([_parent_of(league, leagues) for league in leagues], dtype=np.int64),
        probe_ease=np.array([eases.get(c[0], np.nan) for c in contests]),
        value=np.array(value),
        reach=np.array(reach),
        noise=np.array(noise),
        raw=raw,
        scores=normal_scores(raw, contest),
        score_names=tuple(table.score_names),
        contests=tuple(contests),
        models=tuple(models),
        groups=tuple(group_names),
    )


def _sampling_variance(runs: pl.DataFrame) -> Floats:
    """(n,) of each value's logit over other images to measure it on, as if each were right or wrong
    by itself: J. J. Gart, J. R. Zweifel, "On the bias of various estimators of the logit and its
    variance", Biometrika 54, 1967. 0 where they were not counted."""
    n = runs[N_HELD_OUT].fill_null(float("nan")).to_numpy()
    right = np.clip(runs["value"].to_numpy(), LOGIT_MARGIN, 1 - LOGIT_MARGIN) * n
    variance = (n + 1) * (n + 2) / (n * (right + 1) * (n - right + 1))
    return np.asarray(np.nan_to_num(variance))


def _eases(runs: pl.DataFrame) -> dict[str, float]:
    if PROBE_ACCURACY not in runs.columns:
        return {}
    known = runs.group_by("task").agg(pl.col(PROBE_ACCURACY).drop_nulls().first())
    return {task: ease_of(share) for task, share in known.iter_rows() if share is not None}


def ease_of(probe_accuracy: float | None) -> float:
    """Logit; nan where it is not known."""
    if probe_accuracy is None:
        return float("nan")
    return float(to_logit(np.array(probe_accuracy)))


def with_contest(
    cells: Cells,
    contest: tuple[str, str, str],
    models: Sequence[str],
    probe_ease: float = float("nan"),
    scores: Mapping[str, Mapping[str, float]] = NO_SCORES,
) -> tuple[Cells, Ints]:
    """The same and the cells of these candidates in one contest, where there are none, and the rows
    of these; what nobody tried has value and reach nan. `probe_ease`: of its task; `scores`: of
    candidates on it, by the names that the table has them under."""
    of_contest = _index(cells.contests, contest)
    leagues = {
        _league_of(name): int(n) for name, n in zip(cells.contests, cells.league, strict=True)
    }
    wanted = _league_of(contest)
    league = leagues.get(wanted, len(leagues))
    parents = cells.parent
    if league == len(parents):
        parents = np.append(parents, _parent_of(wanted, sorted(leagues, key=leagues.__getitem__)))
    group = _index(cells.groups, contest[0])
    names = tuple(dict.fromkeys((*cells.models, *models)))
    numbers = [names.index(model) for model in models]
    there = {int(cells.model[row]): int(row) for row in np.flatnonzero(cells.contest == of_contest)}
    missing = [number for number in numbers if number not in there]
    start, more = len(cells.value), len(missing)
    there |= {number: start + place for place, number in enumerate(missing)}
    nothing = np.full(more, np.nan)
    grown = Cells(
        contest=np.append(cells.contest, np.full(more, of_contest)),
        model=np.append(cells.model, np.array(missing, dtype=np.int64)),
        group=np.append(cells.group, np.full(more, group)),
        league=cells.league
        if of_contest < len(cells.contests)
        else np.append(cells.league, league),
        parent=parents,
        probe_ease=cells.probe_ease
        if of_contest < len(cells.contests)
        else np.append(cells.probe_ease, probe_ease),
        value=np.append(cells.value, nothing),
        reach=np.append(cells.reach, nothing),
        noise=np.append(cells.noise, np.zeros(more)),
        raw=np.vstack([cells.raw, np.full((more, cells.raw.shape[1]), np.nan)]),
        scores=np.vstack([cells.scores, np.zeros((more, cells.scores.shape[1]))]),
        score_names=cells.score_names,
        contests=tuple(dict.fromkeys((*cells.contests, contest))),
        models=names,
        groups=tuple(dict.fromkeys((*cells.groups, contest[0]))),
    )
    rows = np.array([there[number] for number in numbers], dtype=np.int64)
    for model, row in zip(models, rows, strict=True):
        if model in scores:
            grown.raw[row] = [scores[model].get(name, np.nan) for name in cells.score_names]
    together = np.flatnonzero(grown.contest == of_contest)
    within = np.zeros(len(together), dtype=np.int64)
    grown.scores[together] = normal_scores(grown.raw[together], within)
    return grown, rows


def is_shipped(task: str) -> bool:
    return task.startswith(SHIPPED)


def _league_of(contest: tuple[str, str, str]) -> League:
    return (*contest[1:], is_shipped(contest[0]))


def _parent_of(league: League, leagues: Sequence[League]) -> int:
    shipped = (*league[:2], True)
    return leagues.index(shipped) if not league[2] and shipped in leagues else -1


def _index(names: tuple[Any, ...], name: Any) -> int:
    """Where it is; where it would be added, if it is not there."""
    return names.index(name) if name in names else len(names)


def normal_scores(raw: Floats, contest: Ints) -> Floats:
    """Phi^-1((rank - 1/2) / n) within contests, ties sharing their mean rank: scores come in units
    and with tails of their own, of which only the order carries from task to task."""
    out = np.zeros_like(raw)
    for number in np.unique(contest):
        rows = np.flatnonzero(contest == number)
        for column in range(raw.shape[1]):
            there = rows[np.isfinite(raw[rows, column])]
            if len(there) > 1:
                ranks = rankdata(raw[there, column])
                out[there, column] = ndtri((ranks - 0.5) / len(there))
    return out
