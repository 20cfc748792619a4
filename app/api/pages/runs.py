"""Fine-tuning: a task's runs and outcomes, and one run beside its forecast."""

from __future__ import annotations

from fastapi import Request, Response

from app.api import finetunes, outcomes, tasks
from app.api.auth import Tenant
from app.api.pages.frame import page, page_router
from app.api.resources import Reading
from app.api.schemas import OutcomePage
from app.catalogue import CandidateCard, DeviceCard, RecipeCard
from app.store import cards
from app.training.names import WHY

router = page_router()

SHOWN = 50


@router.get("/tasks/{task_id}/runs")
def get_runs(
    request: Request, task_id: tasks.TaskIdPath, tenant: Tenant, session: Reading
) -> Response:
    task = tasks.get_task(task_id, tenant, session)
    listed = outcomes.list_outcomes(
        request, tenant, session, limit=SHOWN, task=task_id, wanted="json"
    )
    assert isinstance(listed, OutcomePage)  # noqa: S101
    return page(
        request,
        "runs.html",
        task=task,
        tab="/runs",
        runs=finetunes.list_finetunes(tenant, session, limit=SHOWN, task_id=task_id).items,
        outcomes=listed.items,
        candidates=[card.name for card in cards.list_cards(session, tenant, CandidateCard)],
        recipes=[card.name for card in cards.list_cards(session, tenant, RecipeCard)],
        devices=[card.name for card in cards.list_cards(session, tenant, DeviceCard)],
    )


@router.get("/runs/{finetune_id}")
def get_run(
    request: Request, finetune_id: finetunes.FinetuneId, tenant: Tenant, session: Reading
) -> Response:
    run = finetunes.get_finetune(finetune_id, tenant, session)
    return page(
        request,
        "run.html",
        run=run,
        task=tasks.get_task(run.task_id, tenant, session),
        ended=WHY,
    )
