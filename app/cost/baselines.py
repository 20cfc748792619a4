"""What an estimator has to beat: orders of candidates that need no model, or hardly one.

Each gives a strength for every cell, higher for the stronger, from other groups' outcomes only; nan
where it can say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from app.cost.cells import Cells, Floats, Mask

Baseline = Callable[[Cells, Mask], Floats]


def outcome_prior(cells: Cells, known: Mask) -> Floats:
    """A candidate's mean standardised value in other contests of its league; the mean, 0, where it
    has none."""
    out = np.zeros(len(cells.value))
    for league in np.unique(cells.league):
        of_league = cells.league[cells.contest] == league
        rows = np.flatnonzero(known & of_league)
        total, count = np.zeros(len(cells.models)), np.zeros(len(cells.models))
        for contest in np.unique(cells.contest[rows]):
            within = rows[cells.contest[rows] == contest]
            value = cells.value[within]
            spread = value.std()
            total[cells.model[within]] += (value - value.mean()) / (spread if spread > 0 else 1.0)
            count[cells.model[within]] += 1
        out[of_league] = (total / np.maximum(count, 1))[cells.model[of_league]]
    return out


def largest_model(parameters: Mapping[str, int]) -> Baseline:
    sizes = {name.casefold(): size for name, size in parameters.items()}

    def strength(cells: Cells, known: Mask) -> Floats:  # noqa: ARG001
        of_model = [float(sizes.get(name.casefold(), np.nan)) for name in cells.models]
        return np.array(of_model)[cells.model]

    return strength


def score_alone(column: int) -> Baseline:
    def strength(cells: Cells, known: Mask) -> Floats:  # noqa: ARG001
        return cells.scores[:, column]

    return strength


def nearest_contest(cells: Cells, known: Mask) -> Floats:
    """The values of the contest whose scores agree best: mean product of normal scores over the
    candidates that both have."""
    out = np.full(len(cells.value), np.nan)
    if not cells.scores.shape[1]:
        return out
    contests = np.unique(cells.contest[known])
    for contest in np.unique(cells.contest):
        rows = np.flatnonzero(cells.contest == contest)
        best, copied = -np.inf, None
        for other in contests:
            if other == contest or cells.league[other] != cells.league[contest]:
                continue
            theirs = np.flatnonzero(known & (cells.contest == other))
            of_model = dict(zip(cells.model[theirs].tolist(), theirs.tolist(), strict=True))
            shared = [
                (row, of_model[m]) for row in rows if (m := int(cells.model[row])) in of_model
            ]
            if len(shared) < 2:
                continue
            mine, yours = np.array(shared).T
            agreement = float((cells.scores[mine] * cells.scores[yours]).mean())
            if agreement > best:
                best, copied = agreement, (mine, yours)
        if copied is not None:
            out[rows] = cells.value[copied[1]].mean()
            out[copied[0]] = cells.value[copied[1]]
    return out
