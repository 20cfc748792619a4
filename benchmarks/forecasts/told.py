"""What the service would tell of runs before they are made, with what it knows at that moment.

A Tenant is the service's estimator of one user: outcomes are reported to it, held aside where they
are implausible, and a version that is worse than the one before does not serve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from app.catalogue import CandidateCard, DeviceCard, RecipeCard
from app.cost.cells import N_HELD_OUT, PROBE_ACCURACY
from app.cost.correction import Setting
from app.cost.estimator import Estimator, Question
from app.cost.evidence import COUNTED, Evidence
from app.cost.plausibility import implausible_runs
from app.cost.predictor import Estimate, TaskFacts, estimate
from app.cost.timing import Timing
from app.cost.validation import compared

METRIC = "accuracy"
Run = Mapping[str, Any]
"""A run as cells.py keeps it."""


@dataclass(frozen=True, slots=True)
class Known:
    """Of a task, once it is embedded; `scores` by candidate, once it was looked at through them,
    as the estimator names them."""

    facts: TaskFacts
    probe_accuracy: float | None
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Cards by name, and the device that runs are forecast for; `timings` by candidate, where steps
    were timed on it."""

    candidates: Mapping[str, CandidateCard]
    recipes: Mapping[str, RecipeCard]
    device: DeviceCard
    timings: Mapping[str, Timing] = field(default_factory=dict)


class Tenant:
    """With the shipped evidence alone until runs are reported."""

    def __init__(self, shipped: Evidence, catalogue: Catalogue, tasks: Mapping[str, Known]) -> None:
        self._shipped, self._catalogue, self._tasks = shipped, catalogue, tasks
        self._rows: list[dict[str, Any]] = []
        self._serving: Evidence | None = None
        self._estimator = Estimator(shipped)
        self.refused = 0
        self.aside = 0

    def forecast(self, task: str, recipe: str, models: Sequence[str]) -> dict[str, Estimate]:
        """As app/api/forecasts.py and app/api/estimates.py put it together; of candidates without a
        source task, no difficulty."""
        known, cards = self._tasks[task], self._catalogue.candidates
        accuracies = {}
        if self._estimator.accuracy is not None:
            published = {
                name: None if card.top1_percent is None else card.top1_percent / 100
                for name, card in cards.items()
            }
            asked = Question(
                task, recipe, METRIC, published, known.probe_accuracy, scores=known.scores
            )
            accuracies = self._estimator.accuracy.forecast(asked)
        return {
            model: estimate(
                known.facts,
                cards[model],
                self._catalogue.recipes[recipe],
                self._catalogue.device,
                difficulty=None,
                accuracy=accuracies.get(model),
                factors=self._estimator.factors(
                    Setting(task, model, recipe, self._catalogue.device.name),
                    is_timed=model in self._catalogue.timings,
                ),
                timing=self._catalogue.timings.get(model),
            )
            for model in models
        }

    def report(self, runs: Sequence[Run]) -> None:
        """All of them at once, as the worker that fits anew finds them."""
        if not runs:
            return
        new = [self._row(run) for run in runs]
        slow, odd = implausible_runs([*new, *self._rows])
        kept = [row for row, far in zip(new, slow | odd, strict=False) if not far]
        self.aside += len(new) - len(kept)
        self._rows += kept
        evidence = Evidence.of(self._rows)
        worse = False
        if self._serving is not None:
            found = compared(evidence, self._serving, self._shipped)
            worse = found is not None and found.worse
        if worse:
            self.refused += 1
            return
        self._serving = evidence
        self._estimator = Estimator(self._shipped.beside(evidence))

    def _row(self, run: Run) -> dict[str, Any]:
        """What a report of the run leaves, the counts of its forecast included."""
        task, model, recipe = (run[name] for name in ("task", "model", "recipe"))
        counted = estimate(
            self._tasks[task].facts,
            self._catalogue.candidates[model],
            self._catalogue.recipes[recipe],
            self._catalogue.device,
            difficulty=None,
        ).counted
        return {
            "task": task,
            "model": model,
            "recipe": recipe,
            "device": self._catalogue.device.name,
            "metric": METRIC,
            "stop_reason": run["stop_reason"],
            "value": run["value"],
            N_HELD_OUT: run["n_held_out"],
            PROBE_ACCURACY: self._tasks[task].probe_accuracy,
            **self._tasks[task].scores.get(model, {}),
            "seconds": run["seconds"],
            "memory_mib": run["memory_mib"],
            **{f"counted_{name}": counted[name] for name in COUNTED},
        }


@dataclass(frozen=True, slots=True)
class Judged:
    """A run beside what was told of it; `before`: tasks of the tenant's own that were known, in
    this `order`."""

    run: Run
    told: Estimate
    before: int
    order: int = 0


class Forecaster:
    """Of tasks one after another, each with what was known then."""

    def __init__(
        self,
        shipped: Evidence,
        catalogue: Catalogue,
        tasks: Mapping[str, Known],
        runs: Sequence[Run],
    ) -> None:
        self._shipped, self._catalogue, self._known = shipped, catalogue, tasks
        self._runs: dict[str, list[Run]] = {}
        for run in runs:
            self._runs.setdefault(run["task"], []).append(run)
        self.tasks = tuple(self._runs)

    def with_timings(self, timings: Mapping[str, Timing]) -> Forecaster:
        catalogue = replace(self._catalogue, timings=timings)
        runs = [run for of_task in self._runs.values() for run in of_task]
        return Forecaster(self._shipped, catalogue, self._known, runs)

    def with_scores(self, scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Forecaster:
        """By task and candidate."""
        known = {
            name: replace(each, scores=scores.get(name, {})) for name, each in self._known.items()
        }
        runs = [run for of_task in self._runs.values() for run in of_task]
        return Forecaster(self._shipped, self._catalogue, known, runs)

    def before_any(self) -> list[Judged]:
        nobody = self._tenant()
        return [each for task in self.tasks for each in self._judged(nobody, task, 0)]

    def in_order(self, order: Sequence[str], number: int = 0) -> tuple[list[Judged], Tenant]:
        """Each task forecast from those before it in the order, which has this number, then
        reported."""
        tenant, told = self._tenant(), []
        for before, task in enumerate(order):
            told += self._judged(tenant, task, before, number)
            tenant.report(self._runs[task])
        return told, tenant

    def one_left_out(self) -> list[Judged]:
        """Each task forecast from all others."""
        told = []
        for task in self.tasks:
            tenant = self._tenant()
            tenant.report([run for name in self.tasks if name != task for run in self._runs[name]])
            told += self._judged(tenant, task, len(self.tasks) - 1)
        return told

    def _tenant(self) -> Tenant:
        return Tenant(self._shipped, self._catalogue, self._known)

    def _judged(self, tenant: Tenant, task: str, before: int, order: int = 0) -> list[Judged]:
        found = []
        for recipe in dict.fromkeys(run["recipe"] for run in self._runs[task]):
            runs = [run for run in self._runs[task] if run["recipe"] == recipe]
            told = tenant.forecast(task, recipe, [run["model"] for run in runs])
            found += [Judged(run, told[run["model"]], before, order) for run in runs]
        return found
