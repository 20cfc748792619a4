"""A task: what it is, what is near it, and what to start from."""

from __future__ import annotations

from itertools import chain, islice
from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response
from sqlalchemy.orm import Session

from app.api import estimates, neighbours, plans, tasks
from app.api.auth import Tenant
from app.api.forecasts import Forecasts
from app.api.limits import Limits
from app.api.line import IN_LINE
from app.api.pages.frame import page, page_router
from app.api.pages.scales import linear, logarithmic
from app.api.resources import Reached, Reading
from app.api.schemas import EstimateRow, TaskAnswer
from app.api.weights import weights_here
from app.catalogue import DEFAULT_DEVICE, DEFAULT_RECIPE, CandidateCard, DeviceCard, RecipeCard
from app.errors import Task2VecError
from app.store import cards, jobs
from app.store import tasks as store
from app.store.neighbours import Filters

router = page_router()

NEIGHBOURS = 10
SKIPPED_SHOWN = 100
CLASSES_SHOWN = 200

Sort = Literal["rank", "candidate", "accuracy", "seconds", "money_usd", "parameters"]
Amount = Annotated[float | None, Query(ge=0, allow_inf_nan=False)]


@router.get("/tasks/{task_id}", dependencies=[IN_LINE])
def get_overview(
    request: Request, reached: Reached, task_id: tasks.TaskIdPath, tenant: Tenant, session: Reading
) -> Response:
    task = tasks.get_task(task_id, tenant, session)
    shown: dict[str, Any] = {"task": task, "near": None, "classes": [], "skipped": []}
    if task.complexity is not None:
        near = neighbours.get_neighbours(
            request, reached, task_id, tenant, session, Filters(), k=NEIGHBOURS, wanted="json"
        )
        assert not isinstance(near, Response)  # noqa: S101
        shown["near"] = near
        ends = [(row.distance, row.noise_floor or 0.0) for row in near.neighbours]
        shown["farthest"] = max(chain.from_iterable(ends), default=0.0)
    if task.intake is not None:
        files = store.get_task(session, tenant, task_id).intake_files or []
        skipped = (file for file in files if file["status"] == "skipped")
        shown["skipped"] = list(islice(skipped, SKIPPED_SHOWN))
        if task.intake.get("classes"):
            shown["classes"] = tasks.get_classes(task_id, tenant, session).classes
    return page(
        request,
        "task.html",
        tab="",
        classes_shown=CLASSES_SHOWN,
        running=_running(session, tenant, task),
        **shown,
    )


@router.get("/tasks/{task_id}/estimates", dependencies=[IN_LINE])
def get_estimates(
    request: Request,
    reached: Reached,
    task_id: tasks.TaskIdPath,
    tenant: Tenant,
    session: Reading,
    device: str = DEFAULT_DEVICE,
    recipe: str = DEFAULT_RECIPE,
    budget_usd: Amount = None,
    budget_minutes: Amount = None,
    target_percent: Annotated[float | None, Query(gt=0, le=100)] = None,
    tries: Annotated[int, Query(ge=1, le=20)] = 3,
    licence: str = "",
    sort: Sort = "rank",
) -> Response:
    """One list under one set of wishes, and the plan under the same ones."""
    task = tasks.get_task(task_id, tenant, session)
    asked = {
        "device": device,
        "recipe": recipe,
        "budget_usd": budget_usd,
        "budget_minutes": budget_minutes,
        "target_percent": target_percent,
        "tries": tries,
        "licence": licence,
        "sort": sort,
    }
    budget_seconds = None if budget_minutes is None else 60 * budget_minutes
    within = {
        "device": device,
        "recipe": recipe,
        "licence": licence or None,
        "budget_usd": budget_usd,
        "budget_seconds": budget_seconds,
    }
    shown: dict[str, Any] = {"rows": [], "plan": None, "not_yet": None}
    try:
        row = store.get_task(session, tenant, task_id)
        forecasts = Forecasts(reached, session, tenant)
        is_here = weights_here(session)
        told, candidates = estimates.estimates_of(session, tenant, row, forecasts, device, recipe)
        allowed = Limits([licence] if licence else []).within(told, candidates)
        rows = estimates.rows_of(
            allowed, candidates, is_here, budget_usd=budget_usd, budget_seconds=budget_seconds
        )
        rows.sort(key=lambda each: _sort_key(each, sort))
        shown |= {
            "rows": rows,
            "needed": estimates.needed(allowed),
            "accuracies": linear([each.accuracy for each in rows], 0.0, 1.0),
            "seconds": logarithmic([each.seconds for each in rows]),
            "money": logarithmic([each.money_usd for each in rows]),
            "plan": plans.plan_of(
                row,
                forecasts,
                allowed,
                candidates,
                is_here,
                device=device,
                recipe=recipe,
                target=None if target_percent is None else target_percent / 100,
                tries=tries,
                budget_usd=budget_usd,
                budget_seconds=budget_seconds,
            ),
        }
    except Task2VecError as error:
        if error.code != "task-not-ready":
            raise
        candidates = {card.name: card for card in cards.list_cards(session, tenant, CandidateCard)}
        shown["not_yet"] = error.problem()
    return page(
        request,
        "estimates.html",
        task=task,
        tab="/estimates",
        asked=asked,
        within={name: value for name, value in within.items() if value is not None},
        devices=[card.name for card in cards.list_cards(session, tenant, DeviceCard)],
        recipes=[card.name for card in cards.list_cards(session, tenant, RecipeCard)],
        licences=sorted({card.licence for card in candidates.values()}),
        candidates=candidates,
        **shown,
    )


def _running(session: Session, tenant: str, task: TaskAnswer) -> str | None:
    """The job that the page follows."""
    if task.job_id is None:
        return None
    job = jobs.get_job(session, tenant, task.job_id)
    return None if job.state in jobs.ENDED else job.id


def _sort_key(row: EstimateRow, sort: Sort) -> tuple[bool, Any]:
    """What is not known stands last."""
    if sort == "accuracy":
        return row.accuracy is None, -row.accuracy.typical if row.accuracy else 0.0
    value = getattr(row, sort)
    return False, value.typical if sort in ("seconds", "money_usd") else value
