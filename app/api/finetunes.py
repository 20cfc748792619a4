"""Fine-tuning runs: begun on a stored task, followed, their models fetched."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, BinaryIO

import anyio
from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy.orm import Session

from app.api.auth import Asking, Tenant
from app.api.bodies import describe_json_body, json_body
from app.api.callbacks import ask_callback
from app.api.outcomes import Known
from app.api.problems import problems
from app.api.quotas import require_room
from app.api.repeats import Post
from app.api.resources import Reached, Reading, Resources, Writing
from app.api.schemas import (
    CandidateAsked,
    FinetuneAccepted,
    FinetuneAnswer,
    FinetuneAsked,
    FinetunePage,
    TaskId,
)
from app.api.tasks import Cursor, IdPrefix, Limit, TaskIdPath, task_with_images
from app.api.weights import require_unseen, require_weights
from app.catalogue import RUN_SOURCE, CandidateCard, DeviceCard, RecipeCard, Weights
from app.cost.predictor import SECONDS_PER_HOUR
from app.errors import Conflict, InvalidRequest, NotFound, Unauthorised
from app.store import cards, workers
from app.store import finetunes as store
from app.store.blobs import CHUNK_BYTES, Blob
from app.store.finetunes import Asked
from app.store.idempotency import Answer
from app.store.jobs import ENDED
from app.store.outcomes import Run
from app.store.tables import Finetune
from app.training.names import FILES, FileName

router = APIRouter(tags=["fine-tuning"])

ALIVE_SECONDS = 60.0
MOST_SECONDS = 1e9
_PARENT_CHARACTERS, _ID_CHARACTERS = 90, 8
"""Of a registered model's name, unless one is asked for."""
FinetuneId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]
_KINDS: dict[FileName, str] = {
    "model": "application/octet-stream",
    "config": "application/json",
    "card": "text/markdown; charset=utf-8",
}


@router.post(
    "/tasks/{task_id}/finetunes",
    status_code=202,
    response_model=FinetuneAccepted,
    responses=problems(403, 404, 409, 413, 415),
    openapi_extra=describe_json_body(FinetuneAsked),
)
def post_finetune(
    task_id: TaskIdPath,
    asked: Annotated[FinetuneAsked, json_body(FinetuneAsked)],
    reached: Reached,
    tenant: Tenant,
    post: Post,
) -> Response:
    """The forecast that its outcome will be held against is made now, before it is trained."""
    with reached.database.session(read_only=True) as session:
        replayed = post.replayed(session, asked.model_dump_json())
        if replayed is not None:
            return replayed
        candidate, recipe, device = _cards(reached, session, tenant, asked)
        task = task_with_images(session, tenant, task_id)
        require_unseen(session, tenant, candidate, task)
        forecast = _forecast(reached, session, tenant, task_id, asked)

    def accept(session: Session) -> Answer:
        require_room(reached, session, tenant)
        row = store.create(
            session,
            task_with_images(session, tenant, task_id),
            candidate,
            recipe,
            device,
            Asked(
                seed=asked.seed,
                target=asked.target,
                patience=asked.patience,
                budget_seconds=_budget_seconds(asked, device),
                trace_every=asked.trace_every,
            ),
            warnings=_warnings(asked, forecast),
            forecast=forecast,
        )
        ask_callback(reached, session, row.job, asked.callback_url)
        body = FinetuneAccepted(id=row.id, job_id=row.job.id, warnings=row.warnings)
        return Answer(202, body.model_dump(), f"/v1/finetunes/{row.id}")

    with reached.database.session() as session:
        return post.once(session, lambda: accept(session), asked.model_dump_json())


@router.get("/finetunes", response_model=FinetunePage)
def list_finetunes(
    tenant: Tenant,
    session: Reading,
    limit: Limit = 50,
    cursor: Cursor = None,
    id_prefix: IdPrefix = None,
    task_id: Annotated[TaskId | None, Query()] = None,
) -> FinetunePage:
    """Newest first, each with its last epoch alone and without its result."""
    found, next_cursor = store.list_finetunes(
        session, tenant, limit=limit, cursor=cursor, id_prefix=id_prefix, task_id=task_id
    )
    return FinetunePage(items=[_row(row) for row in found], next_cursor=next_cursor)


@router.get("/finetunes/{finetune_id}", response_model=FinetuneAnswer, responses=problems(404))
def get_finetune(finetune_id: FinetuneId, tenant: Tenant, session: Reading) -> FinetuneAnswer:
    return _answer(store.get(session, tenant, finetune_id))


