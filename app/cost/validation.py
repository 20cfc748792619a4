"""Whether a newly fitted estimator may serve: how good it is, and that it is not worse than before.

Everything is judged task by task under fits that saw nothing of the task.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from app.cost.accuracy import AccuracyModel
from app.cost.bootstrap import middle, resamples
from app.cost.cells import Cells, Floats, Mask, is_shipped, make_cells, to_logit
from app.cost.conformal import calibration_sets
from app.cost.correction import Correction
from app.cost.estimator import forecast_groups
from app.cost.evaluation import Evaluation, evaluate
from app.cost.evidence import COUNTED, Evidence
from app.cost.predictor import CountedName
from app.errors import InvalidRequest

LEAST_TASKS = 5
"""On fewer, two estimators cannot be told apart."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Mean absolute error of the new estimator less that of the old, logits, over the tasks that
    both can be judged on; `low`, `high`: 95% of a paired bootstrap over them."""

    n_tasks: int
    difference: float
    low: float
    high: float

    @property
    def worse(self) -> bool:
        """By more than chance."""
        return self.low > 0


@dataclass(frozen=True, slots=True)
class CountedReport:
    """How far runs lay from what was counted for them, and from that once corrected by the other
    tasks' runs: medians of |natural logarithm|."""

    n_runs: int
    n_tasks: int
    counted_medale: float
    corrected_medale: float


def judged_accuracy(evidence: Evidence, parameters: Mapping[str, int]) -> Evaluation | None:
    """As `task2vec estimator evaluate` has it, without times; None on outcomes of one task alone.

    `parameters`  sizes of candidates, where known by name
    """
    finished = evidence.finished()
    if finished is None:
        return None
    untimed = finished.runs.with_columns(seconds=None)
    table = replace(finished, runs=untimed)
    try:
        return evaluate(table, parameters=parameters)
    except InvalidRequest:  # nothing is left to learn from when the one task is left out
        return None


def judged_corrections(
    corrections: Mapping[CountedName, Correction],
) -> dict[CountedName, CountedReport]:
    """Of what was measured on two tasks or more."""
    reports: dict[CountedName, CountedReport] = {}
    for name in COUNTED:
        correction = corrections[name]
        if correction.n_tasks > 1:
            missed, _ = correction.missed
            reports[name] = CountedReport(
                n_runs=len(missed),
                n_tasks=correction.n_tasks,
                counted_medale=float(np.median(correction.counted_missed())),
                corrected_medale=float(np.median(missed)),
            )
    return reports


def compared(
    new: Evidence, old: Evidence, shipped: Evidence | None = None, seed: int = 0
) -> Comparison | None:
    """Of accuracy; None where there is too little to tell the two apart.

    The old estimator is one that knows only what the old evidence had. What both know is judged by
    what the old evidence said of it: new runs are not their own referee. Shipped outcomes stand
    beside either as they do when it serves, and nothing is judged on them.
    """
    beside = Evidence.of([]) if shipped is None else shipped
    tables = beside.beside(new).finished(), beside.beside(old).finished()
    if tables[0] is None or tables[1] is None:
        return None
    cells, earlier = make_cells(tables[0], "task"), make_cells(tables[1], "task")
    had = {name: row for row, name in enumerate(_names(earlier))}
    row_before = np.array([had.get(name, -1) for name in _names(cells)])
    known_before = row_before >= 0
    before_cells = replace(
        cells,
        reach=np.where(known_before, earlier.reach[row_before], cells.reach),
        noise=np.where(known_before, earlier.noise[row_before], cells.noise),
        value=np.where(known_before, earlier.value[row_before], cells.value),
    )
    judged = np.isin(cells.model, cells.model[known_before])
    difference: list[float] = []
    own = [group for group, task in enumerate(cells.groups) if not is_shipped(task)]
    for numbers in calibration_sets(len(own)):
        fold = [own[number] for number in numbers]
        others = ~np.isin(cells.group, fold)
        rows = np.flatnonzero(judged & ~others)
        if not len(rows) or not (others & known_before).any():
            continue
        truth = to_logit(before_cells.value[rows])
        after, before = (
            np.abs(truth - _told(some, others & known, fold)[rows])
            for some, known in ((cells, judged), (before_cells, known_before))
        )
        of_task = cells.group[rows]
        difference += [float((after - before)[of_task == task].mean()) for task in set(of_task)]
    if len(difference) < LEAST_TASKS:
        return None
    values = np.array(difference)
    low, high = middle(values[resamples(len(values), seed)].mean(axis=1))
    return Comparison(len(values), float(values.mean()), low, high)


def _told(cells: Cells, known: Mask, groups: Collection[int]) -> Floats:
    """(n,) logits that a fit to the known cells tells of these groups' cells."""
    return forecast_groups(cells, AccuracyModel(cells, known), groups)[0]


def _names(cells: Cells) -> Iterator[tuple[str, ...]]:
    for contest, model in zip(cells.contest, cells.model, strict=True):
        yield *cells.contests[contest], cells.models[model]
