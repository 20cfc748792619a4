"""How far forecasts lay from what came, beside guesses that need no estimator."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from app.cost.cells import Floats, from_logit, to_logit
from app.cost.drift import tracked
from app.cost.evidence import Evidence
from app.cost.predictor import Interval
from app.recommend import rank
from benchmarks.forecasts.told import Judged, Known, Run

SEVERAL = 2
"""Candidates on a task under a recipe, at least, for an order of them to mean anything."""


def of_accuracy(judged: Sequence[Judged]) -> dict[str, Any] | None:
    """Of what the service calls accuracy, on the few images that a run holds out; `kept_back`: on
    the pictures that it never had. None where nothing was told."""
    told = [each for each in judged if each.told.accuracy is not None]
    if not told:
        return None
    intervals = [each.told.accuracy for each in told if each.told.accuracy is not None]
    typical = np.array([interval.typical for interval in intervals])
    return {
        **error(typical, told),
        **_held("", told, intervals, [each.run["value"] for each in told]),
        **_held("kept_back_", told, intervals, [kept_back(each.run) for each in told]),
        "calibrated": sum(interval.kind == "conformal_90" for interval in intervals),
        "half_width_points": 50 * float(np.median([i.high - i.low for i in intervals])),
    }


def error(typical: Floats, told: Sequence[Judged]) -> dict[str, Any]:
    """Medians; `bias`: forecast less outcome."""
    came = np.array([each.run["value"] for each in told])
    back = np.array([kept_back(each.run) for each in told])
    return {
        "runs": len(told),
        "points": 100 * float(np.median(np.abs(typical - came))),
        "logits": float(np.median(np.abs(to_logit(typical) - to_logit(came)))),
        "bias_points": 100 * float(np.mean(typical - came)),
        "kept_back_points": 100 * float(np.median(np.abs(typical - back))),
        "kept_back_logits": float(np.median(np.abs(to_logit(typical) - to_logit(back)))),
    }


def of_number(judged: Sequence[Judged], name: str) -> dict[str, Any] | None:
    """Of `seconds` or `memory_mib`, natural logarithms; `bias`: measured over forecast."""
    told = [each for each in judged if each.run[name] is not None]
    if not told:
        return None
    intervals = [getattr(each.told, name) for each in told]
    came = [each.run[name] for each in told]
    away = np.log(came) - np.log([interval.typical for interval in intervals])
    return {
        "runs": len(told),
        "median_log": float(np.median(np.abs(away))),
        "bias_log": float(np.median(away)),
        **_held("", told, intervals, came),
        "calibrated": sum(interval.kind == "conformal_90" for interval in intervals),
    }


def _held(
    prefix: str, told: Sequence[Judged], intervals: Sequence[Interval], came: Sequence[float]
) -> dict[str, Any]:
    """How many came to lie inside, and the share by task with its 90% interval."""
    inside = [i.low <= value <= i.high for i, value in zip(intervals, came, strict=True)]
    found = tracked([each.run["task"] for each in told], inside)
    by_task = asdict(found) if found else {}
    return {
        f"{prefix}inside": int(np.sum(inside)),
        f"{prefix}inside_by_task": [
            by_task.get(key) for key in ("coverage", "coverage_low", "coverage_high")
        ],
    }


def kept_back(run: Run) -> float:
    return float(run["more_right"] / run["more_judged"])


def regret(
    judged: Sequence[Judged], choose: Callable[[Sequence[Judged]], Floats]
) -> dict[str, float] | None:
    """Points between the best candidate's and the chosen one's accuracy on the pictures kept back,
    mean over tasks; and `held_out`, on the images that a run is judged by.

    `choose`  weights (n,) of the candidates, summing to 1
    """
    contests: dict[tuple[str, str, int], list[Judged]] = {}
    for each in judged:
        key = (each.run["task"], each.run["recipe"], each.order)
        contests.setdefault(key, []).append(each)
    several = [contest for contest in contests.values() if len(contest) >= SEVERAL]
    if not several:
        return None
    lost: dict[str, list[float]] = {"kept_back": [], "held_out": []}
    for contest in several:
        weight = choose(contest)
        for name, values in (
            ("kept_back", np.array([kept_back(each.run) for each in contest])),
            ("held_out", np.array([each.run["value"] for each in contest])),
        ):
            lost[name].append(float(values.max() - weight @ values))
    return {name: 100 * float(np.mean(each)) for name, each in lost.items()}


def first_choice(contest: Sequence[Judged]) -> Floats:
    """The service's own."""
    first = rank([each.told for each in contest])[0].estimate.candidate
    return np.array([float(each.run["model"] == first) for each in contest])


def by_top1(contest: Sequence[Judged]) -> Floats:
    return _highest([each.told.top1_percent or 0.0 for each in contest])


def by_chance(contest: Sequence[Judged]) -> Floats:
    return np.full(len(contest), 1 / len(contest))


def _highest(strength: Sequence[float]) -> Floats:
    weight = np.zeros(len(strength))
    weight[int(np.argmax(strength))] = 1.0
    return weight


class Baselines:
    """Guesses of accuracy, each from a run's name and the runs that were known before it."""

    def __init__(self, shipped: Evidence, tasks: Mapping[str, Known], runs: Sequence[Run]) -> None:
        self._tasks, self._runs = tasks, runs
        value = to_logit(shipped.runs["value"].to_numpy())
        self._constant = float(from_logit(np.array(value.mean())))
        self._shipped = shipped.runs.with_columns(logit=pl.Series(value))

    def of(
        self, judged: Sequence[Judged], known: Callable[[Judged], set[str]]
    ) -> dict[str, Floats]:
        """(n,) each. `known`: the tasks whose runs were known before this one."""
        return {
            "mean of what was seen": np.array([self._mean(each, known(each)) for each in judged]),
            "the probe's own accuracy": np.array(
                [self._tasks[each.run["task"]].probe_accuracy or np.nan for each in judged]
            ),
            "published top-1": np.array(
                [(each.told.top1_percent or np.nan) / 100 for each in judged]
            ),
            "constant, of shipped runs": np.full(len(judged), self._constant),
        }

    def _mean(self, judged: Judged, known: set[str]) -> float:
        """Of the candidate under the recipe; until the tenant has one, of shipped runs."""
        same = (judged.run["model"], judged.run["recipe"])
        seen = [
            run["value"]
            for run in self._runs
            if run["task"] in known and (run["model"], run["recipe"]) == same
        ]
        if seen:
            return float(from_logit(np.array(to_logit(np.array(seen)).mean())))
        alike = (pl.col("model") == same[0]) & (pl.col("recipe") == same[1])
        return float(from_logit(np.array(self._shipped.filter(alike)["logit"].mean())))


def seconds_seen(
    judged: Sequence[Judged], runs: Sequence[Run], known: Callable[[Judged], set[str]]
) -> float | None:
    """Median |log| of measured seconds over the mean of what the candidate took under the recipe
    before; of runs before which there was one."""
    away = []
    for each in judged:
        same = (each.run["model"], each.run["recipe"])
        told = known(each)
        seen = [
            np.log(run["seconds"])
            for run in runs
            if run["task"] in told and (run["model"], run["recipe"]) == same
        ]
        if seen:
            away.append(abs(np.log(each.run["seconds"]) - np.mean(seen)))
    return float(np.median(away)) if away else None
