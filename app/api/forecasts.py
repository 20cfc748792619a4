"""What a tenant's estimator says of runs that were not made yet."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.api.resources import Resources
from app.cost.correction import Factor, Setting
from app.cost.estimator import Joint
from app.cost.outcome_table import OutcomeTable
from app.cost.predictor import NOT_CORRECTED, CountedName, Interval
from app.store import outcomes


class Forecasts:
    """Of one moment; nothing is said while no worker has published an estimator."""

    def __init__(self, reached: Resources, session: Session, tenant: str) -> None:
        self._session, self._tenant = session, tenant
        self._estimator = reached.estimators.of(session, tenant)
        self._seen: dict[str, OutcomeTable | None] = {}
        self._told: dict[tuple[str, ...], dict[str, Interval]] = {}

    def accuracies(
        self, task: str, recipe: str, metric: str, models: Sequence[str]
    ) -> dict[str, Interval]:
        """Of the candidates that outcomes say something of, those of this very moment included."""
        if self._estimator is None or self._estimator.accuracy is None:
            return {}
        asked = (task, recipe, metric, *models)
        if asked not in self._told:
            self._told[asked] = self._estimator.accuracy.forecast(
                task, recipe, metric, models, self.seen(task)
            )
        return self._told[asked]

    def joint(self, task: str, recipe: str, metric: str, models: Sequence[str]) -> Joint | None:
        """The same of all of them together; None while there is no estimator."""
        if self._estimator is None or self._estimator.accuracy is None:
            return None
        seen = self.seen(task)
        return self._estimator.accuracy.joint(task, recipe, metric, models, seen)

    def factors(self, setting: Setting) -> dict[CountedName, Factor | None]:
        """On what is counted for a run."""
        return dict(NOT_CORRECTED) if self._estimator is None else self._estimator.factors(setting)

    def seen(self, task: str) -> OutcomeTable | None:
        """Finished runs on the task."""
        if task not in self._seen:
            evidence = outcomes.evidence(self._session, self._tenant, task=task)
            self._seen[task] = evidence.finished()
        return self._seen[task]
