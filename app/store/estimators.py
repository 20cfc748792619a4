"""The estimators of a process: one a tenant, fitted anew when its outcomes have changed."""

from __future__ import annotations

import threading

from sqlalchemy.orm import Session

from app.cost.estimator import AccuracyEstimator
from app.errors import InvalidRequest
from app.store import outcomes


class Estimators:
    def __init__(self) -> None:
        self._fitted: dict[str, tuple[tuple[int, int], AccuracyEstimator | None]] = {}
        self._mutex = threading.Lock()

    def of(self, session: Session, tenant: str) -> AccuracyEstimator | None:
        """None while no run of the tenant's finished."""
        now = outcomes.watermark(session, tenant)
        with self._mutex:
            then, estimator = self._fitted.get(tenant, ((0, 0), None))
            if then != now:
                estimator = _fit(session, tenant)
                self._fitted[tenant] = now, estimator
        return estimator


def _fit(session: Session, tenant: str) -> AccuracyEstimator | None:
    try:
        return AccuracyEstimator(outcomes.table(session, tenant))
    except InvalidRequest:  # all of them failed
        return None
