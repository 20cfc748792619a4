"""Outcomes of fine-tuning runs: kept once each, the implausible ones aside until released."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.cost.cells import N_HELD_OUT, PROBE_ACCURACY
from app.cost.evidence import Evidence
from app.cost.outcome_table import NUMBERS, OutcomeTable
from app.cost.plausibility import implausible_runs
from app.cost.predictor import SECONDS_PER_HOUR
from app.errors import NotFound
from app.store import scores
from app.store.cursors import begins, page
from app.store.session import portions
from app.store.tables import Embedding, Outcome, Task
from app.store.tasks import readable_by

_NAMES = ("task", "model", "recipe", "device", "metric", "stop_reason")
_SCORED = ("accuracy", "seconds", "energy_wh", "memory_mib")
_OF_WHOLE_RECIPES = ("seconds", "energy_wh")
_SHOWN = 8  # letters of an id in tables
_CUT_ID = re.compile("[0-9a-f]{8,31}")
_BEFORE = 5_000  # of the newest outcomes, which new ones are held against


@dataclass(frozen=True, slots=True)
class Run:
    """A row of an outcome table: names, the value where there is one, and every other number."""

    names: Mapping[str, str]
    value: float | None
    numbers: Mapping[str, float]

    @property
    def digest(self) -> str:
        told = {**self.names, "value": self.value, "numbers": dict(self.numbers)}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Added:
    """`outcomes` in the order of the runs; `new`: those that were not there before."""

    outcomes: list[Outcome]
    new: list[Outcome]


def runs_of(table: OutcomeTable) -> Iterator[Run]:
    columns = [name for name in (*NUMBERS, *table.score_names) if name != "value"]
    for row in table.runs.iter_rows(named=True):
        yield Run(
            names={name: row[name] for name in _NAMES},
            value=row["value"],
            numbers={name: row[name] for name in columns if row[name] is not None},
        )


def add(
    session: Session,
    tenant: str,
    runs: Sequence[Run],
    forecasts: Sequence[dict[str, Any] | None],
) -> Added:
    """Keep what is new, each with the forecast of it; a run that is there stays as it is."""
    digests = [run.digest for run in runs]
    rows = _present(session, tenant, digests)
    new: list[Outcome] = []
    for run, digest, forecast in zip(runs, digests, forecasts, strict=True):
        if digest not in rows:
            rows[digest] = Outcome(
                tenant=tenant,
                digest=digest,
                **run.names,
                value=run.value,
                numbers=dict(run.numbers),
                forecast=forecast,
            )
            new.append(rows[digest])
    _quarantine(session, tenant, new)
    session.add_all(new)
    session.flush()
    return Added([rows[digest] for digest in digests], new)


def list_outcomes(
    session: Session,
    tenant: str,
    *,
    limit: int,
    cursor: str | None = None,
    id_prefix: str | None = None,
    task: str | None = None,
    model: str | None = None,
    quarantined: bool | None = None,
) -> tuple[list[Outcome], str | None]:
    """Newest first, and the cursor of the next page."""
    query = select(Outcome).where(Outcome.tenant == tenant, begins(Outcome.id, id_prefix))
    if task is not None:
        query = query.where(Outcome.task == task)
    if model is not None:
        query = query.where(Outcome.model == model)
    if quarantined is not None:
        kept_aside = Outcome.quarantine.is_not(None)
        query = query.where(kept_aside if quarantined else ~kept_aside)
    return page(session, Outcome, query, limit=limit, cursor=cursor)


def names_of_tasks(session: Session, tenant: str, names: Sequence[str]) -> dict[str, list[str]]:
    """Of `names`, those that are the tenant's names of tasks, or beginnings of their ids as tables
    show them, with the ids that are meant.

    Without ids, and without names that outcomes stand under already: there they are another task's.
    """
    found: dict[str, list[str]] = {}
    for some in portions(names):
        own = (Task.tenant == tenant, Task.expires_at.is_(None))
        ids = select(Task.id).where(Task.id.in_(some), readable_by(tenant))
        used = select(Outcome.task).where(Outcome.tenant == tenant, Outcome.task.in_(some))
        meant = set(session.scalars(ids)) | set(session.scalars(used))
        called = select(Task.name, Task.id).where(*own, Task.name.in_(some))
        for name, task_id in session.execute(called):
            if name not in meant:
                found.setdefault(name, []).append(task_id)
        rest = set(some) - meant - found.keys()
        cut = [name for name in rest if _CUT_ID.fullmatch(name)]
        starts = {name[:_SHOWN] for name in cut}
        begun = select(Task.id).where(*own, func.substr(Task.id, 1, _SHOWN).in_(starts))
        whole = session.scalars(begun).all() if cut else []
        for name in cut:
            if fitting := [task_id for task_id in whole if task_id.startswith(name)]:
                found[name] = fitting
    return found


def evidence(session: Session, tenant: str, *, task: str | None = None) -> Evidence:
    """Every outcome that is not in quarantine, of all tasks or one, oldest first."""
    query = select(Outcome).where(Outcome.tenant == tenant, Outcome.quarantine.is_(None))
    if task is not None:
        query = query.where(Outcome.task == task)
    found = session.scalars(query.order_by(Outcome.seq)).all()
    names = sorted({outcome.task for outcome in found})
    eases: dict[str, float | None] = {}
    told: dict[str, dict[str, dict[str, float]]] = {}
    for some in portions(names):
        eases |= _probe_accuracies(session, tenant, some)
        told |= scores.learnt(session, tenant, some)
    return Evidence.of(
        _measured(outcome)
        | {PROBE_ACCURACY: eases.get(outcome.task)}
        | told.get(outcome.task, {}).get(outcome.model, {})
        for outcome in found
    )


def _probe_accuracies(
    session: Session, tenant: str, names: Collection[str]
) -> dict[str, float | None]:
    """Of the tasks that have an embedding."""
    query = select(Task.id, Embedding.provenance).join(Task.embedding)
    query = query.where(Task.id.in_(names), readable_by(tenant))
    return {task: made.get("cv_accuracy") for task, made in session.execute(query)}


def _measured(outcome: Outcome) -> dict[str, Any]:
    seconds, watts = (outcome.numbers.get(name) for name in ("seconds", "power_watts"))
    row = {name: getattr(outcome, name) for name in (*_NAMES, "value")}
    row |= {"seconds": seconds}
    row |= {name: outcome.numbers.get(name) for name in ("memory_mib", N_HELD_OUT)}
    if seconds is not None and watts:
        row["energy_wh"] = seconds * watts / SECONDS_PER_HOUR
    counted = (outcome.forecast or {}).get("counted", {})
    return row | {f"counted_{name}": value for name, value in counted.items()}


def scored(
    session: Session, tenant: str | None, most: int
) -> dict[str, tuple[list[str], list[bool]]]:
    """Of the newest outcomes, of all tenants for None, where the forecast of a number had a
    calibrated interval: of which task, and whether the number came to lie in it. What a run took
    that stopped by itself, before its recipe ended, says nothing of a forecast that is of all the
    recipe's epochs."""
    query = select(Outcome).where(Outcome.quarantine.is_(None))
    if tenant is not None:
        query = query.where(Outcome.tenant == tenant)
    found: dict[str, tuple[list[str], list[bool]]] = {name: ([], []) for name in _SCORED}
    for outcome in session.scalars(query.order_by(Outcome.seq.desc()).limit(most)):
        real = _measured(outcome) | {"accuracy": outcome.value}
        for name, (tasks, inside) in found.items():
            if outcome.stop_reason == "converged" and name in _OF_WHOLE_RECIPES:
                continue
            told = (outcome.forecast or {}).get(name)
            if told and told["kind"] == "conformal_90" and real.get(name) is not None:
                tasks.append(outcome.task)
                inside.append(told["low"] <= real[name] <= told["high"])
    return found