def _look(reached: Reached, finetune_id: FinetuneId, caller: Asking) -> FinetuneAnswer:
    with reached.database.session(read_only=True) as session:
        caller.require_still_valid(session)
        return _answer(store.get(session, caller.tenant, finetune_id))


@router.get(
    "/finetunes/{finetune_id}/events",
    response_class=EventSourceResponse,
    responses=problems(404),
)
async def get_events(
    request: Request,
    reached: Reached,
    finetune_id: FinetuneId,
    caller: Asking,
    seen: Annotated[FinetuneAnswer, Depends(_look)],
    last: Annotated[str | None, Header(alias="Last-Event-ID", max_length=20)] = None,
) -> AsyncIterator[ServerSentEvent]:
    """An `epoch` whenever one is over, then `ended` with the run's state, problem and verdict.

    Taken up again (Last-Event-ID), the stream goes on after that epoch.
    """
    told = int(last) if last and last.isdecimal() else 0
    while True:
        for epoch in seen.curve[told:]:
            told += 1
            yield ServerSentEvent(data=epoch, event="epoch", id=str(told))
        if seen.state in ENDED:
            verdict = (seen.result or {}).get("verdict")
            data = {"state": seen.state, "problem": seen.problem, "verdict": verdict}
            yield ServerSentEvent(data=data, event="ended")
            return
        await anyio.sleep(reached.look_seconds)
        if request.app.state.stopping.is_set():
            return
        try:
            seen = await run_in_threadpool(_look, reached, finetune_id, caller)
        except (NotFound, Unauthorised):
            return  # it went with its task, or the key ended


@router.get(
    "/finetunes/{finetune_id}/{file}",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {
                kind.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}}
                for kind in _KINDS.values()
            }
        },
        **problems(404, 409, 503),
    },
)
def get_file(
    finetune_id: FinetuneId,
    file: FileName,
    reached: Reached,
    tenant: Tenant,
    session: Reading,
) -> StreamingResponse:
    """The weights as safetensors, how to build their network, and a card for people."""
    row = store.get(session, tenant, finetune_id)
    blob = require_file(reached, row, file)
    return StreamingResponse(
        _chunks(reached.blobs.open(blob.sha256)),  # opened now: what fails can still be told
        media_type=_KINDS[file],
        headers={
            "Content-Length": str(blob.size_bytes),
            "Content-Disposition": f'attachment; filename="{row.id}-{FILES[file]}"',
            "ETag": f'"{blob.sha256}"',
        },
    )


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk


@router.post(
    "/finetunes/{finetune_id}/candidate",
    status_code=201,
    response_model=CandidateCard,
    responses=problems(404, 409, 413, 415),
    openapi_extra=describe_json_body(CandidateAsked),
)
def post_candidate(
    finetune_id: FinetuneId,
    asked: Annotated[CandidateAsked, json_body(CandidateAsked)],
    reached: Reached,
    tenant: Tenant,
    post: Post,
    session: Writing,
) -> Response:
    """The run's model becomes a candidate of yours; while it is one, the task cannot be deleted."""

    def register() -> Answer:
        row = store.get(session, tenant, finetune_id)
        model = require_file(reached, row, "model")
        _require_kept(row)
        card = _registered(row, asked.name, model.sha256)
        store.register(session, tenant, finetune_id, card)
        return Answer(201, card.model_dump(mode="json"))

    return post.once(session, register, asked.model_dump_json())


def _require_kept(row: Finetune) -> None:
    """Conflict where the run's model will not last."""
    if row.task.expires_at is not None:
        raise Conflict(
            "task-not-kept",
            f"The task {row.task.id!r} goes by itself: its images were only asked about.",
            "Upload them as a task, and train the candidate on it.",
        )


def _registered(row: Finetune, name: str | None, digest: str) -> CandidateCard:
    """What was counted of the candidate that the run began with holds of its model too; what was
    published of it does not."""
    parent = CandidateCard.model_validate(row.candidate, strict=False)
    return parent.model_copy(
        update={
            "name": name or f"{parent.name[:_PARENT_CHARACTERS]}-{row.id[:_ID_CHARACTERS]}",
            "description": f"{parent.name}, fine-tuned on {row.task.name} by {row.recipe['name']}",
            "pretraining": f"{parent.pretraining}, then {row.task.name}",
            "parent": parent.name,
            "source_task": row.task.id,
            "top1_percent": None,
            "top1_source": None,
            "weights": Weights(source=f"{RUN_SOURCE}{row.id}", sha256=digest),
        }
    )


