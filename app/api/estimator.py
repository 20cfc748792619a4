"""The estimator that serves: what it was fitted to, how good it is, whether it still holds."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter
from sqlalchemy.orm import Session

from app.api.auth import Tenant
from app.api.resources import Reached, Reading
from app.api.schemas import EstimatorAnswer, RefusedEstimator, TrackedAnswer
from app.cost.drift import Tracked, tracked
from app.store import estimators, outcomes

router = APIRouter(tags=["estimates"])

TRACKED = 1_000  # newest outcomes


@router.get("/estimator", response_model=EstimatorAnswer)
def get_estimator(reached: Reached, tenant: Tenant, session: Reading) -> EstimatorAnswer:
    """Yours: it is fitted to your outcomes, beside those that ship and that others share."""
    serving = estimators.latest(session, tenant, published=True)
    last = estimators.latest(session, tenant, published=False)
    refused = None
    if last is not None and not last.published:
        refused = RefusedEstimator(
            version=last.version, reason=last.reason, created_at=last.created_at
        )
    pending = estimators.is_due(session, tenant, reached.estimators.shipped_digest)
    if serving is None:
        return EstimatorAnswer(pending=pending, refused=refused)
    return EstimatorAnswer(
        version=serving.version,
        created_at=serving.created_at,
        service=serving.code_version,
        outcomes=serving.n_outcomes,
        tasks=serving.n_tasks,
        candidates=serving.n_candidates,
        reason=serving.reason,
        pending=pending,
        refused=refused,
        accuracy=serving.report["accuracy"],
        corrections=serving.report["corrections"],
        tracked={
            name: TrackedAnswer(**asdict(found))
            for name, found in coverage(session, tenant).items()
        },
    )


def coverage(session: Session, tenant: str | None = None) -> dict[str, Tracked]:
    """By number whether intervals still hold: the tenant's, or those of all together."""
    scored = outcomes.scored(session, tenant, TRACKED)
    found = {name: tracked(tasks, inside) for name, (tasks, inside) in scored.items()}
    return {name: told for name, told in found.items() if told is not None}
