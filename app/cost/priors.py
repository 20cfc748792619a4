"""How strong candidates are in each league, as contests of other tasks have it.

They hang on outcomes alone, not on who is asked for: one fit serves every question that is asked of
a table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from app.cost.cells import LEAST_SD, Cells, Floats, Mask
from app.cost.rank_one import fit_rank_one

MOST_FOLDS = 10
"""Leave-one-contest-out priors come from so many folds where there are more contests."""


@dataclass(frozen=True, slots=True, eq=False)
class Priors:
    """Strengths have mean 0 and deviation 1 over the candidates of a league.

    `strengths`   (leagues, M); where a league has not seen a candidate, its mean strength in others
    `elsewhere`   (M,) that mean, 0 where nobody has seen it
    `left_out`    (n,) of each known cell, its candidate's strength in the other contests
    """

    strengths: Floats
    elsewhere: Floats
    left_out: Floats

    @classmethod
    def of(cls, cells: Cells, known: Mask) -> Priors:
        """From the cells of `known` (n,)."""
        left_out = np.zeros(len(known))
        contests = np.unique(cells.contest[known])
        fold = np.arange(len(contests)) % min(len(contests), MOST_FOLDS)
        for number in np.unique(fold):
            inside = np.isin(cells.contest, contests[fold == number])
            rest = known & ~inside
            if rest.any():
                left_out[inside] = of_cells(cells, _strengths(cells, rest)[0])[inside]
        return cls(*_strengths(cells, known), left_out)

    def grown(self, cells: Cells) -> Priors:
        """The same, for cells to which more were added that nothing is known of."""
        new_models = len(cells.models) - len(self.elsewhere)
        new_leagues = len(cells.parent) - len(self.strengths)
        elsewhere = np.append(self.elsewhere, np.zeros(new_models))
        strengths = np.pad(self.strengths, ((0, 0), (0, new_models)))
        return replace(
            self,
            strengths=np.vstack([strengths, np.tile(elsewhere, (new_leagues, 1))]),
            elsewhere=elsewhere,
            left_out=np.append(self.left_out, np.zeros(len(cells.value) - len(self.left_out))),
        )


def of_cells(cells: Cells, strengths: Floats) -> Floats:
    """(n,) of each cell, from (leagues, M)."""
    return np.asarray(strengths[cells.league[cells.contest], cells.model])


def _strengths(cells: Cells, known: Mask) -> tuple[Floats, Floats]:
    """`strengths` and `elsewhere`."""
    shape = len(cells.parent), len(cells.models)
    strengths, seen = np.zeros(shape), np.zeros(shape)
    for league in range(shape[0]):
        rows = np.flatnonzero(known & (cells.league[cells.contest] == league))
        _, contest, counts = np.unique(cells.contest[rows], return_inverse=True, return_counts=True)
        rows = rows[counts[contest] > 1]  # one outcome alone says how easy a task is, not who won
        if len(rows):
            numbers, contest = np.unique(cells.contest[rows], return_inverse=True)
            fit = fit_rank_one(
                cells.reach[rows], contest, cells.model[rows], len(numbers), shape[1]
            )
            there = fit.seen > 0
            scale = max(float(fit.strength[there].std()), LEAST_SD)
            strengths[league], seen[league] = fit.strength / scale, there
    elsewhere = (strengths * seen).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    return np.where(seen > 0, strengths, elsewhere), elsewhere