def require_file(reached: Resources, row: Finetune, file: FileName) -> Blob:
    """Conflict where the run has not ended with a model, NotFound where the file is gone."""
    if row.job.state != "succeeded":
        raise Conflict(
            "finetune-not-ended",
            f"The run {row.id!r} is {row.job.state}: it has no model.",
            "Wait for its job to end, or read the problem that the run names.",
        )
    blob = store.files_of(row).get(file)
    if blob is None or reached.blobs.size_bytes(blob.sha256) is None:
        raise NotFound(
            "model-gone", f"{FILES[file]} of the run {row.id!r} is not there.", "Train it again."
        )
    return blob


def _cards(
    reached: Resources, session: Session, tenant: str, asked: FinetuneAsked
) -> tuple[CandidateCard, RecipeCard, DeviceCard]:
    candidate = cards.get_card(session, tenant, CandidateCard, asked.candidate)
    require_weights(session, candidate)
    if candidate.weights.run_id is not None:
        require_file(reached, store.get(session, tenant, candidate.weights.run_id), "model")
    recipe = cards.get_card(session, tenant, RecipeCard, asked.recipe)
    if recipe.evaluation_share == 0:
        raise InvalidRequest(
            "nothing-held-out",
            f"The recipe {recipe.name} holds no image out: nothing would judge the run.",
            "Choose one whose `evaluation_share` is above 0.",
        )
    device = cards.get_card(session, tenant, DeviceCard, asked.device)
    _require_same_kind(session, device)
    return candidate, recipe, device


def _require_same_kind(session: Session, device: DeviceCard) -> None:
    """What a processor took must not become what a GPU takes."""
    here = {worker.device.partition(":")[0] for worker in workers.alive(session, ALIVE_SECONDS)}
    kinds = {{"cuda": "gpu"}.get(name, name) for name in here}
    if kinds and device.kind not in kinds:
        raise InvalidRequest(
            "device-differs",
            f"{device.name} is a {device.kind}, and the worker computes on {', '.join(here)}.",
            "Name the card of the worker's machine as `device`.",
        )


def _forecast(
    reached: Resources, session: Session, tenant: str, task_id: str, asked: FinetuneAsked
) -> dict[str, Any] | None:
    names = {
        "task": task_id,
        "model": asked.candidate,
        "recipe": asked.recipe,
        "device": asked.device,
        "metric": "accuracy",
        "stop_reason": "",
    }
    return Known(reached, session, tenant).forecast(Run(names, None, {}))


def _budget_seconds(asked: FinetuneAsked, device: DeviceCard) -> float | None:
    """The smaller of both."""
    budgets = [] if asked.budget_seconds is None else [asked.budget_seconds]
    if asked.budget_usd is not None and device.price_usd_per_hour > 0:
        budgets.append(asked.budget_usd / device.price_usd_per_hour * SECONDS_PER_HOUR)
    return min((*budgets, MOST_SECONDS)) if budgets else None


def _warnings(asked: FinetuneAsked, forecast: dict[str, Any] | None) -> list[str]:
    told = (forecast or {}).get("accuracy")
    if asked.target is None or told is None or asked.target <= told["high"]:
        return []
    return [
        f"The target of {asked.target:.1%} lies above what {asked.candidate} is estimated to reach "
        f"at most, {told['high']:.1%}: the run may go on to the end of its recipe."
    ]


def _row(row: Finetune) -> FinetuneAnswer:
    return _answer(row).model_copy(update={"curve": row.curve[-1:], "result": None})


def _answer(row: Finetune) -> FinetuneAnswer:
    here = f"/v1/finetunes/{row.id}"
    files = {name: f"{here}/{name}" for name in FILES} if row.job.state == "succeeded" else {}
    outcome = {"outcome": f"/v1/outcomes/{row.outcome_id}"} if row.outcome_id else {}
    job = f"/v1/jobs/{row.job.id}"
    return FinetuneAnswer(
        id=row.id,
        task_id=row.task.id,
        candidate=row.candidate["name"],
        recipe=row.recipe["name"],
        device=row.device["name"],
        asked=row.asked,
        warnings=row.warnings,
        forecast=row.forecast,
        state=row.job.state,
        problem=row.job.problem,
        curve=row.curve,
        result=row.result,
        outcome_id=row.outcome_id,
        job_id=row.job.id,
        created_at=row.created_at,
        finished_at=row.job.finished_at,
        links={"self": here, "events": f"{here}/events", "job": job, **files, **outcome},
    )
