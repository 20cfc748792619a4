"""What a tenant has used, and what it may."""

from __future__ import annotations

from dataclasses import asdict
from typing import get_args

from fastapi import APIRouter, Request

from app.api.auth import Tenant
from app.api.quotas import quotas_of
from app.api.rates import KINDS, Rates
from app.api.resources import Reached, Reading
from app.api.schemas import QuotaAnswer, RateAnswer, TaskStatus, UsageAnswer
from app.store import usage

router = APIRouter(tags=["usage"])


@router.get("/usage", response_model=UsageAnswer)
def get_usage(request: Request, reached: Reached, tenant: Tenant, session: Reading) -> UsageAnswer:
    """A limit that is null is none."""
    used = asdict(usage.of_tenant(session, tenant))
    limits = asdict(quotas_of(reached.settings))
    rates: Rates = request.app.state.rates
    found = usage.tasks_by_status(session, tenant)
    return UsageAnswer(
        tasks={status: found.get(status, 0) for status in get_args(TaskStatus)},
        quotas={name: QuotaAnswer(used=used[name], limit=limits[name]) for name in used},
        requests_per_minute={
            kind: RateAnswer(
                limit=left.limit if left else None,
                remaining=left.remaining if left else None,
                reset_seconds=left.reset_seconds if left else None,
            )
            for kind in KINDS
            for left in [rates.left(kind, tenant)]
        },
    )