def get_outcome(session: Session, tenant: str, outcome_id: str) -> Outcome:
    outcome = session.scalar(
        select(Outcome).where(Outcome.id == outcome_id, Outcome.tenant == tenant)
    )
    if outcome is None:
        raise NotFound(
            "unknown-outcome",
            f"There is no outcome {outcome_id!r}.",
            "Take the id from the answer that accepted it, or from the list of outcomes.",
        )
    return outcome


def release(session: Session, outcome: Outcome) -> None:
    """Somebody looked, and it is as it says."""
    outcome.quarantine = None
    session.flush()


def _present(session: Session, tenant: str, digests: Sequence[str]) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    for some in portions(digests):
        query = select(Outcome).where(Outcome.tenant == tenant, Outcome.digest.in_(some))
        found |= {outcome.digest: outcome for outcome in session.scalars(query)}
    return found


def _quarantine(session: Session, tenant: str, new: Sequence[Outcome]) -> None:
    """Held against each other and what was there: seconds among runs of a candidate on a device
    under a recipe, values among those of a task and metric."""
    if not new:
        return
    query = select(Outcome).where(Outcome.tenant == tenant, Outcome.quarantine.is_(None))
    before = session.scalars(query.order_by(Outcome.seq.desc()).limit(_BEFORE)).all()
    slow, odd = implausible_runs([_measured(outcome) for outcome in (*new, *before)])
    for outcome, by_seconds, by_value in zip(new, slow, odd, strict=False):
        if by_seconds:
            outcome.quarantine = (
                f"{outcome.numbers['seconds']:g} seconds are far from what {outcome.model} took "
                "elsewhere."
            )
        elif by_value:
            outcome.quarantine = (
                f"{outcome.value:g} is far from what others reached on {outcome.task}."
            )
