"""What a tenant's estimator says of runs that were not made yet."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy.orm import Session

from app.api.resources import Resources
from app.catalogue import CandidateCard
from app.cost.correction import Factor, Setting
from app.cost.estimator import Joint, Question
from app.cost.outcome_table import OutcomeTable
from app.cost.predictor import CountedName, Interval
from app.cost.timing import Timing
from app.store import outcomes, scores, timings
from app.store.tables import Task

PERCENT = 100.0


class Forecasts:
    """Of one moment."""

    def __init__(self, reached: Resources, session: Session, tenant: str) -> None:
        self._session, self._tenant = session, tenant
        self._estimator = reached.estimators.of(session, tenant)
        self._seen: dict[str, OutcomeTable | None] = {}
        self._scores: dict[str, dict[str, dict[str, float]]] = {}
        self._told: dict[tuple[str, str, str], Joint] = {}
        self._timings: dict[str, dict[str, Timing]] = {}

    def accuracies(
        self, task: Task, recipe: str, metric: str, candidates: Collection[CandidateCard]
    ) -> dict[str, Interval]:
        """Of those that something can be said of, this very moment's outcomes included."""
        joint = self.joint(task, recipe, metric, candidates)
        return joint.intervals() if joint else {}

    def joint(
        self, task: Task, recipe: str, metric: str, candidates: Collection[CandidateCard]
    ) -> Joint | None:
        """The same of all of them together; None where there are no outcomes at all. Asked again
        for the same task, recipe and metric, of the same candidates."""
        if self._estimator.accuracy is None:
            return None
        asked = (task.id, recipe, metric)
        if asked not in self._told:
            question = self._question(task, recipe, metric, candidates)
            self._told[asked] = self._estimator.accuracy.joint(question)
        return self._told[asked]

    def factors(self, setting: Setting) -> dict[CountedName, Factor | None]:
        """On what is counted for a run."""
        timing = self.timing(setting.device, setting.model)
        return self._estimator.factors(setting, is_timed=timing is not None)

    def timing(self, device: str, candidate: str) -> Timing | None:
        if device not in self._timings:
            self._timings[device] = timings.on_device(self._session, self._tenant, device)
        return self._timings[device].get(candidate)

    def seen(self, task: Task) -> OutcomeTable | None:
        """Finished runs on the task."""
        if task.id not in self._seen:
            evidence = outcomes.evidence(self._session, self._tenant, task=task.id)
            self._seen[task.id] = evidence.finished()
        return self._seen[task.id]

    def scores(self, task: Task) -> dict[str, dict[str, float]]:
        """By candidate, what its features told of the task, as the estimator names it."""
        if task.id not in self._scores:
            found = scores.learnt(self._session, self._tenant, [task.id])
            self._scores[task.id] = found.get(task.id, {})
        return self._scores[task.id]

    def _question(
        self, task: Task, recipe: str, metric: str, candidates: Collection[CandidateCard]
    ) -> Question:
        made = task.embedding.provenance if task.embedding else {}
        by_name = {card.name: card for card in candidates}
        return Question(
            task=task.id,
            recipe=recipe,
            metric=metric,
            published={name: _published(card, by_name) for name, card in by_name.items()},
            probe_accuracy=made.get("cv_accuracy"),
            scores=self.scores(task),
            seen=self.seen(task),
        )


def _published(card: CandidateCard, by_name: Mapping[str, CandidateCard]) -> float | None:
    """Top-1 accuracy, a share: of a run's model that of the candidate which it descends from."""
    seen: set[str] = set()
    while card.top1_percent is None and card.parent is not None and card.name not in seen:
        seen.add(card.name)
        card = by_name.get(card.parent, card)
    return None if card.top1_percent is None else card.top1_percent / PERCENT
