"""Timings of candidates on devices: the newest of each, by tenant."""

from __future__ import annotations

from dataclasses import astuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.cost.timing import Spread, Timing
from app.errors import NotFound
from app.store.session import hold
from app.store.tables import CandidateTiming, now


def put(
    session: Session, tenant: str, device: str, candidate: str, timing: Timing
) -> CandidateTiming:
    """In place of an earlier one."""
    hold(session, f"timings of {tenant}")  # two first ones at a time would both be added
    row = session.merge(
        CandidateTiming(
            tenant=tenant,
            device=device,
            candidate=candidate,
            batch_size=timing.batch_size,
            step_seconds=list(astuple(timing.step_seconds)),
            forward_seconds=list(astuple(timing.forward_seconds)),
            created_at=now(),
        )
    )
    session.flush()
    return row


def remove(session: Session, tenant: str, device: str, candidate: str) -> None:
    """NotFound where it was not timed there."""
    row = session.get(CandidateTiming, (tenant, device, candidate))
    if row is None:
        raise NotFound(
            "unknown-timing",
            f"You have no timing of {candidate!r} on {device!r}.",
            "Name a device and a candidate of those that GET /v1/timings lists.",
        )
    session.delete(row)


def list_timings(session: Session, tenant: str, device: str | None = None) -> list[CandidateTiming]:
    """Of one device or all, by device and candidate."""
    query = select(CandidateTiming).where(CandidateTiming.tenant == tenant)
    if device is not None:
        query = query.where(CandidateTiming.device == device)
    order = (CandidateTiming.device, CandidateTiming.candidate)
    return list(session.scalars(query.order_by(*order)))


def on_device(session: Session, tenant: str, device: str) -> dict[str, Timing]:
    """By candidate."""
    return {
        row.candidate: Timing(
            row.batch_size, Spread(*row.step_seconds), Spread(*row.forward_seconds)
        )
        for row in list_timings(session, tenant, device)
    }
