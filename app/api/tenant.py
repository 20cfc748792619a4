"""What a tenant has set."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter

from app.api.auth import Tenant
from app.api.bodies import describe_json_body, json_body
from app.api.problems import problems
from app.api.resources import Reading, Writing
from app.api.schemas import TenantAnswer, TenantChanges
from app.store import tenants as store

router = APIRouter(tags=["outcomes"])


@router.get("/tenant", response_model=TenantAnswer)
def get_tenant(tenant: Tenant, session: Reading) -> TenantAnswer:
    return TenantAnswer(share_outcomes=store.shares_outcomes(session, tenant))


@router.patch(
    "/tenant",
    response_model=TenantAnswer,
    responses=problems(413, 415),
    openapi_extra=describe_json_body(TenantChanges),
)
def patch_tenant(
    changes: Annotated[TenantChanges, json_body(TenantChanges)], tenant: Tenant, session: Writing
) -> TenantAnswer:
    """From the commit on; the shared estimator is fitted anew a few seconds later."""
    store.share_outcomes(session, tenant, shares=changes.share_outcomes)
    return TenantAnswer(share_outcomes=changes.share_outcomes)
