"""What steps of candidates took on devices: seconds that need no assumption about the machine."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from app.api.auth import Tenant
from app.api.bodies import describe_json_body, json_body
from app.api.problems import problems
from app.api.repeats import Post
from app.api.resources import Reading, Writing
from app.api.schemas import CardRef, SpreadBody, TimingAnswer, TimingPage, TimingReport
from app.catalogue import CandidateCard, DeviceCard
from app.cost.timing import Spread, Timing
from app.store import cards
from app.store import timings as store
from app.store.idempotency import Answer
from app.store.tables import CandidateTiming

router = APIRouter(tags=["catalogue"])


@router.post(
    "/timings",
    status_code=201,
    response_model=TimingAnswer,
    responses=problems(409, 413, 415),
    openapi_extra=describe_json_body(TimingReport),
)
def post_timing(
    report: Annotated[TimingReport, json_body(TimingReport)],
    tenant: Tenant,
    post: Post,
    session: Writing,
) -> Response:
    """In place of what was timed of the candidate on the device before."""

    def add() -> Answer:
        cards.get_card(session, tenant, DeviceCard, report.device)
        cards.get_card(session, tenant, CandidateCard, report.candidate)
        step, forward = (
            Spread(each.low, each.typical, each.high)
            for each in (report.step_seconds, report.forward_seconds)
        )
        timing = Timing(report.batch_size, step, forward)
        row = store.put(session, tenant, report.device, report.candidate, timing)
        return Answer(201, _answer(row).model_dump(mode="json"))

    return post.once(session, add, report.model_dump_json())


@router.get("/timings", response_model=TimingPage)
def list_timings(
    tenant: Tenant,
    session: Reading,
    device: Annotated[CardRef | None, Query(description="only on this one")] = None,
) -> TimingPage:
    """Yours, by device and candidate."""
    return TimingPage(items=[_answer(row) for row in store.list_timings(session, tenant, device)])


@router.delete("/timings/{device}/{candidate}", status_code=204, responses=problems(404))
def delete_timing(
    device: Annotated[str, Path(max_length=100)],
    candidate: Annotated[str, Path(max_length=100)],
    tenant: Tenant,
    session: Writing,
) -> None:
    """Estimates of the candidate on the device rest on what is counted again."""
    store.remove(session, tenant, device, candidate)


def _answer(row: CandidateTiming) -> TimingAnswer:
    step, forward = (
        SpreadBody(low=low, typical=typical, high=high)
        for low, typical, high in (row.step_seconds, row.forward_seconds)
    )
    return TimingAnswer(
        device=row.device,
        candidate=row.candidate,
        batch_size=row.batch_size,
        step_seconds=step,
        forward_seconds=forward,
        created_at=row.created_at,
    )
