"""How far the estimates can be trusted: the estimator's report, and forecasts beside what came."""

from __future__ import annotations

from fastapi import Request, Response

from app.api import estimator, outcomes
from app.api.auth import Tenant
from app.api.pages.frame import page, page_router
from app.api.resources import Reached, Reading
from app.api.schemas import OutcomePage

router = page_router()

SHOWN = 200


@router.get("/estimator")
def get_report(request: Request, reached: Reached, tenant: Tenant, session: Reading) -> Response:
    listed = outcomes.list_outcomes(request, tenant, session, limit=SHOWN, wanted="json")
    assert isinstance(listed, OutcomePage)  # noqa: S101
    beside = [
        {
            "model": each.model,
            "task": each.task,
            "value": each.value,
            **{end: each.forecast["accuracy"][end] for end in ("low", "typical", "high")},
        }
        for each in listed.items
        if each.metric == "accuracy"
        and each.value is not None
        and each.forecast is not None
        and each.forecast.get("accuracy")
        and each.quarantine is None
    ]
    return page(
        request,
        "estimator.html",
        estimator=estimator.get_estimator(reached, tenant, session),
        beside=beside,
    )
