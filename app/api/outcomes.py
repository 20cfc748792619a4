"""What fine-tuning runs really gave and took, reported one by one or as a table."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import polars as pl
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from app import __version__
from app.api import formats
from app.api.auth import Tenant
from app.api.bodies import (
    content_type,
    describe_json_body,
    json_body,
    read_body,
    unsupported,
)
from app.api.estimates import facts_of
from app.api.forecasts import Forecasts
from app.api.neighbours import TableFormat
from app.api.problems import problems
from app.api.repeats import Post
from app.api.resources import Reached, Reading, Resources, Writing
from app.api.schemas import (
    CardRef,
    OutcomeAnswer,
    OutcomeChanges,
    OutcomePage,
    OutcomeReport,
    OutcomeRowError,
    OutcomesImported,
    TaskId,
)
from app.api.tasks import Cursor, IdPrefix, Limit
from app.catalogue import CandidateCard, DeviceCard, RecipeCard
from app.cost.cells import is_shipped
from app.cost.correction import Setting
from app.cost.outcome_table import (
    MEDIA_TYPES,
    METRICS,
    REQUIRED,
    OutcomeTable,
    RowError,
    TableKind,
    check_outcomes,
    read_outcomes,
)
from app.cost.predictor import Estimate, estimate
from app.errors import InvalidRequest
from app.store import cards, tasks
from app.store import outcomes as store
from app.store.idempotency import Answer
from app.store.tables import Outcome, Task
from app.words import choices

router = APIRouter(tags=["outcomes"])
imports = APIRouter(tags=["outcomes"])

MAX_TABLE_BYTES = 32 * 2**20
_MAX_ERRORS = 100
_KINDS: dict[str, TableKind] = {media_type: kind for kind, media_type in MEDIA_TYPES.items()}
_FORECAST = ("accuracy", "steps", "seconds", "money_usd", "energy_wh", "memory_mib")

OutcomeId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$")]


@router.post(
    "/outcomes",
    status_code=201,
    response_model=OutcomeAnswer,
    responses={200: {"model": OutcomeAnswer}, **problems(404, 409, 413, 415)},
    openapi_extra=describe_json_body(OutcomeReport),
)
def post_outcome(
    report: Annotated[OutcomeReport, json_body(OutcomeReport)],
    reached: Reached,
    tenant: Tenant,
    post: Post,
) -> Response:
    """The same report again is the same outcome: 200 instead of 201, and nothing is added."""
    with reached.database.session(read_only=True) as session:
        replayed = post.replayed(session, report.model_dump_json())
        if replayed is not None:
            return replayed
        table = check_outcomes(pl.DataFrame([report.model_dump()]))
        read = _read(reached, session, tenant, table)

    def accept(session: Session) -> Answer:
        tasks.get_task(session, tenant, report.task)
        if read.errors:
            error = read.errors[0]
            raise InvalidRequest(
                "outcome-invalid",
                f"`{error.column}`: {error.reason}.",
                error.remedy or "Change that field.",
            )
        added = store.add(session, tenant, read.runs, read.forecasts)
        body = _answer(added.outcomes[0]).model_dump(mode="json")
        return Answer(201 if added.new else 200, body)

    with reached.database.session() as session:
        return post.once(session, lambda: accept(session), report.model_dump_json())


async def _table_body(request: Request) -> tuple[TableKind, bytes]:
    sent = content_type(request)
    if sent not in _KINDS:
        raise unsupported(sent, list(_KINDS))
    kind, content = _KINDS[sent], await read_body(request, MAX_TABLE_BYTES, "table")
    if kind == "csv":
        _require_text(content)
    return kind, content


def _require_text(content: bytes) -> None:
    """What is compressed would be unpacked by whoever reads it, to any size."""
    try:
        content.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(
            "outcomes-unreadable",
            "The table is no UTF-8 text.",
            "Send CSV in UTF-8, not compressed; `task2vec outcomes import` unpacks .csv.gz itself.",
        ) from None


@imports.post(
    "/outcomes:import",
    response_model=OutcomesImported,
    responses=problems(409, 413, 415),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                MEDIA_TYPES["csv"]: {"schema": {"type": "string"}},
                MEDIA_TYPES["parquet"]: {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
)
def import_outcomes(
    sent: Annotated[tuple[TableKind, bytes], Depends(_table_body)],
    reached: Reached,
    tenant: Tenant,
    post: Post,
) -> Response:
    """An outcome table: its good rows are added, its bad ones told. Tasks may be any names."""
    kind, content = sent
    digest = hashlib.sha256(content).hexdigest()
    with reached.database.session(read_only=True) as session:
        replayed = post.replayed(session, kind, digest)
        if replayed is not None:
            return replayed
        table = read_outcomes(io.BytesIO(content), kind)
        read = _read(reached, session, tenant, table)

    def accept(session: Session) -> Answer:
        added = store.add(session, tenant, read.runs, read.forecasts)
        answer = OutcomesImported(
            added=len(added.new),
            already_there=len(read.runs) - len(added.new),
            quarantined=sum(outcome.quarantine is not None for outcome in added.new),
            refused=len({error.row for error in read.errors}),
            errors=[
                OutcomeRowError(
                    row=error.row,
                    column=error.column,
                    message=f"{error.reason}. {error.remedy}" if error.remedy else error.reason,
                )
                for error in read.errors[:_MAX_ERRORS]
            ],
            more_errors=max(len(read.errors) - _MAX_ERRORS, 0),
            ignored_columns=list(table.ignored),
        )
        return Answer(200, answer.model_dump(mode="json"))

    with reached.database.session() as session:
        return post.once(session, lambda: accept(session), kind, digest)


@router.get(
    "/outcomes",
    response_model=OutcomePage,
    responses={200: formats.also("csv")},
)
def list_outcomes(
    request: Request,
    tenant: Tenant,
    session: Reading,
    limit: Limit = 50,
    cursor: Cursor = None,
    id_prefix: IdPrefix = None,
    task: Annotated[TaskId | None, Query()] = None,
    model: Annotated[CardRef | None, Query()] = None,
    quarantined: Annotated[bool | None, Query(description="only these, or only others")] = None,
    wanted: TableFormat = None,
) -> OutcomePage | Response:
    """Newest first."""
    found, next_cursor = store.list_outcomes(
        session,
        tenant,
        limit=limit,
        cursor=cursor,
        id_prefix=id_prefix,
        task=task,
        model=model,
        quarantined=quarantined,
    )
    answers = [_answer(outcome) for outcome in found]
    if formats.choose(request, wanted, ("json", "csv")) == "csv":
        return _csv(answers, next_cursor)
    return OutcomePage(items=answers, next_cursor=next_cursor)


@router.get("/outcomes/{outcome_id}", response_model=OutcomeAnswer, responses=problems(404))
def get_outcome(outcome_id: OutcomeId, tenant: Tenant, session: Reading) -> OutcomeAnswer:
    return _answer(store.get_outcome(session, tenant, outcome_id))


@router.patch(
    "/outcomes/{outcome_id}",
    response_model=OutcomeAnswer,
    responses=problems(404, 413, 415),
    openapi_extra=describe_json_body(OutcomeChanges),
)
def patch_outcome(
    outcome_id: OutcomeId,
    changes: Annotated[OutcomeChanges, json_body(OutcomeChanges)],  # noqa: ARG001
    tenant: Tenant,
    session: Writing,
) -> OutcomeAnswer:
    """Release it from quarantine: somebody looked, and it is as it says."""
    outcome = store.get_outcome(session, tenant, outcome_id)
    store.release(session, outcome)
    return _answer(outcome)


@dataclass(frozen=True, slots=True)
class _ReadTable:
    """Good rows as `runs`, each with its forecast as estimates stand now; `errors` of the others,
    by row."""

    runs: list[store.Run]
    forecasts: list[dict[str, Any] | None]
    errors: list[RowError]


def _read(reached: Resources, session: Session, tenant: str, table: OutcomeTable) -> _ReadTable:
    """In a session that only reads: forecasts of thousands of tasks take longer than anybody who
    wants to write should wait."""
    known = Known(reached, session, tenant)
    unknown = list(known.errors(table))
    bad = {error.row for error in unknown}
    runs = [
        run
        for number, run in zip(table.numbers, store.runs_of(table), strict=True)
        if number not in bad
    ]
    return _ReadTable(
        runs=runs,
        forecasts=[known.forecast(run) for run in runs],
        errors=sorted([*table.errors, *unknown], key=lambda error: (error.row, error.column)),
    )


class Known:
    """The catalogue and tasks that rows of outcomes name."""

    def __init__(self, reached: Resources, session: Session, tenant: str) -> None:
        self._session, self._tenant = session, tenant
        self._forecasts = Forecasts(reached, session, tenant)
        self._candidates = self._cards(CandidateCard)
        self._recipes = self._cards(RecipeCard)
        self._devices = self._cards(DeviceCard)
        self._tasks: dict[str, Task | None] = {}

    def errors(self, table: OutcomeTable) -> Iterator[RowError]:
        known = {
            "model": (self._candidates, "candidate"),
            "recipe": ({"", *self._recipes}, "recipe"),
            "device": ({"", *self._devices}, "device"),
            "metric": (METRICS, "metric"),
        }
        called = store.names_of_tasks(
            self._session, self._tenant, table.names["task"].unique().to_list()
        )
        for number, row in enumerate(table.names.iter_rows(named=True), 1):
            name = row["task"]
            if is_shipped(name):
                yield RowError(number, "task", f"{name!r} begins as no task of yours may")
            elif name in called:
                yield RowError(
                    number,
                    "task",
                    f"{name!r} is what a task here is called, or how its id begins, not its id",
                    f"Write {' or '.join(called[name])}, or another name if it is another task.",
                )
            for column, (names, what) in known.items():
                if row[column] not in names and not (row[column] == "" and column in REQUIRED):
                    remedy = choices([name for name in names if name], row[column])
                    yield RowError(number, column, f"{row[column]!r} is no {what}", remedy)

    def forecast(self, run: store.Run) -> dict[str, Any] | None:
        """As estimates stand now; none where the run does not say enough to estimate it."""
        task = self._task(run.names["task"])
        model, recipe, device = (run.names[name] for name in ("model", "recipe", "device"))
        if task is None or task.n_images is None or not recipe or not device:
            return None
        accuracies = self._forecasts.accuracies(
            task, recipe, run.names["metric"], self._candidates.values()
        )
        found = estimate(
            facts_of(task, None),
            self._candidates[model],
            self._recipes[recipe],
            self._devices[device],
            difficulty=None,
            accuracy=accuracies.get(model),
            factors=self._forecasts.factors(Setting(task.id, model, recipe, device)),
            timing=self._forecasts.timing(device, model),
        )
        intervals = {name: getattr(found, name) for name in _FORECAST}
        share = _share_of_steps(run, found, self._recipes[recipe])
        return {
            "service": __version__,
            "calibrated": found.calibrated,
            "counted": {
                name: number if name == "memory_mib" else number * share
                for name, number in found.counted.items()
            },
            **{name: asdict(interval) for name, interval in intervals.items() if interval},
        }

    def _task(self, name: str) -> Task | None:
        if name not in self._tasks:
            query = select(Task).where(Task.id == name, tasks.readable_by(self._tenant))
            self._tasks[name] = self._session.scalar(query)
        return self._tasks[name]

    def _cards(self, kind: type[Any]) -> dict[str, Any]:
        return {card.name: card for card in cards.list_cards(self._session, self._tenant, kind)}


def _share_of_steps(run: store.Run, found: Estimate, recipe: RecipeCard) -> float:
    """Of those that the recipe has, how many were made: what is counted is counted for these."""
    if "steps" in run.numbers:
        return run.numbers["steps"] / found.steps.typical
    return run.numbers.get("epochs", recipe.epochs) / recipe.epochs


def _answer(outcome: Outcome) -> OutcomeAnswer:
    return OutcomeAnswer(**{name: getattr(outcome, name) for name in OutcomeAnswer.model_fields})


def _csv(answers: list[OutcomeAnswer], next_cursor: str | None) -> Response:
    plain = [name for name in OutcomeAnswer.model_fields if name not in ("numbers", "forecast")]
    forecast = [(name, bound) for name in _FORECAST for bound in ("low", "typical", "high")]
    numbers = list(dict.fromkeys(name for answer in answers for name in answer.numbers))
    return formats.csv_response(
        [*plain, *("_".join(("forecast", *each)) for each in forecast), *numbers],
        (
            [
                *(getattr(answer, name) for name in plain),
                *((answer.forecast or {}).get(name, {}).get(bound) for name, bound in forecast),
                *(answer.numbers.get(name) for name in numbers),
            ]
            for answer in answers
        ),
        next_cursor,
    )
